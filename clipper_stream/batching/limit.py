"""What a batch limit is, the limit that never changes, and the bounds of the settings that all limits share."""

import math
from typing import Protocol

from clipper_stream.errors import InvalidSetting


class BatchLimit(Protocol):
    """How many rows the next batch may have, learned from the batches before; one per replica (Clipper, 4.4.1).

    >>> limit: BatchLimit = Fixed(8)
    >>> limit.rows
    8
    """

    @property
    def rows(self) -> int:
        """The largest batch to send now, at least 1."""
        ...

    def observe(self, rows: int, latency_s: float) -> None:
        """Learn from one batch.

        Args:
            rows: Rows in the batch that was sent, at least 1.
            latency_s: Seconds from sending the batch until its outputs were there.
        """
        ...


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


def checked_rows(setting: str, rows: int, most: int | None = None) -> int:
    """Return the number of rows when it lies in its bounds.

    Args:
        setting: Name of the setting, for the message.
        rows: A number of rows, at least 1.
        most: The largest number allowed; None: any.

    Raises:
        InvalidSetting: the number lies outside.
    """
    if rows < 1:
        raise InvalidSetting(f"{setting} is {rows}, a batch has at least 1 row: set it to 1 or more")
    if most is not None and rows > most:
        raise InvalidSetting(f"{setting} is {rows}, above max_rows = {most}: lower it or raise max_rows")
    return rows


def checked_target(target_s: float) -> float:
    """Return the target latency in seconds when it is finite and positive.

    Raises:
        InvalidSetting: it is not.
    """
    if not 0.0 < target_s < math.inf:
        raise InvalidSetting(f"target_s is {target_s}, a latency in seconds is finite and above 0: set it to e.g. 0.02")
    return target_s
