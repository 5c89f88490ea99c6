"""The mean loss of what was answered: no estimate, but what a candidate is compared with."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from clipper_stream.evaluation.estimators.estimator import Estimator, Terms
from clipper_stream.evaluation.estimators.propensity_matrices import Choices


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPolicy(Estimator):
    """Mean of the answers' losses, whatever the candidate; answers without a known loss are left out.

    >>> OnPolicy().width(20.0)
    1.0

    Source: Sutton and Barto, "Reinforcement learning", 2nd edition 2018, section 5.1.
    """

    name: ClassVar[str] = "on_policy"
    predicts: ClassVar[bool] = False
    covers: ClassVar[bool] = True

    def terms(self, choices: Choices) -> Terms:
        known = ~np.isnan(choices.answer_loss)
        if known.all():
            return Terms(numerator=choices.answer_loss)
        return Terms(numerator=np.where(known, choices.answer_loss, 0.0), denominator=known.astype(float))

    def width(self, largest_importance: float) -> float | None:  # noqa: ARG002 (whatever the candidate)
        return 1.0
