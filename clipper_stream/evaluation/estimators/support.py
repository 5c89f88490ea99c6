"""What the log cannot say about a candidate, in numbers and in sentences.

Rules of this file:
- A sentence has the number, what it means and what to do.
- A decision counts for a candidate once all that it would ask had been asked, without a revision since that could not
  ask it. So what was not deployed yet, or is retired, is neither warned of nor estimated. When that is depends on
  earlier decisions alone, so the weights of those that count are 1 on average.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from clipper_stream.evaluation.estimators.block_sums import AdditiveSums, totals
from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.log.columns import Bools, Codes, DecisionColumns, Floats
from clipper_stream.evaluation.log.joint_propensity import CERTAIN

FEWEST_CARRYING = 100.0
"""Below it intervals cover less often than they say (benchmarks/results/coverage.md)."""
MOST_UNSUPPORTED = 0.01
_NEVER_MS = np.iinfo(np.int64).max
NEVER_ASKED = (
    "no decision says anything about it: never was all asked that it would ask (together, if it asks several). Put its "
    "models on trial, or set audit_ratio, and log again"
)
_DOUBTS = 4.0
"""Standard errors that the mean importance may be away from 1: of 10,000 candidates one is further by chance."""


class FirstAsked:
    """When each model was first asked, again after each break, found on the way through a log in the order of time.

    Source: Williams, "Probability with martingales", 1991, section 10.10 (optional stopping).
    """

    def __init__(self) -> None:
        self._since_ms: dict[tuple[int, str], int] = {}

    def supports(self, columns: DecisionColumns, target: Floats) -> Bools:
        """Decisions that count for a candidate that chooses with these probabilities, (n, M); (n,)."""
        begun = np.zeros(target.shape)
        for revision in np.unique(columns.revision).tolist():
            rows = np.flatnonzero(columns.revision == revision)
            at_ms, asked = columns.at_ms[rows], columns.propensity[rows]
            first_ms = np.where(asked > 0.0, at_ms[:, None], _NEVER_MS).min(axis=0)
            chance = ((at_ms[:, None] == first_ms) & (asked > 0.0) & (asked < CERTAIN)).any(axis=0)
            for column, (since_ms, later) in enumerate(zip(first_ms.tolist(), chance.tolist(), strict=True)):
                key = _first_revision(columns, revision, columns.models[column]), columns.models[column]
                if since_ms < _NEVER_MS:
                    self._since_ms.setdefault(key, since_ms + later)
                begun[rows, column] = at_ms >= self._since_ms.get(key, _NEVER_MS)
        return np.asarray((target * begun).sum(axis=1) >= 1.0 - MOST_UNSUPPORTED)


def _first_revision(columns: DecisionColumns, revision: int, model: str) -> int:
    """The first of the revisions that could ask a model, without a break, up to this one; of unknown ones this one."""
    first = revision
    for earlier in sorted((one for one in columns.configs if one <= revision), reverse=True):
        config = columns.configs[earlier]
        if model not in config.asked and model not in config.trials:
            break
        first = earlier
    return first


@dataclass(frozen=True, slots=True, kw_only=True)
class SupportSums(AdditiveSums):
    """Sums that say how well the log supports a candidate.

    Attributes:
        target: Probability of each column under the candidate, summed by context, (C, K).
        scored: How often it was scored there, (C, K).

    Source: Owen, "Monte Carlo theory, methods and examples", 2013, sections 9.1 (where nothing is drawn, nothing is
    known) and 9.3 (diagnostics of weights).
    """

    decisions: int
    target: Floats
    scored: Floats
    importance: float
    squares: float
    fourths: float
    distances: float

    @classmethod
    def of(cls, choices: Choices, contexts: int) -> Self:
        scored = choices.weight > 0.0
        return cls.of_parts(choices.context, contexts, choices.target, scored, choices.importance)

    @classmethod
    def of_parts(cls, context: Codes, contexts: int, target: Floats, scored: Bools, importance: Floats) -> Self:
        """Return the sums of n decisions, of which `importance` is 1 on average where the log supports them, (n,)."""
        away, squares = importance - 1.0, importance * importance
        return cls(
            decisions=len(context),
            importance=float(importance.sum()),
            squares=float(squares.sum()),
            fourths=float(squares @ squares),
            distances=float(away @ away),
            target=totals(context, contexts, target),
            scored=totals(context, contexts, scored),
        )

    @property
    def unsupported_ratio(self) -> float:
        """Share of the candidate's choices that were never scored in their context, in [0, 1]."""
        chosen = float(self.target.sum())
        return float(self._unsupported.sum()) / chosen if chosen else 1.0

    @property
    def unknown_ratio(self) -> float:
        """Share of the candidate of which a warning says that nothing is known: its loss there may be anything."""
        unsupported = self.unsupported_ratio if self.unsupported_ratio > MOST_UNSUPPORTED else 0.0
        return max(unsupported, abs(self.mean_importance - 1.0) if self._doubts > _DOUBTS else 0.0)

    @property
    def _unsupported(self) -> Floats:
        return np.where(self.scored > 0.0, 0.0, self.target)

    def missing(self, models: Sequence[str], contexts: Sequence[str | None], instead: str) -> str:
        """The warning about choices that were never scored; empty when there are few of them."""
        if self.unsupported_ratio <= MOST_UNSUPPORTED:
            return ""
        row, column = divmod(int(self._unsupported.argmax()), len(models))
        where = f" in context {contexts[row]!r}" if contexts[row] is not None else ""
        return (
            f"{self.unsupported_ratio:.1%} of the candidate's choices were never scored in their context, most of all "
            f"{models[column]}{where}: nothing is known about their loss. {instead}. Set audit_ratio, or let the "
            "policy explore, and log again"
        )

    @property
    def carrying(self) -> float:
        """Kish's effective size of the squares, of which the standard error is made: so many decisions decide it."""
        return self.squares**2 / self.fourths if self.fourths else 0.0

    @property
    def mean_importance(self) -> float:
        """1 where the log supports all of the candidate, and its propensities are true."""
        return self.importance / self.decisions if self.decisions else 0.0

    def warnings(self, models: Sequence[str], contexts: Sequence[str | None]) -> tuple[str, ...]:
        """Warnings, a sentence each, the worst first; empty when there is none."""
        if not self.decisions:
            return (NEVER_ASKED,)
        instead = "ips counts it as 0, snips as that of the others, dr as predicted"
        missing, few = self.missing(models, contexts, instead), self._few
        found = (missing, few, "" if missing or few else self.doubtful)
        return tuple(sentence for sentence in found if sentence)

    @property
    def few_carry(self) -> bool:
        return self.carrying < FEWEST_CARRYING

    @property
    def _few(self) -> str:
        if not self.few_carry:
            return ""
        return (
            f"only {self.carrying:,.0f} of {self.decisions:,} decisions carry the estimate (below "
            f"{FEWEST_CARRYING:g}): intervals cover too seldom. Take a longer range, or log with audit_ratio or more "
            "exploration"
        )

    @property
    def _doubts(self) -> float:
        return abs(self.importance - self.decisions) / math.sqrt(self.distances) if self.distances else 0.0

    @property
    def doubtful(self) -> str:
        """The warning that models were not asked as the propensities say; empty when they may have been."""
        if self._doubts <= _DOUBTS:
            return ""
        return (
            f"decisions count {self.mean_importance:.3f} on average, {self._doubts:.1f} standard errors from 1: losses "
            "of asked models are missing, or propensities are wrong: a rule that the log does not hold chose them. "
            "See the share without feedback, and let the policy explore"
        )
