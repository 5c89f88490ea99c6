"""What a host decides: which rows of the requests go into the next batch, what is answered to whom, what is finished.

Rules of this file:
- No clock, no event loop, no I/O. Time comes in as an argument, decisions go out.
- A request that contradicts itself is none: its rows are checked before any is admitted.
- Each row that is admitted is in exactly one piece of a reply, with its output or with the reason why it has none.
- A request is finished when all its rows are in acknowledged pieces, and then once.
"""

import struct
from collections import defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from clipper_stream.batching.limits import BatchLimit
from clipper_stream.batching.window import Window
from clipper_stream.errors import shown
from clipper_stream.models.model import Rows
from clipper_stream.models.row_spec import LISTED, NUMERIC
from clipper_stream.models.runner import BatchOutcome
from clipper_topics.codec import FailedRow, Headers, OutputFrame, RequestFrame, UnknownFrame, decode_request
from clipper_topics.trace_context import TracedRows, traced_rows

_DEADLINE_BYTES = 8
MOST_ROWS = 16_384
"""Of a frame; routers ask for at most a thousand. A shape of some bytes can claim any number of empty rows."""
MOST_IDENTITY_BYTES = 64
"""Of a router's identity, which has 8: it goes back with each piece of the answer."""


@dataclass(slots=True, kw_only=True, eq=False)
class RequestRows:
    """Rows of one request frame, from its decoding until the answers of all of them are safe.

    Attributes:
        router, frame, reply: As in `RequestFrame`.
        kind: dtype and row shape: only rows of one kind are batched together.
        deadlines_s: Of each row, seconds since the epoch, `inf` for none.
        traced: Those that are of sampled queries.
        apart: Places of rows that are asked alone, because the process died with them (`poison_rows`).
        origin: What the submitter knows the frame by.
        admitted_s: When its rows began to wait for a batch, seconds since the epoch.
        unanswered: Rows whose answer is not safe yet.
    """

    router: bytes
    frame: int
    reply: int
    kind: Hashable
    rows: Rows
    deadlines_s: tuple[float, ...]
    traced: tuple[TracedRows, ...] = ()
    apart: frozenset[int] = frozenset()
    origin: Any = None
    admitted_s: float = 0.0
    unanswered: int = field(init=False)

    def __post_init__(self) -> None:
        self.unanswered = len(self.rows)


class RowSpan(NamedTuple):
    """Consecutive rows of one request: from `start`, included, to `stop`, excluded."""

    request: RequestRows
    start: int
    stop: int

    @property
    def size(self) -> int:
        return self.stop - self.start


def row_spans(rows: Iterable[tuple[RequestRows, int]]) -> list[RowSpan]:
    """Join neighbours: rows of one request, each the successor of the one before."""
    spans: list[RowSpan] = []
    request, start, stop = None, 0, 0
    for owner, row in rows:
        if owner is not request or row != stop:
            if request is not None:
                spans.append(RowSpan(request, start, stop))
            request, start = owner, row
        stop = row + 1
    if request is not None:
        spans.append(RowSpan(request, start, stop))
    return spans


def inputs_of(spans: Sequence[RowSpan]) -> Rows:
    """The rows of all spans, in order, as a matrix or a list of their own: a model may not write into a request."""
    parts = [request.rows[start:stop] for request, start, stop in spans]
    if parts and isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [row for part in parts for row in part]


def read_request(value: bytes | None, partitions: int, headers: Headers = (), origin: Any = None) -> RequestRows:
    """Decode a request frame into its rows; the outputs topic has so many partitions.

    `UnknownFrame` where the bytes are no request frame, or its parts contradict one another.
    """
    frame = decode_request(value or b"")
    if not 0 <= frame.reply < partitions:
        raise UnknownFrame(f"reply partition {frame.reply}, the outputs topic has {partitions}")
    if len(frame.router) > MOST_IDENTITY_BYTES:
        raise UnknownFrame(f"a router's identity of {len(frame.router)} bytes: at most {MOST_IDENTITY_BYTES}")
    rows = _rows(frame)
    return RequestRows(
        router=frame.router,
        frame=frame.frame,
        reply=frame.reply,
        kind=(frame.dtype, *frame.shape[1:]),
        rows=rows,
        deadlines_s=_deadlines(frame.deadlines, len(rows)),
        traced=traced_rows(headers) if headers else (),
        origin=origin,
    )


def _rows(frame: RequestFrame) -> Rows:
    if not frame.shape or min(frame.shape) < 0:
        raise UnknownFrame(f"shape {shown(frame.shape)}: the number of rows comes first, and no number is negative")
    if frame.shape[0] > MOST_ROWS:
        raise UnknownFrame(f"shape {shown(frame.shape)}: a frame has at most {MOST_ROWS} rows")
    if frame.dtype in NUMERIC:
        return _matrix(frame)
    if frame.dtype not in LISTED:
        raise UnknownFrame(f"dtype {shown(frame.dtype)}: use one of {', '.join(sorted((*NUMERIC, *LISTED)))}")
    if frame.shape != [len(frame.rows)]:
        raise UnknownFrame(f"shape {shown(frame.shape)} with {len(frame.rows)} rows of {frame.dtype}")
    return frame.rows


def _matrix(frame: RequestFrame) -> Rows:
    dtype = np.dtype(frame.dtype)
    expected = prod(frame.shape) * dtype.itemsize
    if len(frame.matrix) != expected:
        found = f"a matrix of {len(frame.matrix)} bytes, {frame.dtype} of shape {shown(frame.shape)}"
        raise UnknownFrame(f"{found} takes {shown(expected)}")
    try:
        return np.frombuffer(frame.matrix, dtype).reshape(frame.shape)
    except (ValueError, OverflowError) as error:  # no bytes, and more dimensions or larger ones than an array can have
        raise UnknownFrame(f"shape {shown(frame.shape)}: {error}") from error


def _deadlines(packed: bytes, rows: int) -> tuple[float, ...]:
    if not packed:
        return (inf,) * rows
    if len(packed) != rows * _DEADLINE_BYTES:
        raise UnknownFrame(f"deadlines of {len(packed)} bytes for {rows} rows: 8 bytes a row")
    return struct.unpack(f"<{rows}d", packed)


MAX_OPEN_ROWS = 20_000
"""Two seconds of work for a model of 0.1 ms a row; at 1 KiB a row 20 MB."""
MEMORY_BATCHES = 10
"""How long a row needs is smoothed over about so many batches."""
DEVIATIONS = 4
"""Mean deviations that are added to the mean as a margin, as RFC 6298 does for the time of a round trip: half of all
batches take longer than the mean, and in a host with too much to do the first rows have no more time than that."""

Piece: TypeAlias = tuple[RowSpan, OutputFrame]
"""Rows, and the frame that answers them."""
Replies: TypeAlias = dict[int, list[Piece]]
"""The pieces for each partition of the outputs topic."""


@dataclass(frozen=True, slots=True)
class BatchingStep:
    """What the engine has to do now: predict a batch, send replies to late rows, and step again at `wake_at_s`.

    Attributes:
        spans: The rows of the batch, all of one kind; empty: there is none yet.
        inputs: These rows for the model.
        waited_s: How long the first of them has waited, in seconds.
        late: Replies to rows past their deadlines.
    """

    spans: Sequence[RowSpan]
    inputs: Rows
    waited_s: float
    late: Replies
    wake_at_s: float | None


class HostBatcher:
    """Decides which rows of one host form the next batch."""

    def __init__(
        self, window: Window[tuple[RequestRows, int]], limit: BatchLimit, max_open_rows: int = MAX_OPEN_ROWS
    ) -> None:
        self._window, self._limit, self._max_open_rows = window, limit, max_open_rows
        self._now_s = 0.0
        self.open_rows = 0
        """Rows whose answer was not acknowledged yet: waiting, in the model, or on the way out."""
        self._mean_s = self._deviation_s = 0.0

    @property
    def queued_rows(self) -> int:
        return len(self._window)

    @property
    def is_full(self) -> bool:
        """Whether no further request should be admitted: there are `max_open_rows`, and the rest of one request."""
        return self.open_rows >= self._max_open_rows

    @property
    def limit_rows(self) -> int:
        return self._limit.rows

    def admit(self, request: RequestRows, now_s: float) -> bool:
        """Admit the rows of a request; return whether there is nothing to do: one without rows is finished at once."""
        now_s = request.admitted_s = self._forward(now_s)
        for row, deadline_s in enumerate(request.deadlines_s):
            kind = request.kind if row not in request.apart else (request.kind, request.router, request.frame, row)
            self._window.add((request, row), kind, deadline_s, now_s)
        self.open_rows += request.unanswered
        return request.unanswered == 0

    def step(self, now_s: float) -> BatchingStep:
        """Return the next batch, if one may go, and the rows that are too late for any."""
        now_s = self._forward(now_s)
        taken = self._window.take(now_s, self._limit.rows, self._mean_s + DEVIATIONS * self._deviation_s)
        spans = row_spans(taken.batch)
        late = _late_replies(taken.late, now_s) if taken.late else {}
        waited_s = now_s - min((request.admitted_s for request, _, _ in spans), default=now_s)
        return BatchingStep(spans, inputs_of(spans), waited_s, late, taken.wake_at_s)

    def complete(self, spans: Sequence[RowSpan], outcome: BatchOutcome, latency_s: float) -> Replies:
        """Return the replies with a batch's outputs, and let the limit learn from its latency.

        A batch that had to be asked again in parts teaches nothing: its latency is that of many batches.
        """
        if outcome.calls == 1:
            self._limit.observe(len(outcome.outputs), latency_s)
        return _replies(spans, outcome.outputs, outcome.failed, "error")

    def delivered(self, took_s: float) -> None:
        """Record the seconds from a batch's start to the acknowledgement of its answers."""
        error_s = took_s - self._mean_s
        self._mean_s += error_s / MEMORY_BATCHES
        self._deviation_s += (abs(error_s) - self._deviation_s) / MEMORY_BATCHES

    def acknowledge(self, pieces: Iterable[Piece]) -> list[Any]:
        """Record that pieces are stored; return the origins of requests that are now finished, each once."""
        finished = []
        for span, _ in pieces:
            request, rows = span.request, span.size
            request.unanswered -= rows
            self.open_rows -= rows
            if request.unanswered == 0:
                finished.append(request.origin)
        return finished

    def _forward(self, now_s: float) -> float:
        """Return the latest time seen so far: the wall clock may be set back, the window's may not."""
        self._now_s = max(self._now_s, now_s)
        return self._now_s


def _late_replies(rows: Sequence[tuple[RequestRows, int]], now_s: float) -> Replies:
    overdue_ms = (1000 * (now_s - request.deadlines_s[row]) for request, row in rows)
    reasons = {place: f"dropped {ms:.1f} ms after its deadline, before a batch" for place, ms in enumerate(overdue_ms)}
    return _replies(row_spans(rows), [None] * len(rows), reasons, "late")


def _replies(spans: Iterable[RowSpan], outputs: list[Any], failed: Mapping[int, str], reason: str) -> Replies:
    replies: Replies = defaultdict(list)
    first = 0
    for span in spans:
        request, start, stop = span
        last = first + stop - start
        places = (place for place in range(first, last) if place in failed) if failed else ()
        without = [FailedRow(start + place - first, reason, failed[place]) for place in places]
        piece = OutputFrame(
            router=request.router, frame=request.frame, row0=start, outputs=outputs[first:last], failed=without
        )
        replies[request.reply].append((span, piece))
        first = last
    return replies
