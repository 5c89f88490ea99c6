"""Additive increase, multiplicative decrease of the batch limit (Clipper, section 4.3.1).

Rules of this file, for a batch of `rows` that took `latency_s` under the limit in force. A batch is *full* when it has
at least as many rows as the limit, else *thin*.

| latency            | full batch            | thin batch                                                  |
|--------------------|-----------------------|-------------------------------------------------------------|
| below 0.9 target   | rows + 2              | unchanged                                                   |
| 0.9 target, target | unchanged             | unchanged                                                   |
| target or more     | floor(0.9 rows)       | unchanged; floor(0.9 limit) when the batch before was late  |

- Only a full batch raises the limit, because only it shows that so many rows are fast: no running away when idle.
- A fast thin batch says nothing about a full one. Clipper's prototype sets the limit to its rows + 2, so that a quiet
  minute costs the whole climb; here it changes nothing.
- A late thin batch alone is a pause of the host (garbage collection, scheduling), not a limit that is too high. Two in
  a row are a model that has become slower, and each further one takes 10 % off the limit, never more.

Two rows are a large step for a model that takes the whole target for a handful: the limit then goes up and down between
a fast and a late size. `quantile` settles there.
"""

from clipper_stream.batching.bounds import checked_rows, checked_target

INCREASE_ROWS = 2
"""As in the authors' prototype: small, so that the overshoot past the target is at most two rows."""
DEAD_BAND_RATIO = 0.9
"""Between this share of the target and the target nothing changes, so that a limit at its optimum stays there."""


class Aimd:
    """Climbs by 2 rows while full batches are fast, falls by 10 % when they miss the target.

    Args:
        target_s: Latency in seconds that a batch should stay below, above 0.
        max_rows: The limit never exceeds it, at least 1.
        start_rows: The limit before the first batch, in [1, max_rows].

    Raises:
        InvalidSetting: an argument lies outside its bound.

    >>> limit = Aimd(target_s=0.02, max_rows=100, start_rows=10)
    >>> limit.observe(rows=10, latency_s=0.012)
    >>> limit.rows
    12
    >>> limit.observe(rows=12, latency_s=0.021)
    >>> limit.rows
    10

    Source: Crankshaw et al., Clipper, NSDI 2017, section 4.3.1: the batch size is increased by a fixed amount until the
    latency exceeds the objective, then reduced by 10 %.
    """

    __slots__ = ("_fast_below_s", "_late_before", "_max_rows", "_rows", "_target_s")

    def __init__(self, target_s: float, max_rows: int, start_rows: int = 1) -> None:
        self._target_s = checked_target(target_s)
        self._fast_below_s = DEAD_BAND_RATIO * target_s
        self._max_rows = checked_rows("max_rows", max_rows)
        self._rows = checked_rows("start_rows", start_rows, most=max_rows)
        self._late_before = False

    @property
    def rows(self) -> int:
        """The largest batch to send now, in [1, max_rows]."""
        return self._rows

    def observe(self, rows: int, latency_s: float) -> None:
        """Learn from one batch.

        Args:
            rows: Rows in the batch that was sent, at least 1.
            latency_s: Seconds from sending the batch until its outputs were there.
        """
        full = rows >= self._rows
        late = latency_s >= self._target_s
        if late and (full or self._late_before):
            # in whole numbers: 0.9 is no binary fraction
            self._rows = min(self._rows, max(1, max(rows, self._rows) * 9 // 10))
        elif full and latency_s < self._fast_below_s:
            self._rows = min(self._max_rows, rows + INCREASE_ROWS)
        self._late_before = late
