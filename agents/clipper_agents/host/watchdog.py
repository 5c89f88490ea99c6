"""A model that never returns, and one that eats memory: seen from a thread of its own, whatever the model holds.

Rules of this file:
- A batch that runs longer than `hang_s` ends the process, with a line that says so and the stack of every thread: no
  thread can be ended by another, and the next process is a new start.
- A model may hold the interpreter lock for ever (a loop in C), and this thread does not run either. So each look winds
  up an alarm in C (faulthandler), which ends the process when it is not wound up again in time.
- A process that was frozen (SIGSTOP, a suspended machine) has not hung: the time away counts as one look.
"""

import faulthandler
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from clipper_agents import exits
from clipper_agents.host.batching import RowSpan
from clipper_agents.observability.logging import event

logger = logging.getLogger(__name__)

LOOK_S = 0.25
ALARM_SPARE_S = 2.0
"""The alarm in C is the second net: this thread, which can say more, comes first when it can run."""
MIB = 1024 * 1024


class BatchWatch:
    """The batch that one model runs now. `begin` and `end` cost a store each."""

    def __init__(self, ref: str, hang_s: float) -> None:
        self.ref, self.hang_s = ref, hang_s
        self.rows = 0
        self._ran_s = 0.0

    def begin(self, batch: Iterable[RowSpan]) -> None:
        self._ran_s = 0.0
        self.rows = sum(span.size for span in batch)

    def end(self) -> None:
        self.rows = 0

    def hangs(self, elapsed_s: float) -> bool:
        """Return whether the batch has run too long; `elapsed_s` is the time since the last look."""
        self._ran_s = self._ran_s + elapsed_s if self.rows else 0.0
        return self._ran_s > self.hang_s


class ModelWatch:
    """The watching thread of one process, until `end` ends that; `outgrown` is called once when it must be drained."""

    def __init__(self, end: Callable[[int], None] = os._exit, outgrown: Callable[[], None] = lambda: None) -> None:
        self._end, self._outgrown = end, outgrown
        self._batches: list[BatchWatch] = []
        self._memory: tuple[str, int] | None = None
        self._thread: threading.Thread | None = None

    def add(self, ref: str, hang_s: float, memory_mib: int | None = None) -> BatchWatch:
        """Watch a model: each batch for `hang_s` seconds, and the process for its resident memory if limited."""
        watch = BatchWatch(ref, hang_s)
        self._batches.append(watch)
        if memory_mib is not None:
            self._memory = ref, memory_mib
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="model watch", daemon=True)
            self._thread.start()
        return watch

    def remove(self, batches: BatchWatch) -> None:
        self._batches = [watch for watch in self._batches if watch is not batches]

    def look(self, elapsed_s: float) -> None:
        for watch in self._batches:
            if watch.hangs(elapsed_s):
                self._give_up(watch)
        if self._memory is not None:
            self._look_at_memory(*self._memory)

    def _run(self) -> None:
        last_s = time.monotonic()
        while True:
            shortest_s = min((watch.hang_s for watch in self._batches), default=None)
            if shortest_s is None:
                faulthandler.cancel_dump_traceback_later()
            else:
                own = sys.__stderr__ or sys.stderr  # which a test, or a model, may have put something else in place of
                faulthandler.dump_traceback_later(shortest_s + ALARM_SPARE_S, exit=True, file=own)
            time.sleep(LOOK_S)
            now_s = time.monotonic()
            self.look(min(now_s - last_s, 2 * LOOK_S))
            last_s = now_s

    def _give_up(self, watch: BatchWatch) -> None:
        text = "model hangs, the process ends: correct the model, or raise batch.hang_s if it needs so long"
        event(logger, text, logging.ERROR, model=watch.ref, rows=watch.rows, hang_s=watch.hang_s)
        faulthandler.dump_traceback(sys.__stderr__ or sys.stderr, all_threads=True)
        logging.shutdown()
        self._end(exits.CRASHED)

    def _look_at_memory(self, ref: str, memory_mib: int) -> None:
        resident_mib = resident_bytes() // MIB
        if resident_mib > memory_mib:
            self._memory = None
            text = "process has more memory than its model may, draining: find the leak, or raise memory_mib"
            event(logger, text, logging.ERROR, model=ref, resident_mib=resident_mib, memory_mib=memory_mib)
            self._outgrown()


def resident_bytes() -> int:
    """Resident memory of this process (Linux; elsewhere 0, and there is no limit)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def bound_allocations(mib: int) -> None:
    """Limit this process to so many MiB above what it has mapped now, so that the model gets a MemoryError (Linux).

    The second net: a single batch can take all memory between two looks at it. What is mapped and not touched counts.
    """
    try:
        fields = Path("/proc/self/status").read_text().split()
        mapped = int(fields[fields.index("VmData:") + 1]) * 1024
        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        resource.setrlimit(resource.RLIMIT_DATA, (mapped + mib * MIB, hard))
    except (OSError, ValueError):
        logger.warning("allocations are not bounded: this system has no such limit")
