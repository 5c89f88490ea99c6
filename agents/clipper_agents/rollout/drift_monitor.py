"""Which versions' losses have changed: a fold over the scored queries of one application, detector by detector.

Rules of this file:
- A version is watched by the losses of outputs that it gave: one that did not answer in time is another matter.
- A detector begins anew after each detection, and at the record that fired the newest known one. So a controller
  that reads the logs again comes to the same detections, as long as they reach back to that record.
- Memory is bounded: the `MOST` detectors that were used last are kept.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass

from clipper_agents.rollout.comparison_spec import DriftSpec
from clipper_stream.drift.detectors import DetectorSpec, make_spec
from clipper_stream.drift.loss_watch import LossChange, LossWatch
from clipper_stream.errors import SetupError
from clipper_topics.drift import DriftEvent

MOST = 1_000
"""Detectors of an application: a version and a context each. One holds some 20 kB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedQuery:
    """A query of which all records are read, with the place of the last of them.

    Attributes:
        at_ms: Time of that record, milliseconds since the epoch.
        topic: Of that record.
        partition: Of that record.
        offset: Of that record.
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
        """Whether the record that completed the query fired the detection."""
        place = (self.topic, self.partition, self.offset)
        return event is not None and (event.topic, event.partition, event.offset) == place


class DriftMonitor:
    """The detectors of one application.

    Args:
        application: Its name.
        spec: The detector that the application declares.
        loss: How a label is compared with an output.
        known: The newest known detection by version.

    Attributes:
        spec: As given.
        loss: As given.
        refused: Why nothing is watched: the declaration is no detector, or its library is missing; None: all is well.
    """

    def __init__(self, application: str, spec: DriftSpec, loss: str, known: Mapping[str, DriftEvent]) -> None:
        self.spec, self.loss, self._application, self._known = spec, loss, application, known
        self._watches: OrderedDict[tuple[str, str | None], LossWatch] = OrderedDict()
        self._detector: DetectorSpec | None = None
        self.refused: str | None = None
        try:
            detector = make_spec(spec.rule.detector, spec.rule.parameters, loss)
            detector.make()
        except SetupError as error:
            self.refused = str(error)
        else:
            self._detector = detector

    def observe(self, losses: Mapping[str, float], query: CompletedQuery) -> list[DriftEvent]:
        """Take in one query; return what is detected by it.

        Args:
            losses: Of each version that answered, in [0, 1].
            query: Where it stands.
        """
        if self._detector is None or query.revision < self.spec.since:
            return []
        found = []
        for ref, loss in losses.items():
            watch = self._watch(self._detector, ref, query.context if self.spec.rule.per_context else None)
            change = watch.observe(loss)
            if change is not None:
                found.append(self._event(ref, change, query))
            elif query.fired(self._known.get(ref)):
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

    def _event(self, ref: str, change: LossChange, query: CompletedQuery) -> DriftEvent:
        rule = self.spec.rule
        return DriftEvent(
            application=self._application,
            model=ref,
            context=query.context if rule.per_context else None,
            at_ms=query.at_ms,
            detector=rule.detector,
            parameters=rule.parameters,
            losses=change.losses,
            after=change.after,
            loss_before=change.loss_before,
            loss_after=change.loss_after,
            revision=query.revision,
            topic=query.topic,
            partition=query.partition,
            offset=query.offset,
        )
