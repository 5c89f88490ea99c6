"""A batch limit that never changes."""

from clipper_stream.batching.bounds import checked_rows


class Fixed:
    """Always the same limit, for models whose best batch is known or whose latency does not depend on it.

    Args:
        rows: The limit, at least 1.

    Raises:
        InvalidSetting: the limit is below 1.

    >>> limit = Fixed(64)
    >>> limit.observe(rows=64, latency_s=10.0)
    >>> limit.rows
    64

    Source: Clipper, section 6, compares with hand-tuned static batches.
    """

    __slots__ = ("_rows",)

    def __init__(self, rows: int) -> None:
        self._rows = checked_rows("rows", rows)

    @property
    def rows(self) -> int:
        """The largest batch to send."""
        return self._rows

    def observe(self, rows: int, latency_s: float) -> None:
        """Learn nothing."""
