"""From rows of a batch to pieces of output frames, and from pieces to replies by partition."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from clipper_agents.host.request_rows import AskedRows
from clipper_stream.models.model import Rows
from clipper_stream.models.runner import BatchOutcome
from clipper_topics.frames import FailedRow, OutputFrame

Origin = TypeVar("Origin")


@dataclass(slots=True, eq=False)
class OpenFrame(Generic[Origin]):
    """A request frame that is not wholly answered.

    Attributes:
        origin: Where it came from; given back when it is finished.
        asked: Its rows.
        unanswered: Rows whose answer was not acknowledged yet.
    """

    origin: Origin
    asked: AskedRows
    unanswered: int


@dataclass(frozen=True, slots=True)
class Run(Generic[Origin]):
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
    runs: list[Run[Origin]]


def runs_of(rows: Iterable[tuple[OpenFrame[Origin], int]]) -> list[Run[Origin]]:
    """Join neighbours: rows of one frame, each the successor of the one before."""
    runs: list[Run[Origin]] = []
    frame, start, stop = None, 0, 0
    for owner, row in rows:
        if owner is not frame or row != stop:
            if frame is not None:
                runs.append(Run(frame, start, stop))
            frame, start = owner, row
        stop = row + 1
    if frame is not None:
        runs.append(Run(frame, start, stop))
    return runs


def inputs_of(runs: Sequence[Run[Origin]]) -> Rows:
    """The rows of all runs, in order, as a matrix or a list of their own: a model may not write into a frame."""
    parts = [run.frame.asked.rows[run.start : run.stop] for run in runs]
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return [row for part in parts for row in part]


def answered(runs: Sequence[Run[Origin]], outcome: BatchOutcome) -> list[Reply[Origin]]:
    """The replies with a batch's outputs; `runs` are all its rows, in order."""
    return _by_partition(runs, _output_pieces(runs, outcome))


def given_up(runs: Sequence[Run[Origin]], now_s: float) -> list[Reply[Origin]]:
    """The replies that say that rows were dropped, because their deadlines had passed."""
    return _by_partition(runs, (_late_piece(run, now_s) for run in runs))


def _output_pieces(runs: Sequence[Run[Origin]], outcome: BatchOutcome) -> Iterator[OutputFrame]:
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


def _late_piece(run: Run[Origin], now_s: float) -> OutputFrame:
    deadlines_s = run.frame.asked.deadlines_s
    failed = [
        FailedRow(row, "late", f"dropped {1000 * (now_s - deadlines_s[row]):.1f} ms after its deadline, before a batch")
        for row in range(run.start, run.stop)
    ]
    return _piece(run, [None] * len(run), failed)


def _piece(run: Run[Origin], outputs: list[object], failed: list[FailedRow]) -> OutputFrame:
    asked = run.frame.asked
    return OutputFrame(router=asked.router, frame=asked.frame, row0=run.start, outputs=outputs, failed=failed)


def _by_partition(runs: Sequence[Run[Origin]], pieces: Iterable[OutputFrame]) -> list[Reply[Origin]]:
    replies: dict[int, Reply[Origin]] = {}
    for run, piece in zip(runs, pieces, strict=True):
        partition = run.frame.asked.reply
        reply = replies.get(partition)
        if reply is None:
            reply = replies[partition] = Reply(partition, [], [])
        reply.pieces.append(piece)
        reply.runs.append(run)
    return list(replies.values())
