"""A file of decisions in the order of time. Needs pyarrow, which the extra `replay` brings.

A file holds its decisions partition by partition, a row group a chunk. The partitions are read side by side and merged,
so that as many chunks are in memory as there are partitions.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.parquet import EVERYTHING, RowGroup, read_group, row_groups
from clipper_stream.evaluation.log.partition_merge import merged

ORDERED_BY = frozenset({"partition", "offset", "at_ms"})


def read_in_time_order(path: Path, wanted: Collection[str] = EVERYTHING) -> Iterator[DecisionColumns]:
    """The decisions of a file or a folder in the order of time; arguments and errors as of `parquet.read_chunks`."""
    groups = row_groups(path)
    numbers = sorted({number for group in groups for number in group.partitions})
    names = {*wanted, *ORDERED_BY}
    return merged([_of_partition(groups, number, names) for number in numbers])


def _of_partition(groups: Sequence[RowGroup], number: int, wanted: Collection[str]) -> Iterator[DecisionColumns]:
    for group in groups:
        if number in group.partitions:
            columns, _ = read_group(group, wanted)
            yield columns if len(group.partitions) == 1 else columns.take(columns.partition == number)
