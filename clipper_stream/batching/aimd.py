"""Additive increase, multiplicative decrease of the batch limit (Clipper, section 4.3.1), aimed at the 99th percentile.

Rules of this file. A batch is *full* when it has at least as many rows as the limit, else *thin*; *late* when it took
the target or longer. A *round* is some full batches in a row under one limit, none of them late.

| what happens                                         | the limit becomes                          |
|------------------------------------------------------|--------------------------------------------|
| a full batch is late                                 | floor(0.9 limit)                           |
| a thin batch is late, and so was the batch before    | floor(0.9 limit)                           |
| a round's slowest batch is below the ceiling         | limit + limit/30, by at least 1 row        |
| the same, and the limit is being probed              | limit * ceiling / slowest, at most 2 limit |
| anything else                                        | unchanged                                  |

- A limit is probed from its start to its first late batch, and again from a round below half the ceiling on. So many
  times the rows take at most so many times as long, so that growth in proportion does not overshoot.
- The ceiling is a share of the target, learned so that 1 full batch in 200 is late: each one in time raises it a
  little, a late one lowers it 199 times as much. A model whose latency varies by 2 % works close to the target, one
  whose latency varies by 30 % far from it; both keep their 99th percentile.
- Only full batches raise the limit, because only they show that so many rows are fast: no running away when idle.
- Eight late batches of at most four rows, before the limit has left these sizes, say that no size keeps the target:
  rows are slow, or the host's processor is busy with others. Shrinking does not help then, it only makes every row pay
  a whole call. So twice what they took is the target in force, for `RELAXED_ROUNDS` rounds or until a round keeps it.
- A late thin batch alone is a pause of the host (garbage collection, scheduling), not a limit that is too high. Two in
  a row are a model that has become slower, and each further one takes 10 % off the limit, never more.

The reasons, and what was tried besides: docs/explanation/batching.md.
"""

from clipper_stream.batching.bounds import checked_rows, checked_target

ROUND_BATCHES = 8
"""The slowest of 8 is about the 90th percentile: growth is judged by slow batches, not by a lucky one."""
PROBE_BATCHES = 2
"""A round before the first late batch: the way up is short, and one late batch ends it."""
STEP_SHARE = 30
"""A step is a thirtieth of the limit, a third of a back-off: three good rounds win a late batch back."""
LATE_RATIO = 0.005
"""Late full batches aimed at: half of what the 99th percentile allows, the rest is for pauses that no limit avoids."""
CEILING_STEP = 0.02
"""A late batch lowers the ceiling by so much of the target; 200 in time, some seconds, raise it by as much."""
FIRST_CEILING, LOWEST_CEILING, HIGHEST_CEILING = 0.8, 0.5, 0.95
"""The first suits models whose latency varies by a fifth, as most do; to learn another takes hundreds of batches.
A step above the highest is still below the target; below the lowest it is not the batch size that makes it late."""
FEW_ROWS = 4
RELAXED_RATIO = 2.0
"""Batches may take twice as long as a few rows: so many rows share the call that a row costs half, or much less."""
RELAXED_ROUNDS = 100
"""Some ten seconds; then it is tried again whether smaller batches keep the target."""
PAUSE_RATIO = 2.0
"""A batch of so many targets is a pause or another model: no ceiling would have helped."""


class Aimd:
    """Grows in steps while full batches are fast, falls by 10 % when one misses the target.

    Args:
        target_s: Latency in seconds that 99 of 100 batches should stay below, above 0.
        max_rows: The limit never exceeds it, at least 1.
        start_rows: The limit before the first batch, in [1, max_rows].

    Raises:
        InvalidSetting: an argument lies outside its bound.

    >>> limit = Aimd(target_s=0.02, max_rows=100, start_rows=60)
    >>> for _ in range(PROBE_BATCHES):
    ...     limit.observe(rows=60, latency_s=0.012)
    >>> limit.rows
    80
    >>> limit.observe(rows=80, latency_s=0.021)
    >>> limit.rows
    72
    >>> for _ in range(ROUND_BATCHES):
    ...     limit.observe(rows=72, latency_s=0.015)
    >>> limit.rows
    74

    Source: Crankshaw et al., Clipper, NSDI 2017, section 4.3.1: the batch size is increased by a fixed amount until the
    latency exceeds the objective, then reduced by 10 %. The ceiling is a quantile tracker after Robbins and Monro, A
    Stochastic Approximation Method, Annals of Mathematical Statistics 22 (1951).
    """

    __slots__ = (
        "_asked_s",
        "_ceiling_ratio",
        "_few_late",
        "_few_s",
        "_in_time",
        "_late_before",
        "_max_rows",
        "_probing",
        "_relaxed_rounds",
        "_rows",
        "_slowest_s",
        "_target_s",
    )

    def __init__(self, target_s: float, max_rows: int, start_rows: int = 1) -> None:
        self._asked_s = self._target_s = checked_target(target_s)
        self._max_rows = checked_rows("max_rows", max_rows)
        self._rows = checked_rows("start_rows", start_rows, most=max_rows)
        self._ceiling_ratio = FIRST_CEILING
        self._probing = True
        self._late_before = False
        self._in_time = 0
        self._slowest_s = 0.0
        self._few_late, self._few_s, self._relaxed_rounds = 0, 0.0, 0

    @property
    def target_s(self) -> float:
        """The target in force: the one asked for, or a longer one while even a few rows miss that."""
        return self._target_s

    @property
    def rows(self) -> int:
        """The largest batch to send now, in [1, max_rows]."""
        return self._rows

    @property
    def ceiling_ratio(self) -> float:
        """The share of the target above which the limit does not grow, as learned."""
        return self._ceiling_ratio

    def observe(self, rows: int, latency_s: float) -> None:
        """Learn from one batch.

        Args:
            rows: Rows in the batch that was sent, at least 1.
            latency_s: Seconds from sending the batch until its outputs were there.
        """
        if not latency_s >= 0.0:
            return  # no latency: a clock was set back
        full = rows >= self._rows
        late = latency_s >= self._target_s
        if late and full and self._rows <= FEW_ROWS:
            self._few_late_by(rows, latency_s)
        elif late and (full or self._late_before):
            self._back_off(rows, latency_s)
        elif full and not late:
            self._in_time_by(latency_s)
        self._late_before = late

    def _few_late_by(self, rows: int, latency_s: float) -> None:
        """A few rows are late: after eight times of that, the target is one that can be kept."""
        self._back_off(rows, latency_s)
        self._few_late += 1
        self._few_s += latency_s
        if self._few_late == ROUND_BATCHES:
            self._target_s = RELAXED_RATIO * self._few_s / ROUND_BATCHES
            self._relaxed_rounds = RELAXED_ROUNDS
            self._probing = True
            self._few_late, self._few_s = 0, 0.0

    def _maybe_tighten(self) -> None:
        """At the end of a round: the target that was asked for is in force again when it is kept, or after a while."""
        self._relaxed_rounds -= 1
        if self._slowest_s < FIRST_CEILING * self._asked_s or self._relaxed_rounds == 0:
            self._target_s, self._relaxed_rounds = self._asked_s, 0

    def _back_off(self, rows: int, latency_s: float) -> None:
        lone = rows >= self._rows and not self._late_before
        if lone and not self._probing and latency_s < PAUSE_RATIO * self._target_s:
            self._move_ceiling(-CEILING_STEP * (1 - LATE_RATIO))
        # in whole numbers: 0.9 is no binary fraction
        self._rows = min(self._rows, max(1, max(rows, self._rows) * 9 // 10))
        self._probing = False
        self._begin_round()

    def _in_time_by(self, latency_s: float) -> None:
        self._move_ceiling(CEILING_STEP * LATE_RATIO)
        if self._rows > FEW_ROWS:
            self._few_late, self._few_s = 0, 0.0
        self._in_time += 1
        self._slowest_s = max(self._slowest_s, latency_s)
        if self._in_time >= (PROBE_BATCHES if self._probing else ROUND_BATCHES):
            self._end_round()

    def _end_round(self) -> None:
        if self._relaxed_rounds:
            self._maybe_tighten()
        ceiling_s = self._ceiling_ratio * self._target_s
        self._probing = self._probing or self._slowest_s < ceiling_s / 2
        if self._slowest_s < ceiling_s:
            self._rows = min(self._max_rows, self._rows + max(1, self._growth(ceiling_s)))
        self._begin_round()

    def _growth(self, ceiling_s: float) -> int:
        step = self._rows // STEP_SHARE
        if not self._probing:
            return step
        if self._slowest_s < ceiling_s / 2:
            return self._rows
        return max(step, int(self._rows * (ceiling_s / self._slowest_s - 1)))

    def _begin_round(self) -> None:
        self._in_time = 0
        self._slowest_s = 0.0

    def _move_ceiling(self, by_ratio: float) -> None:
        self._ceiling_ratio = min(HIGHEST_CEILING, max(LOWEST_CEILING, self._ceiling_ratio + by_ratio))
