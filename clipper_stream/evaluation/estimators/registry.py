"""Estimators by name, as the command line and a report name them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from clipper_stream.errors import UnknownName
from clipper_stream.evaluation.estimators.doubly_robust import (
    DirectMethod,
    DoublyRobust,
    SelfNormalizedDoublyRobust,
    SwitchDoublyRobust,
)
from clipper_stream.evaluation.estimators.estimator import Estimator
from clipper_stream.evaluation.estimators.importance_weighting import ClippedIps, Ips, Snips
from clipper_stream.evaluation.estimators.on_policy import OnPolicy

_KINDS: tuple[Any, ...] = (
    OnPolicy,
    Ips,
    Snips,
    ClippedIps,
    DirectMethod,
    DoublyRobust,
    SelfNormalizedDoublyRobust,
    SwitchDoublyRobust,
)
ESTIMATORS: Mapping[str, Any] = {kind.name: kind for kind in _KINDS}
"""Every estimator by its name. A new one is added here, and the laws in tests/laws then hold it."""
_BOUNDED = (ClippedIps.name, SwitchDoublyRobust.name)


def largest_weight(decisions: int) -> float:
    """sqrt(n): what is cut off then vanishes faster than the standard error, and no decision decides alone.

    Args:
        decisions: With feedback, n.

    >>> largest_weight(10_000), largest_weight(0)
    (100.0, 1.0)

    Source: Ionides, "Truncated importance sampling", J. Comput. Graph. Stat. 17, 2008, section 3 (n^(1/2)).
    """
    return math.sqrt(max(1, decisions))


def make_estimators(
    names: Sequence[str] = tuple(ESTIMATORS), *, decisions: int, largest: float | None = None
) -> tuple[Estimator, ...]:
    """The estimators of these names, for a log of so many decisions.

    Args:
        names: Some of `ESTIMATORS`; all of them without any.
        decisions: With feedback, in all chunks together.
        largest: The most that a decision may count in `clipped_ips` and `switch_dr`; `largest_weight` when left out.

    >>> [estimator.name for estimator in make_estimators(["ips", "dr"], decisions=100)]
    ['ips', 'dr']

    Raises:
        UnknownName: there is no such estimator.
        InvalidSetting: `largest` is below 1.
    """
    unknown = [name for name in names if name not in ESTIMATORS]
    if unknown:
        raise UnknownName(f"estimator {unknown[0]!r}: use some of {', '.join(ESTIMATORS)}")
    bound = largest_weight(decisions) if largest is None else largest
    return tuple(ESTIMATORS[name](largest=bound) if name in _BOUNDED else ESTIMATORS[name]() for name in names)
