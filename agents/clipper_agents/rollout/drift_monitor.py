"""Which versions' losses have changed: a fold over the scored queries of one application, detector by detector.

Rules of this file:
- A version is watched by the losses of outputs that it gave: one that did not answer in time is another matter.
- A detector begins anew after each detection, and at the record that fired the newest known one. So a controller
  that reads the logs again comes to the same detections, as long as they reach back to that record.
- Memory is bounded: the `MOST` detectors that were used last are kept.
"""

from collections import OrderedDict
from collections.abc import Mapping
from functools import partial

from clipper_agents.kafka.reader import Record
from clipper_agents.rollout.comparison_spec import DriftSpec
from clipper_stream.drift.adwin import Adwin
from clipper_stream.drift.loss_watch import LossWatch
from clipper_stream.errors import SetupError
from clipper_topics.drift import DriftEvent

MOST = 1_000
"""Detectors of an application: a version and a context each. One holds some 40 kB."""


class DriftMonitor:
    """The detectors of one application, with the newest known detection by version.

    Attributes:
        spec: The detector that the application declares.
        loss: How a label is compared with an output.
        refused: Why nothing is watched: the library of the detector is missing; None: all is well.
    """

    def __init__(self, application: str, spec: DriftSpec, loss: str, known: Mapping[str, DriftEvent]) -> None:
        self.spec, self.loss, self._application, self._known = spec, loss, application, known
        self._watches: OrderedDict[tuple[str, str | None], LossWatch] = OrderedDict()
        self._make = partial(Adwin, spec.rule.delta)
        self.refused: str | None = None
        try:
            self._make()
        except SetupError as error:
            self.refused = str(error)

    def observe(
        self, losses: Mapping[str, float], record: Record, at_ms: int, *, revision: int, context: str | None, hour: int
    ) -> list[DriftEvent]:
        """Take in one query with the losses of each version that answered; return what is detected by it.

        The query was decided under `revision`, and asked in this hour of the day, UTC; `record` is the last one about
        it, at its place in the order of time.
        """
        if self.refused is not None or revision < self.spec.since:
            return []
        rule, found = self.spec.rule, []
        context = context if rule.per_context else None
        for ref, loss in losses.items():
            watch = self._watch(ref, context)
            change = watch.observe(loss, hour)
            if change is not None:
                event = DriftEvent(
                    application=self._application,
                    model=ref,
                    context=context,
                    at_ms=at_ms,
                    detector="adwin",
                    parameters={"delta": rule.delta},
                    losses=change.losses,
                    after=change.after,
                    loss_before=change.loss_before,
                    loss_after=change.loss_after,
                    revision=revision,
                    topic=record.topic,
                    partition=record.partition,
                    offset=record.offset,
                )
                found.append(event)
            elif _fired(record, self._known.get(ref)):
                watch.begin_anew()
        return found

    def _watch(self, ref: str, context: str | None) -> LossWatch:
        watch = self._watches.get((ref, context))
        if watch is None:
            watch = self._watches[ref, context] = LossWatch(self._make)
            if len(self._watches) > MOST:
                self._watches.popitem(last=False)
        self._watches.move_to_end((ref, context))
        return watch


def _fired(record: Record, event: DriftEvent | None) -> bool:
    """Return whether the record, the last one of its query, fired the detection."""
    place = (record.topic, record.partition, record.offset)
    return event is not None and (event.topic, event.partition, event.offset) == place
