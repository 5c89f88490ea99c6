"""Estimators by name, as the command line and a report name them.

Rules of this file:
- pi, w, L, q are `target`, `weight`, `loss`, `predicted` of `Choices`; sums run over the columns of a decision.
- The terms of a decision are made of its own row alone.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from clipper_stream.errors import UnknownName
from clipper_stream.evaluation.estimators.block_sums import BlockSums, Terms
from clipper_stream.evaluation.estimators.propensity_matrices import Choices, row_sums
from clipper_stream.evaluation.log.columns import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimator:
    """A rule that gives each decision its part in the loss of a candidate.

    Attributes:
        name: The registered name, for example `ips`.
        terms: Parts of n decisions. Raises InvalidSetting where predicted losses are needed and not there.
        covers: Whether an interval covers the candidate's loss as often as it says, given support. Not where a
            prediction makes an error that more decisions do not show: benchmarks/results/coverage.md has
            the figures.

    >>> [one.covers for one in make_estimators(["dm", "dr"])]
    [False, True]
    """

    name: str
    terms: Callable[[Choices], Terms]
    covers: bool = True

    def sums(self, choices: Choices) -> BlockSums:
        return BlockSums.of(self.terms(choices), choices.block)


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


def direct_method(choices: Choices) -> Terms:
    """Mean of sum(pi q): of least variance, and exactly as wrong as the predictions, which no interval of it shows.

    Source: Dudik, Langford and Li, "Doubly robust policy evaluation and learning", ICML 2011, section 3.
    """
    return Terms(base=row_sums(choices.target, choices.prediction))


def doubly_robust(choices: Choices) -> Terms:
    """Mean of sum(pi q) + sum(pi w (L - q)): unbiased whatever is predicted, of less variance where it is right."""
    return Terms(base=row_sums(choices.target, choices.prediction), numerator=_corrections(choices))


def self_normalized_doubly_robust(choices: Choices) -> Terms:
    """Mean of sum(pi q), plus sum(pi w (L - q)) / sum(pi w): what `snips` is to `ips`.

    Source: Thomas and Brunskill, "Data-efficient off-policy policy evaluation for reinforcement learning", ICML 2016,
    section 4 (weighted doubly robust, of one step).
    """
    base = row_sums(choices.target, choices.prediction)
    return Terms(base=base, numerator=_corrections(choices), denominator=choices.importance)


def _corrections(choices: Choices) -> Floats:
    return row_sums(choices.ratio, np.subtract(choices.loss, choices.prediction))


_EVERY = {
    estimator.name: estimator
    for estimator in (
        Estimator(name="on_policy", terms=on_policy),
        Estimator(name="ips", terms=ips),
        Estimator(name="snips", terms=snips),
        Estimator(name="dm", terms=direct_method, covers=False),
        Estimator(name="dr", terms=doubly_robust),
        Estimator(name="sndr", terms=self_normalized_doubly_robust),
    )
}
"""A new estimator is added here, and the laws in tests/laws then hold it."""
ESTIMATORS = tuple(_EVERY)
"""Names of all estimators."""


def make_estimators(names: Sequence[str] = ESTIMATORS) -> tuple[Estimator, ...]:
    """The estimators of these names, by default all of `ESTIMATORS`.

    >>> [estimator.name for estimator in make_estimators(["ips", "dr"])]
    ['ips', 'dr']

    Raises:
        UnknownName: there is no such estimator.
    """
    unknown = [name for name in names if name not in _EVERY]
    if unknown:
        raise UnknownName(f"estimator {unknown[0]!r}: use some of {', '.join(ESTIMATORS)}")
    return tuple(_EVERY[name] for name in names)
