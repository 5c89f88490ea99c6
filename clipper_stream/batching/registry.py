"""Batch limits by name, as a model's manifest names them."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from clipper_stream.batching.aimd import RelaxedTarget
from clipper_stream.batching.limit import BatchLimit, Fixed, checked_rows, checked_target
from clipper_stream.batching.quantile import QuantileRegression
from clipper_stream.errors import UnknownName

LIMITS: Mapping[str, Callable[[float, int], BatchLimit]] = MappingProxyType(
    {
        "aimd": RelaxedTarget,
        "fixed": lambda _target_s, max_rows: Fixed(max_rows),
        "quantile": QuantileRegression,
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
