"""Output frames: from the rows of a batch to replies by partition, and to records that the broker takes."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from msgspec.structs import replace

from clipper_agents.host.request_rows import RequestRows
from clipper_stream.models.model import Rows
from clipper_stream.models.runner import BatchOutcome
from clipper_topics.frames import FailedRow, OutputFrame, encode_frame

Origin = TypeVar("Origin")

MAX_RECORD_BYTES = 512 * 1024
"""Half of the broker's default limit (1 MiB, Kafka `message.max.bytes`), which counts a whole produce batch."""


@dataclass(slots=True, eq=False)
class OpenFrame(Generic[Origin]):
    """A request frame of which so many rows have no acknowledged answer yet."""

    origin: Origin
    request: RequestRows
    unanswered: int
    admitted_s: float = 0.0


@dataclass(frozen=True, slots=True)
class RowSpan(Generic[Origin]):
    """Consecutive rows of one frame: from `start`, included, to `stop`, excluded."""

    frame: OpenFrame[Origin]
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start


@dataclass(frozen=True, slots=True)
class Reply(Generic[Origin]):
    """Pieces for one partition of the outputs topic, and the rows that they answer."""

    partition: int
    pieces: list[OutputFrame]
    runs: list[RowSpan[Origin]]


def row_spans(rows: Iterable[tuple[OpenFrame[Origin], int]]) -> list[RowSpan[Origin]]:
    """Join neighbours: rows of one frame, each the successor of the one before."""
    runs: list[RowSpan[Origin]] = []
    frame, start, stop = None, 0, 0
    for owner, row in rows:
        if owner is not frame or row != stop:
            if frame is not None:
                runs.append(RowSpan(frame, start, stop))
            frame, start = owner, row
        stop = row + 1
    if frame is not None:
        runs.append(RowSpan(frame, start, stop))
    return runs


def inputs_of(runs: Sequence[RowSpan[Origin]]) -> Rows:
    """The rows of all runs, in order, as a matrix or a list of their own: a model may not write into a frame."""
    parts = [run.frame.request.rows[run.start : run.stop] for run in runs]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [row for part in parts for row in part]


def output_replies(runs: Sequence[RowSpan[Origin]], outcome: BatchOutcome) -> list[Reply[Origin]]:
    """The replies with a batch's outputs; `runs` are all its rows, in order."""
    return _by_partition(runs, _output_pieces(runs, outcome))


def expired_replies(runs: Sequence[RowSpan[Origin]], now_s: float) -> list[Reply[Origin]]:
    """The replies that say that rows were dropped, because their deadlines had passed."""
    return _by_partition(runs, (_late_piece(run, now_s) for run in runs))


def _output_pieces(runs: Sequence[RowSpan[Origin]], outcome: BatchOutcome) -> Iterator[OutputFrame]:
    first = 0
    for run in runs:
        last = first + len(run)
        failed = [
            FailedRow(run.start + row - first, "error", outcome.failed[row])
            for row in (range(first, last) if outcome.failed else ())
            if row in outcome.failed
        ]
        yield _piece(run, outcome.outputs[first:last], failed)
        first = last


def _late_piece(run: RowSpan[Origin], now_s: float) -> OutputFrame:
    deadlines_s = run.frame.request.deadlines_s
    failed = [
        FailedRow(row, "late", f"dropped {1000 * (now_s - deadlines_s[row]):.1f} ms after its deadline, before a batch")
        for row in range(run.start, run.stop)
    ]
    return _piece(run, [None] * len(run), failed)


def _piece(run: RowSpan[Origin], outputs: list[object], failed: list[FailedRow]) -> OutputFrame:
    request = run.frame.request
    return OutputFrame(router=request.router, frame=request.frame, row0=run.start, outputs=outputs, failed=failed)


def _by_partition(runs: Sequence[RowSpan[Origin]], pieces: Iterable[OutputFrame]) -> list[Reply[Origin]]:
    replies: dict[int, Reply[Origin]] = {}
    for run, piece in zip(runs, pieces, strict=True):
        partition = run.frame.request.reply
        reply = replies.get(partition)
        if reply is None:
            reply = replies[partition] = Reply(partition, [], [])
        reply.pieces.append(piece)
        reply.runs.append(run)
    return list(replies.values())


def records_of(piece: OutputFrame, max_bytes: int = MAX_RECORD_BYTES) -> list[bytes]:
    """The piece as one record or, halved until they fit, as several; a single row that is larger fails, saying so.

    >>> piece = OutputFrame(router=b"r", frame=1, row0=0, outputs=["x" * 60, "y" * 60])
    >>> [len(record) for record in records_of(piece, max_bytes=100)]
    [71, 71]
    """
    record = encode_frame(piece)
    if len(record) <= max_bytes:
        return [record]
    if len(piece.outputs) == 1:
        words = f"the output takes {len(record)} bytes, a record has at most {max_bytes}: give a smaller one"
        return [encode_frame(replace(piece, outputs=[None], failed=[FailedRow(piece.row0, "error", words)]))]
    half = len(piece.outputs) // 2
    middle = piece.row0 + half
    before = [failure for failure in piece.failed if failure.row < middle]
    after = [failure for failure in piece.failed if failure.row >= middle]
    first = replace(piece, outputs=piece.outputs[:half], failed=before)
    then = replace(piece, row0=middle, outputs=piece.outputs[half:], failed=after)
    return [*records_of(first, max_bytes), *records_of(then, max_bytes)]
