"""Batch limits by name, as a model's manifest names them, and the one that never changes."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from clipper_stream.batching.aimd import RelaxedTarget
from clipper_stream.batching.limit import BatchLimit, checked_rows, checked_target
from clipper_stream.errors import UnknownName


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


LIMITS: Mapping[str, Callable[[float, int], BatchLimit]] = MappingProxyType(
    {
        "aimd": RelaxedTarget,
        "fixed": lambda _target_s, max_rows: Fixed(max_rows),
    }
)
"""Every limit by its name; each is made from `(target_s, max_rows)`."""


def make_limit(kind: str, target_s: float, max_rows: int) -> BatchLimit:
    """A new limit of this kind.

    Args:
        kind: A name in `LIMITS`.
        target_s: Latency in seconds that a batch should stay below, above 0; `fixed` does not look at it.
        max_rows: The limit never exceeds it, at least 1; the limit itself for `fixed`.

    Raises:
        UnknownName: no limit has this name.
        InvalidSetting: a number lies outside its bound.

    >>> make_limit("fixed", target_s=0.02, max_rows=32).rows
    32
    """
    if kind not in LIMITS:
        raise UnknownName(f"no batch limit is called {kind!r}: use one of {', '.join(sorted(LIMITS))}")
    return LIMITS[kind](checked_target(target_s), checked_rows("max_rows", max_rows))
