"""The fold of the logs: records in their order go in, decisions come out. Nothing here waits or writes."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping

import msgspec

from clipper_agents.feedback.feedback_step import decode_feedback
from clipper_agents.kafka.reader import Record
from clipper_agents.rollout.comparison_spec import ComparisonSpec
from clipper_agents.rollout.decisions import RolloutDecision
from clipper_agents.rollout.drift_monitor import DriftMonitor
from clipper_agents.rollout.query_buffer import BufferedQuery, QueryBuffer
from clipper_agents.rollout.query_losses import failures, losses_of
from clipper_agents.rollout.trial_evidence import ApplicationEvidence, followed
from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.join import feedback_value, is_policy_choice, join
from clipper_stream.feedback.update import Label
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import UndecodableRecord
from clipper_topics.comparison import Comparison
from clipper_topics.drift import DriftEvent
from clipper_topics.prediction import Prediction
from clipper_topics.restore import RESTORE

HOUR_MS = 3_600_000


class UnknownRevision(Exception):
    """A record was decided under a revision of its application that is not followed yet."""

    def __init__(self, application: str, revision: int) -> None:
        super().__init__(f"revision {revision} of {application} is not followed yet")
        self.application, self.revision = application, revision


class EvidenceFold:
    """All that the logs say of the compared applications, up to one place in them.

    Attributes:
        unusable: Records that could not be used, by reason: `undecodable`, `invalid`.
        detected: Changes of losses that were seen, until somebody takes them away.
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
        self._queries = QueryBuffer(horizon_s, most_queries, self._decided, self._given_up)
        self._horizon_s, self._newest_ms = horizon_s, 0
        self._evidence: dict[str, ApplicationEvidence] = {}
        self._known, self._monitors = drifts or {}, dict[str, DriftMonitor]()
        self.unusable: Counter[str] = Counter()
        self.detected: list[DriftEvent] = []

    @property
    def dropped(self) -> Mapping[str, int]:
        """Queries and records that were dropped, by reason."""
        mismatched = sum(one.mismatched for one in self._evidence.values())
        return self._queries.dropped + self.unusable + Counter({"share": mismatched} if mismatched else {})

    @property
    def remembered(self) -> int:
        return len(self._queries)

    @property
    def refused(self) -> dict[str, str]:
        """Applications of which drift is not watched although it is declared, with the reason."""
        return {name: one.refused for name, one in self._monitors.items() if one.refused is not None}

    def follow(self, specs: Mapping[str, ComparisonSpec]) -> None:
        """Compare this from now on; what is compared as before keeps its evidence."""
        self._evidence = followed(self._evidence, specs, self._horizon_s)
        self._monitors = {name: self._monitor(name, spec) for name, spec in specs.items() if spec.drift is not None}

    def take(self, record: Record, at_ms: int) -> str | None:
        """Take one record in; return the application about which it completed a query, None for most.

        Raises:
            UnknownRevision: the record was decided under a revision that is not followed yet; take it again afterwards.
        """
        self._newest_ms = at_ms
        try:
            query = self._completed(record, at_ms)
        except (UndecodableRecord, msgspec.ValidationError):
            self.unusable["undecodable"] += 1
            return None
        return None if query is None else self._observe(query, record, at_ms)

    def decisions(self, applications: Iterable[str], *, all_read: bool = False) -> list[RolloutDecision]:
        """The changes that the rules of these applications ask for, aborts first."""
        compared = [self._evidence[name] for name in applications if name in self._evidence]
        newest_ms = None if all_read else self._newest_ms
        found = [one for evidence in compared for one in evidence.decisions(newest_ms)]
        return sorted(found, key=lambda one: one.command != "abort")

    def comparisons(self) -> list[Comparison]:
        return [one for evidence in self._evidence.values() for one in evidence.comparisons()]

    def _completed(self, record: Record, at_ms: int) -> BufferedQuery | None:
        partition = record.partition
        if record.topic == self._catalogue.predictions:
            prediction = codec.predictions.decode(record.value, record.headers)
            if self._wanted(prediction):
                return self._queries.prediction(partition, prediction, at_ms)
            self._queries.other(partition, prediction.query_id, at_ms)
            return None
        if record.topic == self._catalogue.audits:
            audit = codec.audits.decode(record.value, record.headers)
            return self._queries.audit(partition, audit, at_ms) if audit.application in self._evidence else None
        if any(name == RESTORE for name, _ in record.headers):
            return None
        return self._queries.feedback(partition, decode_feedback(record), at_ms)

    def _wanted(self, prediction: Prediction) -> bool:
        if prediction.policy is None:
            return False
        name, revision = prediction.application, prediction.policy.version
        if revision > self._revision(name):
            raise UnknownRevision(name, revision)
        evidence, asked = self._evidence.get(name), bool(prediction.models or prediction.missing)
        return evidence is not None and asked and is_policy_choice(prediction) and revision >= evidence.spec.since

    def _monitor(self, name: str, spec: ComparisonSpec) -> DriftMonitor:
        """The detectors; they go on as long as the same ones read the same losses."""
        assert spec.drift is not None
        before = self._monitors.get(name)
        if before is not None and (before.spec, before.loss) == (spec.drift, spec.loss):
            return before
        known = {model: event for (application, model), event in self._known.items() if application == name}
        return DriftMonitor(name, spec.drift, spec.loss, known)

    def _decided(self, query: BufferedQuery) -> None:
        prediction = query.prediction
        assert prediction is not None
        assert prediction.policy is not None
        evidence = self._evidence.get(prediction.application)
        if evidence is not None:
            asked_ms = prediction.queried_at_ms or query.at_ms
            decision, failed = join(prediction, query.audit), failures(prediction, query.audit)
            revision = prediction.policy.version
            query.opened = evidence.decide(revision, decision, failed, asked_ms)

    def _given_up(self, query: BufferedQuery) -> None:
        for opened in query.opened or ():
            opened.give_up()

    def _observe(self, query: BufferedQuery, record: Record, at_ms: int) -> str | None:
        prediction, feedback = query.prediction, query.feedback
        assert prediction is not None
        assert prediction.policy is not None
        assert feedback is not None
        name, revision = prediction.application, prediction.policy.version
        evidence = self._evidence.get(name)
        if evidence is None:
            return None
        decision, value = join(prediction, query.audit), feedback_value(feedback)
        try:
            losses = losses_of(decision, value, evidence.spec.candidates, evidence.spec.loss)
        except InvalidLabel:
            self.unusable["invalid"] += 1
            self._queries.reopen(query)
            return None
        for opened in query.opened or ():
            opened.learn(losses, "label" if isinstance(value, Label) else "reward")
        self._queries.close(query)
        if (monitor := self._monitors.get(name)) is not None:
            given = {ref: losses.models[ref] for ref in decision.outputs if ref in losses.models}
            context, hour = prediction.context, (prediction.queried_at_ms or query.at_ms) // HOUR_MS % 24
            self.detected += monitor.observe(given, record, at_ms, revision=revision, context=context, hour=hour)
        return name
