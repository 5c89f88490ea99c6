"""What the log cannot say about a candidate, in numbers and in sentences.

Rules of this file:
- Sums of chunks are added, as those of values are.
- A sentence has the number, what it means and what to do.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from clipper_stream.evaluation.estimators.contexts import Contexts, Names, together
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.log.columns import Floats

FEWEST_CARRYING = 100.0
"""Below it intervals cover less often than they say (benchmarks/results/coverage.md)."""
MOST_UNSUPPORTED = 0.01
MOST_OF_ONE = 0.05
_DOUBTS = 4.0
"""Standard errors that the mean importance may be away from 1: of 10,000 candidates one is further by chance."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportSums:
    """Sums that say how well the log supports a candidate.

    Attributes:
        decisions: n.
        shares: Sum of how much each counts against censoring, n without weights.
        importance: Sum of what each decision counts.
        squares: Sum of the squares of that.
        fourths: Sum of the fourth powers.
        distances: Sum of the squared distances of that from its expectation, the share.
        largest: The most that one of them counts.
        most: Largest probability of each column under the candidate, (K,).
        heaviest: Largest weight of each column in the log, 1 / its smallest propensity, (K,).
        contexts: Names of the tables' rows.
        target: Probability of each column under the candidate, summed by context, (C, K).
        scored: How often it was scored there, (C, K).

    >>> SupportSums.empty(2).support(["a:1", "b:1"]).effective
    0.0

    Source: Owen, "Monte Carlo theory, methods and examples", 2013, section 9.3 (diagnostics of weights).
    """

    decisions: int
    shares: float
    importance: float
    squares: float
    fourths: float
    distances: float
    largest: float
    most: Floats
    heaviest: Floats
    contexts: Names
    target: Floats
    scored: Floats

    @classmethod
    def empty(cls, width: int) -> Self:
        """Return the sums of no decision, of K columns."""
        none, table = np.zeros(width), np.zeros((0, width))
        return cls(
            decisions=0,
            shares=0.0,
            importance=0.0,
            squares=0.0,
            fourths=0.0,
            distances=0.0,
            largest=0.0,
            most=none,
            heaviest=none,
            contexts=(),
            target=table,
            scored=table,
        )

    @classmethod
    def of(cls, choices: Choices, contexts: Contexts) -> Self:
        """Return the sums of n decisions."""
        share = np.ones(len(choices)) if choices.share is None else choices.share
        counts = choices.importance * share
        away, squares = counts - share, counts * counts
        return cls(
            decisions=len(choices),
            shares=float(share.sum()),
            importance=float(counts.sum()),
            squares=float(squares.sum()),
            fourths=float(squares @ squares),
            distances=float(away @ away),
            largest=float(counts.max(initial=0.0)),
            most=choices.target.max(axis=0, initial=0.0),
            heaviest=choices.weight.max(axis=0, initial=0.0),
            contexts=contexts.names,
            target=contexts.totals(choices.target),
            scored=contexts.totals(choices.weight > 0.0),
        )

    def merged(self, other: Self) -> Self:
        """The sums of both, whose decisions are different ones."""
        names, target = together([(self.contexts, self.target), (other.contexts, other.target)])
        _, scored = together([(self.contexts, self.scored), (other.contexts, other.scored)])
        return type(self)(
            decisions=self.decisions + other.decisions,
            shares=self.shares + other.shares,
            importance=self.importance + other.importance,
            squares=self.squares + other.squares,
            fourths=self.fourths + other.fourths,
            distances=self.distances + other.distances,
            largest=max(self.largest, other.largest),
            most=np.maximum(self.most, other.most),
            heaviest=np.maximum(self.heaviest, other.heaviest),
            contexts=names,
            target=target,
            scored=scored,
        )

    def support(self, columns: Sequence[str]) -> "Support":
        """Return the support that these sums amount to.

        Args:
            columns: Names of the K columns, for the sentences.
        """
        missing = np.where(self.scored > 0.0, 0.0, self.target)
        worst = int(missing.argmax()) if missing.size and missing.max() > 0.0 else None
        row, column = (0, 0) if worst is None else np.unravel_index(worst, missing.shape)
        context = self.contexts[int(row)] if worst is not None else None
        where = f" in context {context!r}" if context is not None else ""
        return Support(
            decisions=self.decisions,
            effective=self.importance**2 / self.squares if self.squares else 0.0,
            carrying=self.squares**2 / self.fourths if self.fourths else 0.0,
            mean_importance=self.importance / self.shares if self.shares else 0.0,
            doubts=abs(self.importance - self.shares) / math.sqrt(self.distances) if self.distances else 0.0,
            largest_weight=self.largest,
            largest_share=self.largest / self.importance if self.importance else 0.0,
            largest_importance=largest_importance(self.most, self.heaviest),
            unsupported_ratio=float(missing.sum() / self.decisions) if self.decisions else 1.0,
            least_supported=None if worst is None else f"{columns[int(column)]}{where}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Support:
    """How well the log supports a candidate.

    Attributes:
        decisions: With feedback.
        effective: Effective sample size (Kish): so many decisions, each as likely under the candidate as it was, would
            say as much.
        carrying: The same of the squares, which the standard error is made of: so many decisions decide how exact the
            estimate is. Seldom asked models that matter show here, though the others keep `effective` large.
        mean_importance: 1 where the log supports all of the candidate, and its propensities are true.
        doubts: Its distance from 1, in standard errors.
        largest_weight: The most that one decision counts.
        largest_share: Share of all importance that one decision has, in [0, 1].
        largest_importance: The most that a decision can count, by the smallest propensities in the log.
        unsupported_ratio: Share of the candidate's choices that were never scored in their context, in [0, 1].
        least_supported: The column, and context, with the most of them; None without any.

    >>> Support(decisions=1000, effective=200.0, carrying=20.0, mean_importance=1.0, doubts=0.1,
    ...         largest_weight=10.0, largest_share=0.01, largest_importance=50.0,
    ...         unsupported_ratio=0.0, least_supported=None).warnings[0][:46]
    'only 20 of 1,000 decisions carry the estimate '

    Source: Kish, "Survey sampling", 1965, section 11.7 (effective); Owen, as in `SupportSums` (carrying).
    """

    decisions: int
    effective: float
    carrying: float
    mean_importance: float
    doubts: float
    largest_weight: float
    largest_share: float
    largest_importance: float
    unsupported_ratio: float
    least_supported: str | None

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings, a sentence each, the worst first; empty when there is none."""
        found = (self._unsupported, self._few, self._single, self._doubtful)
        return tuple(sentence for sentence in found if sentence)

    @property
    def _unsupported(self) -> str:
        if self.unsupported_ratio <= MOST_UNSUPPORTED:
            return ""
        return (
            f"{self.unsupported_ratio:.1%} of the candidate's choices were never scored in their context, most of all "
            f"{self.least_supported}: nothing is known about their loss. ips counts it as 0, snips as that of the "
            "others, dr as predicted. Set audit_ratio, or let the policy explore, and log again"
        )

    @property
    def _few(self) -> str:
        if self.carrying >= FEWEST_CARRYING:
            return ""
        return (
            f"only {self.carrying:,.0f} of {self.decisions:,} decisions carry the estimate (below "
            f"{FEWEST_CARRYING:g}): intervals cover too seldom. Take a longer range, or log with audit_ratio or more "
            "exploration"
        )

    @property
    def _single(self) -> str:
        if self.largest_share <= MOST_OF_ONE or not self.decisions:
            return ""
        return (
            f"one decision alone is {self.largest_share:.1%} of the estimate: its loss decides. Take a longer range, "
            "or more exploration, which makes the smallest propensity larger"
        )

    @property
    def _doubtful(self) -> str:
        if self.doubts <= _DOUBTS or self._unsupported or self._few:
            return ""
        return (
            f"decisions count {self.mean_importance:.3f} on average, {self.doubts:.1f} standard errors from 1: losses "
            "of asked models are missing, or propensities are wrong. Read snips and sndr, and see the share without "
            "feedback"
        )


def largest_importance(most: Floats, heaviest: Floats) -> float:
    """The most that a decision can count: the sum of pi w is at most the largest w, and at most the largest of each.

    Args:
        most: Largest pi of each column, (K,).
        heaviest: Largest w of each column, (K,).
    """
    chosen = heaviest[most > 0.0]
    return float(min(chosen.max(initial=0.0), most @ heaviest))
