"""What a verification found, as the command prints it and as JSON has it."""

from collections.abc import Sequence

import msgspec

from clipper_topics.selection_rows import SelectionRow

SUMS = ("count", "loss", "weighted_count", "weighted_loss")


class ShownRow(msgspec.Struct, kw_only=True):
    """A row of the selection table."""

    offset: int
    """Feedback offset of its last change; -1: none."""
    applied: int
    """Feedbacks that counted."""
    totals: dict[str, dict[str, float]]
    """By model, its `SUMS`."""


class RowMismatch(msgspec.Struct, kw_only=True):
    """A row of the table that differs from the fold of the logs."""

    application: str
    """The application; empty: a note of the learner."""
    context: str | None
    """The context; of a note the application, or absent for the partition's position."""
    partition: int
    """The partition."""
    table: ShownRow | None
    """The row of the table; absent: there is none."""
    logs: ShownRow | None
    """What the logs lead to; absent: nothing."""


class PartitionVerdict(msgspec.Struct, kw_only=True):
    """The result of verifying one partition."""

    partition: int
    """Number of the partition."""
    position: int
    """Last feedback offset that is in the table; -1: none."""
    behind: int
    """Offsets of the feedback topic behind that."""
    feedbacks: int
    """Records that were folded."""
    rows: int
    """Rows of the table that were compared."""
    partings: list[RowMismatch] = []
    """Rows that differ."""
    unlogged: list[str] = []
    """Applications whose rows cannot be verified: nothing says where a changed policy or loss took effect."""


class Verification(msgspec.Struct, kw_only=True):
    """The result of verifying the whole table."""

    equal: bool
    """Whether every row is what the logs lead to, in every bit."""
    seconds: float
    """Duration in seconds."""
    partitions: list[PartitionVerdict]
    """Verdicts by number of the partition."""

    @property
    def rows(self) -> int:
        return sum(one.rows for one in self.partitions)

    @property
    def feedbacks(self) -> int:
        return sum(one.feedbacks for one in self.partitions)

    @property
    def partings(self) -> Sequence[RowMismatch]:
        return [parting for one in self.partitions for parting in one.partings]


def shown_row(row: SelectionRow | None) -> ShownRow | None:
    """Return a row as it is printed, with names."""
    if row is None:
        return None
    totals = {one.model: {name: getattr(one, name) for name in SUMS} for one in row.totals}
    return ShownRow(offset=row.offset, applied=row.applied, totals=totals)
