"""What an application says about a query afterwards: the label, or what the answer was worth."""

import math
from dataclasses import dataclass
from typing import Any

from clipper_stream.errors import InvalidLabel


@dataclass(frozen=True, slots=True)
class Label:
    """The true output; for a query of several rows a list, one a row.

    >>> Label("cat").value
    'cat'

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5 (feedback).
    """

    value: Any


@dataclass(frozen=True, slots=True)
class GivenLoss:
    """What the answer cost, as the application reckons it.

    Attributes:
        value: Loss in [0, 1].

    Raises:
        InvalidLabel: the loss is no number in [0, 1].

    >>> GivenLoss.of_reward(0.75)
    GivenLoss(value=0.25)

    Source: Auer et al., "The nonstochastic multiarmed bandit problem", SIAM J. Comput. 32, 2002 (rewards in [0, 1]).
    """

    value: float

    def __post_init__(self) -> None:
        _check_unit("loss", self.value)

    @classmethod
    def of_reward(cls, reward: float) -> "GivenLoss":
        """The loss `1 - reward`.

        Raises:
            InvalidLabel: the reward is no number in [0, 1].
        """
        _check_unit("reward", reward)
        return cls(1.0 - reward)


FeedbackValue = Label | GivenLoss
"""What one feedback says."""


def _check_unit(name: str, value: Any) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not (number and 0.0 <= value <= 1.0):
        raise InvalidLabel(f"{name} is {value!r}: give a number in [0, 1]")
