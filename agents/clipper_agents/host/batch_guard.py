"""What stands around each batch: the watch over its time, and the memory of rows that killed the process."""

from collections.abc import Sequence
from typing import Any

from clipper_agents.host.outputs import RowSpan
from clipper_agents.host.poison_rows import PoisonRows
from clipper_agents.host.watchdog import BatchWatch


class BatchGuard:
    """Watches the batch of one model that is running, and records its rows while it runs.

    Args:
        watch: Over the time that a batch takes; None: nobody watches.
        poison_rows: Rows that were in a death; None for a colocated model, whose requests do not outlive its process.
    """

    def __init__(self, watch: BatchWatch | None = None, poison_rows: PoisonRows | None = None) -> None:
        self._watch, self._poison_rows = watch, poison_rows

    def begin(self, runs: Sequence[RowSpan[Any]]) -> str | None:
        """Record that these rows go into the model, or return why they must not."""
        if self._poison_rows is not None:
            refusal = self._poison_rows.refusal(runs)
            if refusal is not None:
                return refusal
            self._poison_rows.note(runs)
        if self._watch is not None:
            self._watch.begin(sum(map(len, runs)))
        return None

    def end(self) -> None:
        """Record that the batch has returned."""
        if self._watch is not None:
            self._watch.end()
        if self._poison_rows is not None:
            self._poison_rows.clear()
