"""The rows that a request frame asks about, checked and ready to be batched."""

import struct
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from math import inf, prod
from typing import Any, NamedTuple

import numpy as np

from clipper_stream.errors import shown
from clipper_stream.models.model import Rows
from clipper_stream.models.row_spec import LISTED, NUMERIC
from clipper_topics.codec import Headers
from clipper_topics.frames import RequestFrame, UnknownFrame, decode_request
from clipper_topics.trace_context import TracedRows, header_of_rows, rows_in_header

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

    >>> rows = np.zeros((2, 3), np.float32)
    >>> RequestRows(router=b"r", frame=1, reply=0, kind=("float32", 3), rows=rows, deadlines_s=(inf, inf)).unanswered
    2
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
    header = header_of_rows(headers)
    rows = _rows(frame)
    return RequestRows(
        router=frame.router,
        frame=frame.frame,
        reply=frame.reply,
        kind=(frame.dtype, *frame.shape[1:]),
        rows=rows,
        deadlines_s=_deadlines(frame.deadlines, len(rows)),
        traced=() if header is None else rows_in_header(header),
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
