"""What a host decides: which rows go into the next batch, what is answered to whom, which frames are finished.

Rules of this file:
- No clock, no event loop, no I/O. Time comes in as an argument, decisions go out.
- Each row that is admitted is in exactly one reply, with its output or with the reason why it has none.
- A frame is finished when all its rows are in acknowledged replies, and then once.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from clipper_agents.host.outputs import OpenFrame, Reply, RowSpan, expired_replies, inputs_of, output_replies, row_spans
from clipper_agents.host.request_rows import RequestRows
from clipper_stream.batching.limit import BatchLimit
from clipper_stream.batching.window import Window
from clipper_stream.models.model import Rows
from clipper_stream.models.runner import BatchOutcome

Origin = TypeVar("Origin")

MEMORY_BATCHES = 10
"""How long a row needs is smoothed over about so many batches."""
DEVIATIONS = 4
"""Mean deviations that are added to the mean, as RFC 6298 does for the time of a round trip: what waits first in a host
with too much to do has no more time than that, and half of all batches take longer than the mean."""


@dataclass(frozen=True, slots=True)
class Batch(Generic[Origin]):
    """Rows of one kind to predict together, and whose they are."""

    inputs: Rows
    runs: Sequence[RowSpan[Origin]]


@dataclass(frozen=True, slots=True)
class BatchingStep(Generic[Origin]):
    """What the engine has to do now: predict a batch, send replies to late rows, and step again at `wake_at_s`."""

    batch: Batch[Origin] | None
    late: list[Reply[Origin]]
    late_rows: int
    wake_at_s: float | None
    waited_s: float = 0.0


class HostBatcher(Generic[Origin]):
    """Decides which rows of one host form the next batch."""

    def __init__(self, window: Window[tuple[OpenFrame[Origin], int]], limit: BatchLimit) -> None:
        self._window = window
        self._limit = limit
        self._now_s = 0.0
        self._open_rows = 0
        self._mean_s = self._deviation_s = 0.0

    @property
    def queued_rows(self) -> int:
        """Rows that wait for a batch."""
        return len(self._window)

    @property
    def open_rows(self) -> int:
        """Rows whose answer was not acknowledged yet: waiting, in the model, or on the way out."""
        return self._open_rows

    @property
    def limit_rows(self) -> int:
        """Most rows that the next batch may have."""
        return self._limit.rows

    def admit(self, origin: Origin, request: RequestRows, now_s: float) -> bool:
        """Admit the rows of a request frame.

        Returns:
            True when there is nothing to do for it: a frame without rows is finished at once.
        """
        now_s = self._forward(now_s)
        frame = OpenFrame(origin, request, len(request.rows), now_s)
        for row, deadline_s in enumerate(request.deadlines_s):
            kind = request.kind if row not in request.apart else (request.kind, request.router, request.frame, row)
            self._window.add((frame, row), kind, deadline_s, now_s)
        self._open_rows += frame.unanswered
        return frame.unanswered == 0

    def step(self, now_s: float) -> BatchingStep[Origin]:
        """Return the next batch, if one may go, and the rows that are too late for any."""
        now_s = self._forward(now_s)
        taken = self._window.take(now_s, self._limit.rows, self._mean_s + DEVIATIONS * self._deviation_s)
        runs = row_spans(taken.batch)
        batch = Batch(inputs_of(runs), runs) if runs else None
        late = expired_replies(row_spans(taken.late), now_s) if taken.late else []
        waited_s = now_s - min((run.frame.admitted_s for run in runs), default=now_s)
        return BatchingStep(batch, late, len(taken.late), taken.wake_at_s, waited_s)

    def complete(self, batch: Batch[Origin], outcome: BatchOutcome, latency_s: float) -> list[Reply[Origin]]:
        """Return the replies with a batch's outputs, and let the limit learn from its latency.

        A batch that had to be asked again in parts teaches nothing: its latency is that of many batches.
        """
        if outcome.calls == 1:
            self._limit.observe(len(batch.inputs), latency_s)
        return output_replies(batch.runs, outcome)

    def delivered(self, took_s: float) -> None:
        """Record the seconds from a batch's start to the acknowledgement of its answers."""
        error_s = took_s - self._mean_s
        self._mean_s += error_s / MEMORY_BATCHES
        self._deviation_s += (abs(error_s) - self._deviation_s) / MEMORY_BATCHES

    def acknowledge(self, reply: Reply[Origin]) -> list[Origin]:
        """Record that a reply is stored; return the origins of frames that are now finished, each once."""
        finished = []
        for run in reply.runs:
            run.frame.unanswered -= len(run)
            self._open_rows -= len(run)
            if run.frame.unanswered == 0:
                finished.append(run.frame.origin)
        return finished

    def _forward(self, now_s: float) -> float:
        """Return the latest time seen so far: the wall clock may be set back, the window's may not."""
        self._now_s = max(self._now_s, now_s)
        return self._now_s
