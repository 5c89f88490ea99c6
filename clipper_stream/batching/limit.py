"""What a batch limit is, and the bounds of the settings that all limits share."""

import math
from typing import Protocol

from clipper_stream.errors import InvalidSetting


class BatchLimit(Protocol):
    """How many rows the next batch may have, learned from the batches before; one per replica (Clipper, 4.4.1)."""

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


def checked_rows(setting: str, rows: int, most: int | None = None) -> int:
    """Return `rows` when it is at least 1 and at most `most`; raise `InvalidSetting` otherwise."""
    if rows < 1:
        raise InvalidSetting(f"{setting} is {rows}, a batch has at least 1 row: set it to 1 or more")
    if most is not None and rows > most:
        raise InvalidSetting(f"{setting} is {rows}, above max_rows = {most}: lower it or raise max_rows")
    return rows


def checked_target(target_s: float) -> float:
    """Return `target_s` when it is finite and above 0; raise `InvalidSetting` otherwise."""
    if not 0.0 < target_s < math.inf:
        raise InvalidSetting(f"target_s is {target_s}, a latency in seconds is finite and above 0: set it to e.g. 0.02")
    return target_s
