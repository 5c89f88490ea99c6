"""Estimators by name, as the command line and a report name them.

Rules of this file:
- pi, w, L, q are `target`, `weight`, `loss`, `predicted` of `Choices`; sums run over the columns of a decision.
- The terms of a decision are made of its own row alone.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_stream.evaluation.estimators.block_sums import BlockSums, Terms
from clipper_stream.evaluation.estimators.propensity_matrices import Choices, row_sums
from clipper_stream.evaluation.log.columns import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """A rule that gives each decision its part in the loss of a candidate.

    Attributes:
        name: The registered name, for example `ips`.
        terms: Parts of n decisions. Raises InvalidSetting where predicted losses are needed and not there.
        width: Largest possible distance between the terms of two decisions, losses being in [0, 1], by the most that a
            decision can count (`SupportSums.largest_importance`). None for one that divides by what it sums: its terms
            alone are no estimate.
        covers: Whether an interval covers the candidate's loss as often as it says, given support. Not where a
            prediction, or a bound, makes an error that more decisions do not show: benchmarks/results/coverage.md has
            the figures.

    >>> [one.width(20.0) for one in make_estimators(["ips", "snips", "dr"], decisions=1)]
    [20.0, None, 41.0]

    Source: that of each function.
    """

    name: str
    terms: Callable[[Choices], Terms]
    width: Callable[[float], float | None]
    covers: bool = True

    def sums(self, choices: Choices) -> BlockSums:
        """Return the sums of the terms of n decisions."""
        return BlockSums.of(self.terms(choices), choices.block, choices.share)


def on_policy(choices: Choices) -> Terms:
    """Mean of the answers' losses, whatever the candidate; answers without a known loss are left out.

    No estimate, but what a candidate is compared with.

    Source: Sutton and Barto, "Reinforcement learning", 2nd edition 2018, section 5.1.
    """
    known = ~np.isnan(choices.answer_loss)
    if known.all():
        return Terms(numerator=choices.answer_loss)
    return Terms(numerator=np.where(known, choices.answer_loss, 0.0), denominator=known.astype(float))


def ips(choices: Choices) -> Terms:
    """Mean of sum(pi w L), inverse propensity scoring: unbiased, and of large variance where weights are large.

    A decision without weight counts as a loss of 0, so it is too low where the candidate does what was never asked.

    Source: Horvitz and Thompson, "A generalization of sampling without replacement from a finite universe", J. Am.
    Stat. Assoc. 47, 1952.
    """
    return Terms(numerator=row_sums(choices.ratio, choices.loss))


def snips(choices: Choices) -> Terms:
    """sum(pi w L) / sum(pi w), self-normalised: a weighted mean of known losses, so it lies between them.

    Biased by the order of 1 / n, and mostly of far less variance than `ips`; where the candidate does what was never
    asked, it is the loss of the rest.

    Source: Swaminathan and Joachims, "The self-normalized estimator for counterfactual learning", NeurIPS 2015.
    """
    return Terms(numerator=row_sums(choices.ratio, choices.loss), denominator=choices.importance)


def clipped_ips(choices: Choices, largest: float) -> Terms:
    """Mean of min(sum(pi w L), largest): of bounded variance, and too low by what is cut off.

    Source: Ionides, "Truncated importance sampling", J. Comput. Graph. Stat. 17, 2008.
    """
    importance = choices.importance
    kept = np.divide(largest, importance, out=np.ones_like(importance), where=importance > largest)
    return Terms(numerator=row_sums(choices.ratio, choices.loss) * kept)


def direct_method(choices: Choices) -> Terms:
    """Mean of sum(pi q): of least variance, and exactly as wrong as the predictions, which no interval of it shows.

    Source: Dudik, Langford and Li, "Doubly robust policy evaluation and learning", ICML 2011, section 3.
    """
    return Terms(base=row_sums(choices.target, choices.prediction))


def doubly_robust(choices: Choices) -> Terms:
    """Mean of sum(pi q) + sum(pi w (L - q)): unbiased whatever is predicted, of less variance where it is right.

    Source: as `direct_method`.
    """
    return Terms(base=row_sums(choices.target, choices.prediction), numerator=_corrections(choices))


def self_normalized_doubly_robust(choices: Choices) -> Terms:
    """Mean of sum(pi q), plus sum(pi w (L - q)) / sum(pi w): what `snips` is to `ips`.

    Source: Thomas and Brunskill, "Data-efficient off-policy policy evaluation for reinforcement learning", ICML 2016,
    section 4 (weighted doubly robust, of one step).
    """
    base = row_sums(choices.target, choices.prediction)
    return Terms(base=base, numerator=_corrections(choices), denominator=choices.importance)


def switch_doubly_robust(choices: Choices, largest: float) -> Terms:
    """`doubly_robust`, but decisions that would count more than `largest` are left to the prediction.

    Source: Wang, Agarwal and Dudik, "Optimal and adaptive off-policy evaluation in contextual bandits", ICML 2017,
    section 4 (SWITCH-DR).
    """
    base = row_sums(choices.target, choices.prediction)
    return Terms(base=base, numerator=_corrections(choices) * (choices.importance <= largest))


def _corrections(choices: Choices) -> Floats:
    return row_sums(choices.ratio, np.subtract(choices.loss, choices.prediction))


def _every(largest: float) -> tuple[Estimator, ...]:
    """A new estimator is added here, and the laws in tests/laws then hold it."""
    clipped, switched = partial(clipped_ips, largest=largest), partial(switch_doubly_robust, largest=largest)

    def corrected(most: float) -> float:
        return 1.0 + 2.0 * most

    return (
        Estimator(name="on_policy", terms=on_policy, width=lambda _: 1.0),
        Estimator(name="ips", terms=ips, width=lambda most: most),
        Estimator(name="snips", terms=snips, width=lambda _: None),
        Estimator(name="clipped_ips", terms=clipped, width=lambda most: min(largest, most), covers=False),
        Estimator(name="dm", terms=direct_method, width=lambda _: 1.0, covers=False),
        Estimator(name="dr", terms=doubly_robust, width=corrected),
        Estimator(name="sndr", terms=self_normalized_doubly_robust, width=lambda _: None),
        Estimator(name="switch_dr", terms=switched, width=lambda most: corrected(min(largest, most)), covers=False),
    )


ESTIMATORS = tuple(estimator.name for estimator in _every(1.0))
"""Names of all estimators."""


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
    names: Sequence[str] = ESTIMATORS, *, decisions: int, largest: float | None = None
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
        InvalidSetting: `largest` is below 1: the logged policy itself would be cut.
    """
    bound = largest_weight(decisions) if largest is None else largest
    if not bound >= 1.0:
        raise InvalidSetting(f"largest is {largest!r}: give the most that a loss may count, at least 1")
    every = {estimator.name: estimator for estimator in _every(bound)}
    unknown = [name for name in names if name not in every]
    if unknown:
        raise UnknownName(f"estimator {unknown[0]!r}: use some of {', '.join(ESTIMATORS)}")
    return tuple(every[name] for name in names)
