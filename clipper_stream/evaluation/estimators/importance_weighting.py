"""Estimators that weigh each known loss by how much more often the candidate would have chosen it.

Rules of this file:
- pi, w, L are `target`, `weight`, `loss` of `Choices`; sums run over the columns of a decision.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.estimator import Estimator, Terms
from clipper_stream.evaluation.estimators.propensity_matrices import Choices, row_sums


@dataclass(frozen=True, slots=True, kw_only=True)
class Ips(Estimator):
    """Mean of sum(pi w L), inverse propensity scoring: unbiased, and of large variance where weights are large.

    A decision without weight counts as a loss of 0, so it is too low where the candidate does what was never asked.

    >>> Ips().width(20.0)
    20.0

    Source: Horvitz and Thompson, "A generalization of sampling without replacement from a finite universe", J. Am.
    Stat. Assoc. 47, 1952.
    """

    name: ClassVar[str] = "ips"
    predicts: ClassVar[bool] = False
    covers: ClassVar[bool] = True

    def terms(self, choices: Choices) -> Terms:
        return Terms(numerator=row_sums(choices.ratio, choices.loss))

    def width(self, largest_importance: float) -> float | None:
        return largest_importance


@dataclass(frozen=True, slots=True, kw_only=True)
class Snips(Estimator):
    """sum(pi w L) / sum(pi w), self-normalised: a weighted mean of known losses, so it lies between them.

    Biased by the order of 1 / n, and mostly of far less variance than `Ips`; where the candidate does what was never
    asked, it is the loss of the rest.

    >>> Snips().width(20.0) is None
    True

    Source: Swaminathan and Joachims, "The self-normalized estimator for counterfactual learning", NeurIPS 2015.
    """

    name: ClassVar[str] = "snips"
    predicts: ClassVar[bool] = False
    covers: ClassVar[bool] = True

    def terms(self, choices: Choices) -> Terms:
        ratio = choices.ratio
        return Terms(numerator=row_sums(ratio, choices.loss), denominator=choices.importance)

    def width(self, largest_importance: float) -> float | None:  # noqa: ARG002 (has none)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClippedIps(Estimator):
    """Mean of min(sum(pi w L), largest): of bounded variance, and too low by what is cut off.

    Attributes:
        largest: The most that a decision counts, >= 1; `registry.largest_weight` is the rule for its default.

    >>> ClippedIps(largest=10.0).width(20.0)
    10.0

    Source: Ionides, "Truncated importance sampling", J. Comput. Graph. Stat. 17, 2008.
    """

    name: ClassVar[str] = "clipped_ips"
    predicts: ClassVar[bool] = False
    covers: ClassVar[bool] = False
    largest: float

    def __post_init__(self) -> None:
        check_largest(self.largest)

    def terms(self, choices: Choices) -> Terms:
        importance = choices.importance
        kept = np.divide(self.largest, importance, out=np.ones_like(importance), where=importance > self.largest)
        return Terms(numerator=row_sums(choices.ratio, choices.loss) * kept)

    def width(self, largest_importance: float) -> float | None:
        return min(self.largest, largest_importance)


def check_largest(largest: float) -> None:
    """Refuse a bound under which the logged policy itself would be cut.

    Raises:
        InvalidSetting: it is below 1, or no number.
    """
    if not largest >= 1.0:
        raise InvalidSetting(f"largest is {largest!r}: give the most that a loss may count, at least 1")
