"""What feedback says about one trial: how much more loss it has than what the application's models answered.

A feedback says one of three things, each kept apart:

    both losses     a pair: the difference on one query, free of how hard the query was    (labels)
    the trial's     one of a sample of the trial's losses                                  (a canary, rewards)
    the answer's    one of a sample of the answers' losses                                 (the other queries)

Pairs give one interval, the two samples another; both hold at once (union bound), so what lies in both is the interval.
Losses are never weighted by propensities here: such a weight has no useful bound, and without one there is no interval.
"""

import math
from dataclasses import dataclass

from clipper_stream.sequential_testing.hedged_capital import Betting


@dataclass(frozen=True, slots=True)
class DifferenceEvidence:
    """Three sequences about one trial over one span of feedback.

    Half of alpha is the pairs', a quarter is each sample's, whatever comes: who sends labels today and rewards tomorrow
    loses nothing but that division.

    Attributes:
        pairs: Differences, each in [-1, 1].
        trial: Losses of the trial on queries where the answer's loss is not known.
        answers: Losses of answers on queries where the trial's is not known.

    >>> evidence = DifferenceEvidence.of(0.05)
    >>> for _ in range(40):
    ...     evidence = evidence.observe(1.0, 0.0)
    >>> evidence.difference, evidence.lower > 0.5
    (1.0, True)

    Source: the sequences' own; the union bound is Boole's inequality.
    """

    pairs: Betting
    trial: Betting
    answers: Betting

    @classmethod
    def of(cls, alpha: float) -> "DifferenceEvidence":
        """No feedback yet; the interval is wrong ever with probability of at most alpha."""
        return cls(Betting(alpha=alpha / 2, low=-1.0), Betting(alpha=alpha / 4), Betting(alpha=alpha / 4))

    def observe(self, trial: float | None, answer: float | None) -> "DifferenceEvidence":
        """After one feedback.

        Args:
            trial: Loss of the trial, in [0, 1]; None: not known.
            answer: Loss of what the application's models answered; None: not known.

        Raises:
            InvalidLabel: a loss outside of [0, 1].
        """
        if trial is not None and answer is not None:
            return DifferenceEvidence(self.pairs.observe(trial - answer), self.trial, self.answers)
        if trial is not None:
            return DifferenceEvidence(self.pairs, self.trial.observe(trial), self.answers)
        if answer is not None:
            return DifferenceEvidence(self.pairs, self.trial, self.answers.observe(answer))
        return self

    @property
    def feedbacks(self) -> int:
        """Feedbacks about the trial."""
        return self.pairs.count + self.trial.count

    @property
    def difference(self) -> float | None:
        """Loss of the trial minus that of the answers, by the kind of evidence that there is more of; None: of none."""
        if self.pairs.count == min(self.trial.count, self.answers.count) == 0:
            return None
        return self.pairs.mean if self._by_pairs else self.trial.mean - self.answers.mean

    @property
    def lower(self) -> float:
        """Lower end of the difference's interval, in [-1, 1]."""
        return max(self.pairs.lower, self.trial.lower - self.answers.upper)

    @property
    def upper(self) -> float:
        """Upper end of the interval; below the lower one when the difference has changed over time."""
        return min(self.pairs.upper, self.trial.upper - self.answers.lower)

    @property
    def standard_error(self) -> float:
        """Of the observed difference, at this one time: not for a decision that may be wrong, only for patience."""
        if self._by_pairs:
            return math.sqrt(self.pairs.variance_of_mean)
        return math.sqrt(self.trial.variance_of_mean + self.answers.variance_of_mean)

    @property
    def _by_pairs(self) -> bool:
        return self.pairs.count >= min(self.trial.count, self.answers.count)
