"""Whose losses have changed: a fold over the scored queries of one application, detector by detector.

Rules of this file:
- A version is watched by the losses of outputs that it gave: one that did not answer in time is another matter.
- A detector begins anew after each detection, and at the record that fired the newest known one. So a steward that
  reads the logs again comes to the same detections, as long as they reach back to that record.
- Memory is bounded: the `MOST` detectors that were used last are kept.
"""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from clipper_agents.rollout.comparison_spec import WatchedDrift
from clipper_stream.drift.detector import DetectorSpec
from clipper_stream.drift.loss_watch import LossChange, LossWatch
from clipper_stream.drift.river_detectors import make_spec
from clipper_stream.errors import SetupError
from clipper_topics.drift import DriftEvent

MOST = 1_000
"""Detectors of an application: a version and a context each. One holds some 20 kB."""
Known = Callable[[str], DriftEvent | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """The record that completed a query, and what the query was.

    Attributes:
        at_ms: Its time, milliseconds since the epoch.
        topic: Its topic.
        partition: Its partition.
        offset: Its offset.
        context: The query's.
        revision: Under which the query was decided.
    """

    at_ms: int
    topic: str
    partition: int
    offset: int
    context: str | None
    revision: int

    def fired(self, event: DriftEvent | None) -> bool:
        """Whether this record fired the detection."""
        place = (self.topic, self.partition, self.offset)
        return event is not None and (event.topic, event.partition, event.offset) == place


class Drifts:
    """The detectors of one application.

    Args:
        application: Its name.
        watched: What watches it.
        loss: How a label is compared with an output.
        known: The newest known detection about a version.

    Attributes:
        watched: As given.
        loss: As given.
        refused: Why nothing is watched: what is declared is none, or its library is missing; None: all is well.
    """

    def __init__(self, application: str, watched: WatchedDrift, loss: str, known: Known) -> None:
        self.watched, self.loss, self._application, self._known = watched, loss, application, known
        self._watches: OrderedDict[tuple[str, str | None], LossWatch] = OrderedDict()
        self._spec: DetectorSpec | None = None
        self.refused: str | None = None
        try:
            spec = make_spec(watched.rule.detector, watched.rule.parameters, loss)
            spec.make()
        except SetupError as error:
            self.refused = str(error)
        else:
            self._spec = spec

    def observe(self, losses: Mapping[str, float], place: Place) -> list[DriftEvent]:
        """One query; what is detected by it.

        Args:
            losses: Of each version that answered, in [0, 1].
            place: The record that completed the query.
        """
        if self._spec is None or place.revision < self.watched.since:
            return []
        found = []
        for ref, loss in losses.items():
            watch = self._watch(self._spec, ref, place.context if self.watched.rule.per_context else None)
            change = watch.observe(loss)
            if change is not None:
                found.append(self._event(ref, change, place))
            elif place.fired(self._known(ref)):
                watch.begin_anew()
        return found

    def _watch(self, spec: DetectorSpec, ref: str, context: str | None) -> LossWatch:
        watch = self._watches.get((ref, context))
        if watch is None:
            watch = self._watches[ref, context] = LossWatch(spec)
            if len(self._watches) > MOST:
                self._watches.popitem(last=False)
        self._watches.move_to_end((ref, context))
        return watch

    def _event(self, ref: str, change: LossChange, place: Place) -> DriftEvent:
        rule = self.watched.rule
        return DriftEvent(
            application=self._application,
            model=ref,
            context=place.context if rule.per_context else None,
            at_ms=place.at_ms,
            detector=rule.detector,
            parameters=rule.parameters,
            losses=change.losses,
            after=change.after,
            loss_before=change.loss_before,
            loss_after=change.loss_after,
            revision=place.revision,
            topic=place.topic,
            partition=place.partition,
            offset=place.offset,
        )
