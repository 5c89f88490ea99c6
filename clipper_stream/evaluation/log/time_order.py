"""Partitions of a log, or of a file, as one log in the order of time, with one chunk of each in memory."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.parquet import EVERYTHING, RowGroup, read_group, row_groups

_AT_END = np.iinfo(np.int64).max


def merged(partitions: Sequence[Iterable[DecisionColumns]]) -> Iterator[DecisionColumns]:
    """All decisions in the order of time; of one millisecond, in the order of the partitions.

    What comes out of a step are the decisions that no later chunk can come before: those older than the least of the
    partitions' last times. Within a partition time does not go back; a decision whose clock did counts as no older
    than the one before.

    Args:
        partitions: Chunks of each, in log order.

    Source: Knuth, "The art of computer programming", volume 3, section 5.4.1 (merging).
    """
    waiting = [_Partition(chunks) for chunks in partitions]
    while True:
        bound_ms = min((each.last_ms for each in waiting), default=_AT_END)
        parts = [each.older_than(bound_ms) for each in waiting]
        whole = DecisionColumns.concatenated([columns for columns, _ in parts])
        if len(whole):
            yield whole.take(np.argsort(np.concatenate([times for _, times in parts]), kind="stable"))
        if bound_ms == _AT_END:
            return
        for each in waiting:
            if each.last_ms == bound_ms:
                each.read_on()


class _Partition:
    """Chunks of one partition; what was read and not handed over yet."""

    def __init__(self, chunks: Iterable[DecisionColumns]) -> None:
        self._chunks = iter(chunks)
        self._columns = DecisionColumns.empty()
        self._times = np.zeros(0, np.int64)
        self.last_ms = -1
        self.read_on()

    def read_on(self) -> None:
        """Read another chunk."""
        columns = next(self._chunks, None)
        if columns is None:
            self.last_ms = _AT_END
        elif len(columns):
            times = np.maximum.accumulate(np.maximum(columns.at_ms, self.last_ms))
            self._columns = DecisionColumns.concatenated([self._columns, columns])
            self._times = np.concatenate([self._times, times])
            self.last_ms = int(times[-1])

    def older_than(self, bound_ms: int) -> tuple[DecisionColumns, np.ndarray]:
        """Decisions before a time, and the times that they count as."""
        count = int(np.searchsorted(self._times, bound_ms, side="left"))
        columns, times = self._columns.take(slice(0, count)), self._times[:count]
        self._columns, self._times = self._columns.take(slice(count, None)), self._times[count:]
        return columns, times


ORDERED_BY = frozenset({"partition", "offset", "at_ms"})


def read_in_time_order(path: Path, wanted: Collection[str] = EVERYTHING) -> Iterator[DecisionColumns]:
    """The decisions of a file or a folder in the order of time; in arrays that are not `wanted` nothing is known.

    Raises:
        UnusableFile: it holds no decisions, or in a newer form.
    """
    groups = row_groups(path)
    numbers = sorted({number for group in groups for number in group.partitions})
    names = {*wanted, *ORDERED_BY}
    return merged([_of_partition(groups, number, names) for number in numbers])


def _of_partition(groups: Sequence[RowGroup], number: int, wanted: Collection[str]) -> Iterator[DecisionColumns]:
    for group in groups:
        if number in group.partitions:
            columns, _ = read_group(group, wanted)
            yield columns if len(group.partitions) == 1 else columns.take(columns.partition == number)
