"""Which candidate to retire: the worst one, as soon as enough others are known to be better.

The interval of each candidate's own losses holds at all times, and all intervals together hold with the confidence
that was asked for (alpha is divided by the number of candidates). A model is retired when its interval lies above those
of as many others as are to be kept: then these are better, however often the question is asked.

The losses are those that feedback gave each candidate itself, not weighted by propensities. They are comparable when
all candidates are asked about the same kind of queries. A policy that learns by context gives each candidate its own
kind; then `audit_ratio` is needed, which asks all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clipper_stream.sequential_testing.empirical_bernstein import EmpiricalBernstein


@dataclass(frozen=True, slots=True, kw_only=True)
class Retirement:
    """A candidate to retire.

    Attributes:
        model: Its reference.
        why: The rule that fired, with value and bound.
        numbers: feedbacks, loss, lower, upper, confidence, and the upper end of each better one.

    >>> Retirement(model="knn:1", why="").model
    'knn:1'

    Source: as `worst`.
    """

    model: str
    why: str
    numbers: Mapping[str, Any] = field(default_factory=dict)


def losses_of_candidates(count: int, confidence: float) -> EmpiricalBernstein:
    """The losses of one candidate of `count`, before the first feedback."""
    return EmpiricalBernstein(alpha=(1.0 - confidence) / count)


def worst(losses: Mapping[str, EmpiricalBernstein], keep: int, confidence: float) -> Retirement | None:
    """The candidate to retire; None while there is none.

    Args:
        losses: Own losses of all candidates.
        keep: How many are to be kept, at least 1.
        confidence: That of all intervals together, which the sequences were made with.

    >>> good, bad = (losses_of_candidates(2, 0.95) for _ in range(2))
    >>> for _ in range(60):
    ...     good, bad = good.observe(0.0), bad.observe(1.0)
    >>> worst({"a:1": good, "b:1": bad}, 1, 0.95).model
    'b:1'

    Source: Maron and Moore, "Hoeffding races", NIPS 1993, with intervals that hold at all times.
    """
    if len(losses) <= keep:
        return None
    model, own = max(losses.items(), key=lambda each: each[1].lower)
    better = {ref: other.upper for ref, other in losses.items() if other.upper < own.lower}
    if len(better) < keep:
        return None
    why = f"it loses at least {own.lower:.4f}, and {len(better)} others at most {max(better.values()):.4f}; keep {keep}"
    numbers = {
        "feedbacks": own.count,
        "loss": own.mean,
        "lower": own.lower,
        "upper": own.upper,
        "confidence": confidence,
        "better": better,
    }
    return Retirement(model=model, why=why, numbers=numbers)
