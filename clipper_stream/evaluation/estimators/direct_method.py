"""The direct method: what a model of the losses predicts for the candidate."""

from dataclasses import dataclass
from typing import ClassVar

from clipper_stream.evaluation.estimators.estimator import Estimator, Terms
from clipper_stream.evaluation.estimators.propensity_matrices import Choices, row_sums


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
