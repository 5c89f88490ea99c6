"""Which candidate to retire: the worst one, as soon as enough others are known to be better.

The interval of each candidate's own losses holds at all times, and all intervals together hold with the confidence
that was asked for (1 - confidence is divided by the number of their ends). A model is retired when its interval lies
above those of as many others as are to be kept: then these are better, however often the question is asked.

The losses are those that feedback gave each candidate itself, not weighted by propensities. They are comparable when
all candidates are asked about the same kind of queries. A policy that learns by context gives each candidate its own
kind; then `audit_ratio` is needed, which asks all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from clipper_stream.sequential_testing.score_sums import Capital, ScoreSums


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


def worst(losses: Mapping[str, ScoreSums], keep: int, confidence: float) -> Retirement | None:
    """The candidate to retire; None while there is none.

    Args:
        losses: Sums of all candidates' own losses, of the margin 0.
        keep: How many are to be kept, at least 1.
        confidence: That of all intervals together.

    >>> from clipper_stream.sequential_testing.score_sums import Score
    >>> sums = {"a:1": ScoreSums(0.0), "b:1": ScoreSums(0.0)}
    >>> for _ in range(60):
    ...     sums["a:1"].add(0, Score(1.0, 0.0, 0.0))
    ...     sums["b:1"].add(0, Score(1.0, 1.0, 1.0))
    >>> worst(sums, 1, 0.95).model
    'b:1'

    Source: Maron and Moore, "Hoeffding races", NIPS 1993, with intervals that hold at all times.
    """
    if len(losses) <= keep:
        return None
    alpha = (1.0 - confidence) / (2 * len(losses))
    found = {ref: sums.capital() for ref, sums in losses.items()}
    lower, upper = ({ref: end(one, alpha) for ref, one in found.items()} for end in (Capital.lower, Capital.upper))
    model = max(lower, key=lower.__getitem__)
    better = {ref: end for ref, end in upper.items() if end < lower[model]}
    if len(better) < keep:
        return None
    most = max(better.values())
    why = f"it loses at least {lower[model]:.4f}, and {len(better)} others at most {most:.4f}; keep {keep}"
    numbers = {
        "feedbacks": found[model].scores,
        "loss": found[model].mean,
        "lower": lower[model],
        "upper": upper[model],
        "confidence": confidence,
        "better": better,
    }
    return Retirement(model=model, why=why, numbers=numbers)
