"""Estimators that predict losses: the direct method, and those that correct its prediction by what was seen."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clipper_stream.evaluation.estimators.estimator import Estimator, Terms
from clipper_stream.evaluation.estimators.importance_weighting import check_largest
from clipper_stream.evaluation.estimators.propensity_matrices import Choices, row_sums
from clipper_stream.evaluation.log.columns import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class DoublyRobust(Estimator):
    """Mean of sum(pi q) + sum(pi w (L - q)): unbiased whatever is predicted, of less variance where it is right.

    >>> DoublyRobust().width(20.0)
    41.0

    Source: Dudik, Langford and Li, "Doubly robust policy evaluation and learning", ICML 2011, section 3.
    """

    name: ClassVar[str] = "dr"
    predicts: ClassVar[bool] = True
    covers: ClassVar[bool] = True

    def terms(self, choices: Choices) -> Terms:
        return Terms(base=row_sums(choices.target, choices.prediction), numerator=corrections(choices))

    def width(self, largest_importance: float) -> float | None:
        return 1.0 + 2.0 * largest_importance


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfNormalizedDoublyRobust(Estimator):
    """Mean of sum(pi q), plus sum(pi w (L - q)) / sum(pi w): what `Snips` is to `Ips`.

    >>> SelfNormalizedDoublyRobust().width(20.0) is None
    True

    Source: Thomas and Brunskill, "Data-efficient off-policy policy evaluation for reinforcement learning", ICML 2016,
    section 4 (weighted doubly robust, of one step).
    """

    name: ClassVar[str] = "sndr"
    predicts: ClassVar[bool] = True
    covers: ClassVar[bool] = True

    def terms(self, choices: Choices) -> Terms:
        base = row_sums(choices.target, choices.prediction)
        return Terms(base=base, numerator=corrections(choices), denominator=choices.importance)

    def width(self, largest_importance: float) -> float | None:  # noqa: ARG002 (has none)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class SwitchDoublyRobust(Estimator):
    """`DoublyRobust`, but decisions that would count more than `largest` are left to the prediction.

    Attributes:
        largest: The most that a decision counts, >= 1; `registry.largest_weight` is the rule for its default.

    >>> SwitchDoublyRobust(largest=10.0).width(20.0)
    21.0

    Source: Wang, Agarwal and Dudik, "Optimal and adaptive off-policy evaluation in contextual bandits", ICML 2017,
    section 4 (SWITCH-DR).
    """

    name: ClassVar[str] = "switch_dr"
    predicts: ClassVar[bool] = True
    covers: ClassVar[bool] = False
    largest: float

    def __post_init__(self) -> None:
        check_largest(self.largest)

    def terms(self, choices: Choices) -> Terms:
        base = row_sums(choices.target, choices.prediction)
        return Terms(base=base, numerator=corrections(choices) * (choices.importance <= self.largest))

    def width(self, largest_importance: float) -> float | None:
        return 1.0 + 2.0 * min(self.largest, largest_importance)


def corrections(choices: Choices) -> Floats:
    """sum(pi w (L - q)), (n,)."""
    return row_sums(choices.ratio, np.subtract(choices.loss, choices.prediction))


@dataclass(frozen=True, slots=True, kw_only=True)
class DirectMethod(Estimator):
    """Mean of sum(pi q): of least variance, and exactly as wrong as the predictions, which no interval of it shows.

    >>> DirectMethod().predicts
    True

    Source: Dudik, Langford and Li, "Doubly robust policy evaluation and learning", ICML 2011, section 3.
    """

    name: ClassVar[str] = "dm"
    predicts: ClassVar[bool] = True
    covers: ClassVar[bool] = False

    def terms(self, choices: Choices) -> Terms:
        return Terms(base=row_sums(choices.target, choices.prediction))

    def width(self, largest_importance: float) -> float | None:  # noqa: ARG002 (predictions are in [0, 1], too)
        return 1.0
