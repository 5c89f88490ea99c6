"""What an estimator is: a rule that gives each decision its part in the value."""

from dataclasses import dataclass
from typing import ClassVar, Protocol

from clipper_stream.evaluation.estimators.propensity_matrices import Choices
from clipper_stream.evaluation.log.columns import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """Parts of n decisions; the value is mean(base) + sum(numerator) / sum(denominator).

    Every estimator has this form, so sums, merging and intervals are written once. What is None costs nothing.

    Attributes:
        base: (n,); None is 0 each.
        numerator: (n,); None is 0 each.
        denominator: (n,); None is 1 each, so that the quotient is a mean too.

    >>> import numpy as np
    >>> Terms(numerator=np.array([0.5, 0.0])).denominator is None
    True

    Source: Owen, "Monte Carlo theory, methods and examples", 2013, section 9.2 (both kinds of importance sampling).
    """

    base: Floats | None = None
    numerator: Floats | None = None
    denominator: Floats | None = None


class Estimator(Protocol):
    """A rule for the loss of a candidate. Implementations are frozen dataclasses of parameters."""

    name: ClassVar[str]
    """The registered name, for example `ips`."""
    predicts: ClassVar[bool]
    """Whether it needs predicted losses."""
    covers: ClassVar[bool]
    """Whether an interval covers the candidate's loss as often as it says, given support. Not where a prediction, or a
    bound, makes an error that more decisions do not show: benchmarks/results/coverage.md has the figures."""

    def terms(self, choices: Choices) -> Terms:
        """Parts of these decisions, each from its own row alone.

        Raises:
            InvalidSetting: predicted losses are needed and not there.
        """
        ...

    def width(self, largest_importance: float) -> float | None:
        """Largest possible distance between the terms of two decisions, losses being in [0, 1].

        Args:
            largest_importance: The most that a decision can count: `Support.largest_importance`.

        Returns:
            None for one that divides by what it sums: its terms alone are no estimate.
        """
        ...
