"""Batch limits, learned or fixed: how many rows the next batch may have.

Learned is additive increase, multiplicative decrease (Clipper, section 4.3.1), aimed at the 99th percentile.

`Aimd` is the rule of the paper. Three limits wrap it, as in Netflix's concurrency-limits:
`RelaxedTarget(TailLatency(FastGrowth(Aimd)))`.

Rules of this file. A batch is *full* when it has at least as many rows as the limit, else *thin*; *late* when it took
the target or longer. A *round* is some full batches in a row under one limit, none of them late.

- Only full batches raise the limit, because only they show that so many rows are fast: no running away when idle.
- The ceiling is a share of the target, learned so that 1 full batch in 200 is late: each one in time raises it a
  little, a late one lowers it 199 times as much. A model whose latency varies by 2 % works close to the target, one
  whose latency varies by 30 % far from it; both keep their 99th percentile.
- A late thin batch alone is a pause of the host (garbage collection, scheduling), not a limit that is too high. Two in
  a row are a model that has become slower, and each further one takes 10 % off the limit, never more.

The reasons, and what was tried besides: docs/explanation/batching.md.
"""

import math
from collections.abc import Callable, Mapping
from typing import Protocol

from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_stream.names import choices


class BatchLimit(Protocol):
    """How many rows the next batch may have, learned from the batches before; one per replica (Clipper, 4.4.1)."""

    @property
    def rows(self) -> int:
        """The largest batch to send now, at least 1."""
        ...

    def observe(self, rows: int, latency_s: float) -> None:
        """Learn from one batch of at least 1 row, whose outputs were there in `latency_s` seconds."""
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


ROUND_BATCHES = 8
"""The slowest of 8 is about the 90th percentile: growth is judged by slow batches, not by a lucky one."""
PROBE_BATCHES = 2
"""A round while growth is fast: the way up is short, and one late batch ends it."""
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
    """A step up after a batch in time, 10 % down after a late one.

    Args:
        target_s: Latency in seconds that a batch should stay below, above 0.
        max_rows: The limit never exceeds it, at least 1.
        start_rows: The limit before the first batch, in [1, max_rows].

    Attributes:
        target_s: As given; whoever wraps this limit may change it.
        rows: The limit: the largest batch to send now, in [1, max_rows].

    Raises:
        InvalidSetting: an argument lies outside its bound.

    >>> limit = Aimd(target_s=0.02, max_rows=100, start_rows=60)
    >>> limit.observe(rows=60, latency_s=0.012)
    >>> limit.rows
    62
    >>> limit.observe(rows=62, latency_s=0.021)
    >>> limit.rows
    55

    Source: Crankshaw et al., Clipper, NSDI 2017, section 4.3.1: the batch size is increased by a fixed amount until the
    latency exceeds the objective, then reduced by 10 %. The amount here is a share of the limit, at least one row.
    """

    __slots__ = ("_max_rows", "rows", "target_s")

    def __init__(self, target_s: float, max_rows: int, start_rows: int = 1) -> None:
        self.target_s = checked_target(target_s)
        self._max_rows = checked_rows("max_rows", max_rows)
        self.rows = checked_rows("start_rows", start_rows, most=max_rows)

    def observe(self, rows: int, latency_s: float) -> None:
        if latency_s >= self.target_s:
            # in whole numbers: 0.9 is no binary fraction
            self.rows = min(self.rows, max(1, max(rows, self.rows) * 9 // 10))
        elif rows >= self.rows:
            self.grow(self.rows // STEP_SHARE)

    def grow(self, by_rows: int) -> None:
        """Raise the limit by `by_rows`, at least one row, to `max_rows` at most."""
        self.rows = min(self._max_rows, self.rows + max(1, by_rows))


class FastGrowth:
    """Grows in proportion to what is left of the target, at most twofold, until a batch is late.

    So many times the rows take at most so many times as long, so that growth in proportion does not overshoot.

    Attributes:
        limit: The limit that takes steps when growth is not fast.
        active: Whether growth is fast; true at the start.

    Source: slow start of TCP, Jacobson, Congestion avoidance and control, SIGCOMM 1988.
    """

    __slots__ = ("active", "limit")

    def __init__(self, limit: Aimd) -> None:
        self.limit = limit
        self.active = True

    def observe(self, rows: int, latency_s: float) -> None:
        limit, target_s = self.limit, self.limit.target_s
        if latency_s >= target_s:
            self.active = False
        elif latency_s < target_s / 2:
            self.active = True
            limit.grow(limit.rows)
            return
        elif self.active:
            limit.grow(max(limit.rows // STEP_SHARE, int(limit.rows * (target_s / latency_s - 1))))
            return
        limit.observe(rows, latency_s)


class TailLatency:
    """Keeps the 99th percentile of batch latencies below the target.

    Late batches reach the inner limit one by one, batches in time as rounds: the slowest of a round stands for it, and
    is held against the ceiling. A round between ceiling and target changes nothing. `round_ended` is called with the
    slowest latency of a round before it is judged.

    Attributes:
        target_s: As given; whoever wraps this limit may change it.
        ceiling_ratio: The share of the target above which the limit does not grow, as learned.

    Source: Robbins and Monro, A Stochastic Approximation Method, Annals of Mathematical Statistics 22 (1951): the
    ceiling is a quantile tracker.
    """

    __slots__ = ("_growth", "_in_time", "_late_before", "_round_ended", "_slowest_s", "ceiling_ratio", "target_s")

    def __init__(self, limit: FastGrowth, target_s: float, round_ended: Callable[[float], None]) -> None:
        self._growth, self.target_s, self._round_ended = limit, target_s, round_ended
        self.ceiling_ratio = FIRST_CEILING
        self._late_before = False
        self._in_time, self._slowest_s = 0, 0.0

    @property
    def rows(self) -> int:
        return self._growth.limit.rows

    def observe(self, rows: int, latency_s: float) -> None:
        full, late = rows >= self.rows, latency_s >= self.target_s
        if late and (full or self._late_before):
            lone = full and not self._late_before
            if lone and not self._growth.active and latency_s < PAUSE_RATIO * self.target_s:
                self._move_ceiling(-CEILING_STEP * (1 - LATE_RATIO))
            self._growth.limit.target_s = self.target_s
            self._growth.observe(rows, latency_s)
            self._begin_round()
        elif full and not late:
            self._move_ceiling(CEILING_STEP * LATE_RATIO)
            self._in_time += 1
            self._slowest_s = max(self._slowest_s, latency_s)
            if self._in_time >= (PROBE_BATCHES if self._growth.active else ROUND_BATCHES):
                self._judge_round()
        self._late_before = late

    def _judge_round(self) -> None:
        self._round_ended(self._slowest_s)
        ceiling_s = self._growth.limit.target_s = self.ceiling_ratio * self.target_s
        if self._slowest_s < ceiling_s:
            self._growth.observe(self.rows, self._slowest_s)
        self._begin_round()

    def _begin_round(self) -> None:
        self._in_time, self._slowest_s = 0, 0.0

    def _move_ceiling(self, by_ratio: float) -> None:
        self.ceiling_ratio = min(HIGHEST_CEILING, max(LOWEST_CEILING, self.ceiling_ratio + by_ratio))


class RelaxedTarget:
    """The limit `aimd` of a model's manifest: the rule of the paper with everything that is added to it.

    Eight late batches of at most four rows, before the limit has left these sizes, say that no size keeps the target:
    rows are slow, or the host's processor is busy with others. Shrinking does not help then, it only makes every row
    pay a whole call. So twice what they took is the target in force, for `RELAXED_ROUNDS` rounds or until a round
    keeps the one that was asked for. Arguments are those of `Aimd`; 99 of 100 batches should stay below the target.

    >>> limit = RelaxedTarget(target_s=0.02, max_rows=100, start_rows=60)
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
    """

    __slots__ = ("_asked_s", "_few_late", "_few_s", "_growth", "_relaxed_rounds", "_tail")

    def __init__(self, target_s: float, max_rows: int, start_rows: int = 1) -> None:
        self._growth = FastGrowth(Aimd(target_s, max_rows, start_rows))
        self._tail = TailLatency(self._growth, target_s, self._maybe_tighten)
        self._asked_s = target_s
        self._few_late, self._few_s, self._relaxed_rounds = 0, 0.0, 0

    @property
    def target_s(self) -> float:
        """The target in force: the one asked for, or a longer one while even a few rows miss that."""
        return self._tail.target_s

    @property
    def rows(self) -> int:
        return self._tail.rows

    @property
    def ceiling_ratio(self) -> float:
        """The share of the target above which the limit does not grow, as learned."""
        return self._tail.ceiling_ratio

    def observe(self, rows: int, latency_s: float) -> None:
        """Learn from one batch; as `BatchLimit.observe`."""
        if not latency_s >= 0.0:
            return  # no latency: a clock was set back
        before, full, late = self.rows, rows >= self.rows, latency_s >= self.target_s
        if full and not late and before > FEW_ROWS:
            self._few_late, self._few_s = 0, 0.0
        self._tail.observe(rows, latency_s)
        if full and late and before <= FEW_ROWS:
            self._count_few_late(latency_s)

    def _count_few_late(self, latency_s: float) -> None:
        """Relax the target after eight late batches of a few rows, to one that can be kept."""
        self._few_late += 1
        self._few_s += latency_s
        if self._few_late == ROUND_BATCHES:
            self._tail.target_s = RELAXED_RATIO * self._few_s / ROUND_BATCHES
            self._relaxed_rounds = RELAXED_ROUNDS
            self._growth.active = True
            self._few_late, self._few_s = 0, 0.0

    def _maybe_tighten(self, slowest_s: float) -> None:
        """At the end of a round: return to the target that was asked for when it is kept, or after a while."""
        if not self._relaxed_rounds:
            return
        self._relaxed_rounds -= 1
        if slowest_s < FIRST_CEILING * self._asked_s or self._relaxed_rounds == 0:
            self._tail.target_s, self._relaxed_rounds = self._asked_s, 0


class Fixed:
    """Always the same limit, for models whose best batch is known or whose latency does not depend on it.

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
        return self._rows

    def observe(self, rows: int, latency_s: float) -> None:
        """Learn nothing."""


LIMITS: Mapping[str, Callable[[float, int], BatchLimit]] = {
    "aimd": RelaxedTarget,
    "fixed": lambda _target_s, max_rows: Fixed(max_rows),
}
"""Every limit by its name; each is made from `(target_s, max_rows)`."""


def make_limit(kind: str, target_s: float, max_rows: int) -> BatchLimit:
    """A new limit of this kind.

    Args:
        kind: A name in `LIMITS`.
        target_s: As of `Aimd`; `fixed` does not look at it.
        max_rows: As of `Aimd`; the limit itself for `fixed`.

    Raises:
        UnknownName: no limit has this name.
        InvalidSetting: a number lies outside its bound.

    >>> make_limit("fixed", target_s=0.02, max_rows=32).rows
    32
    """
    if kind not in LIMITS:
        raise UnknownName(f"batch limit {kind!r}: {choices(kind, sorted(LIMITS))}")
    return LIMITS[kind](checked_target(target_s), max_rows)
