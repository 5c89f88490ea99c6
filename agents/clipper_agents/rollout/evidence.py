"""The fold of the logs: records in their order go in, decisions come out. Nothing here waits or writes."""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec
from aiokafka import ConsumerRecord

from clipper_agents.rollout.comparison_spec import Watched
from clipper_agents.rollout.decisions import Decision
from clipper_agents.rollout.drift_monitor import Drifts, Place
from clipper_agents.rollout.feedback_join import Join, Joined
from clipper_agents.rollout.query_losses import losses_of
from clipper_agents.rollout.trial_evidence import Comparison, Standings, by_application
from clipper_agents.router.feedback_step import decode_feedback
from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.join import feedback_value, is_policy_choice, join
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.drift import DriftEvent
from clipper_topics.prediction import Prediction
from clipper_topics.restore import RESTORE

Record: TypeAlias = ConsumerRecord[Any, Any]


class Ahead(Exception):
    """A record was decided under a revision of its application that is not followed yet.

    Attributes:
        application: The application.
        revision: The revision.
    """

    def __init__(self, application: str, revision: int) -> None:
        super().__init__(f"revision {revision} of {application} is not followed yet")
        self.application, self.revision = application, revision


class Fold:
    """Everything that is known of the watched applications at one place in the logs.

    Args:
        catalogue: The topics.
        revision: The revision of an application that is followed now.
        horizon_s: How long after its prediction a feedback still counts, in seconds.
        most_queries: Kept at most, between a prediction and its feedback.
        drifts: The newest known detection by application and version.

    Attributes:
        unusable: Records that could not be used, by reason: `undecodable`, `invalid`.
        detected: Changes of losses that were seen, and that nobody has taken away yet.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        revision: Callable[[str], int],
        horizon_s: float,
        most_queries: int,
        drifts: Mapping[tuple[str, str], DriftEvent] | None = None,
    ) -> None:
        self._catalogue, self._revision = catalogue, revision
        self._join = Join(horizon_s, most_queries)
        self._standings: dict[str, Standings] = {}
        self._known, self._drifts = {} if drifts is None else drifts, dict[str, Drifts]()
        self.unusable: Counter[str] = Counter()
        self.detected: list[DriftEvent] = []

    @property
    def dropped(self) -> Mapping[str, int]:
        """Queries and records that were dropped, by reason."""
        return self._join.dropped + self.unusable

    @property
    def remembered(self) -> int:
        """Queries of which something is still to come."""
        return len(self._join)

    def follow(self, watched: Mapping[str, Watched]) -> None:
        """From now on this is compared; what is compared as before keeps its evidence."""
        self._standings = by_application(self._standings, watched)
        self._drifts = {name: self._drift(name, one) for name, one in watched.items() if one.drift is not None}

    @property
    def refused(self) -> dict[str, str]:
        """Applications of which drift is not watched although it is declared, with the reason."""
        return {name: drifts.refused for name, drifts in self._drifts.items() if drifts.refused is not None}

    def take(self, record: Record, at_ms: int) -> str | None:
        """Take one record in; the application about which something more is known now, None for most.

        Raises:
            Ahead: the record was decided under a revision that is not known here yet; take it again afterwards.
        """
        try:
            query = self._joined(record, at_ms)
        except (UndecodableRecord, msgspec.ValidationError):
            self.unusable["undecodable"] += 1
            return None
        return None if query is None else self._observe(query, record, at_ms)

    def decision(self, application: str) -> Decision | None:
        """What the application's rules ask for."""
        found = self._standings.get(application)
        return found.decision() if found else None

    def decisions(self) -> list[Decision]:
        """What the rules of all applications ask for."""
        return [found for name in self._standings if (found := self.decision(name))]

    def comparisons(self) -> list[Comparison]:
        """How each version of each application stands."""
        return [one for standings in self._standings.values() for one in standings.comparisons()]

    def _joined(self, record: Record, at_ms: int) -> Joined | None:
        partition = record.partition
        if record.topic == self._catalogue.predictions:
            prediction = codec.predictions.decode(record.value, record.headers)
            if not self._wanted(prediction):
                return None
            return self._join.prediction(partition, prediction, at_ms)
        if record.topic == self._catalogue.audits:
            audit = codec.audits.decode(record.value, record.headers)
            return self._join.audit(partition, audit, at_ms) if audit.application in self._standings else None
        if any(name == RESTORE for name, _ in record.headers):
            return None
        return self._join.feedback(partition, decode_feedback(record), at_ms)

    def _wanted(self, prediction: Prediction) -> bool:
        if prediction.policy is None:
            return False
        name, revision = prediction.application, prediction.policy.version
        if revision > self._revision(name):
            raise Ahead(name, revision)
        standings = self._standings.get(name)
        asked = bool(prediction.models or prediction.missing)
        if standings is None or not asked or not is_policy_choice(prediction):
            return False
        return revision >= standings.watched.since

    def _drift(self, name: str, watched: Watched) -> Drifts:
        """Detectors go on as long as the same ones read the same losses."""
        assert watched.drift is not None
        before = self._drifts.get(name)
        if before is not None and (before.watched, before.loss) == (watched.drift, watched.loss):
            return before
        return Drifts(name, watched.drift, watched.loss, lambda ref: self._known.get((name, ref)))

    def _observe(self, query: Joined, record: Record, at_ms: int) -> str | None:
        prediction, feedback = query.prediction, query.feedback
        assert prediction is not None
        assert prediction.policy is not None
        assert feedback is not None
        standings = self._standings.get(prediction.application)
        if standings is None:
            return None
        watched, decision = standings.watched, join(prediction, query.audit)
        try:
            losses = losses_of(decision, feedback_value(feedback), watched.candidates, watched.loss)
        except InvalidLabel:
            self.unusable["invalid"] += 1
            self._join.reopen(query)
            return None
        drifts = self._drifts.get(prediction.application)
        self._join.close(query)
        standings.observe(prediction.policy.version, losses)
        if drifts is not None:
            place = Place(
                at_ms=at_ms,
                topic=record.topic,
                partition=record.partition,
                offset=record.offset,
                context=prediction.context,
                revision=prediction.policy.version,
            )
            given = {ref: losses.models[ref] for ref in decision.outputs if ref in losses.models}
            self.detected += drifts.observe(given, place)
        return prediction.application
