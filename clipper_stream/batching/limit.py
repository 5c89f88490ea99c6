"""What a batch limit is, and every limit by its name."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Protocol

from clipper_stream.batching.aimd import Aimd
from clipper_stream.batching.bounds import checked_rows, checked_target
from clipper_stream.batching.fixed import Fixed
from clipper_stream.batching.quantile import QuantileRegression
from clipper_stream.errors import UnknownName


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


LIMITS: Mapping[str, Callable[[float, int], BatchLimit]] = MappingProxyType(
    {
        "aimd": Aimd,
        "fixed": lambda _target_s, max_rows: Fixed(max_rows),
        "quantile": QuantileRegression,
    }
)
"""Every limit by the name that a model's manifest gives; each made from `(target_s, max_rows)`."""


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
