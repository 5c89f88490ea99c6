"""What is asked of a log, and how sure the answer is to be."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.estimators.intervals import CONFIDENCE, check_confidence
from clipper_stream.evaluation.estimators.registry import ESTIMATORS
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.feedback.update import scale_of

Log: TypeAlias = Callable[[], Iterable[DecisionColumns]]
"""Begins to read a log again, from its first decision."""

SPANS = 48
"""Half an hour each, of a day."""
MOST_CONTEXTS = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """Settings of an evaluation.

    Attributes:
        confidence: Of every interval, in (0, 1).
        estimators: Names of those that are reported.
        seed: Of the bootstrap, and of what learning candidates draw.
        courses: How often a learning candidate goes through the log, each time with other draws, at least 1.
        spans: Into so many spans the time of the log is cut for plots, at least 1.
        contexts: Contexts that are compared one by one, those with the most decisions.
        loss: How labels were compared with outputs; results are told in the unit of the labels.

    >>> Question(confidence=0.9).estimators[:3]
    ('on_policy', 'ips', 'snips')

    Raises:
        InvalidSetting: a number out of its bounds.
    """

    confidence: float = CONFIDENCE
    estimators: tuple[str, ...] = ESTIMATORS
    seed: int = 0
    courses: int = 3
    spans: int = SPANS
    contexts: int = MOST_CONTEXTS
    loss: str = "zero_one"

    @property
    def unit(self) -> float:
        """What the loss 1 is in the unit of the labels, of squared losses in its square."""
        scale = scale_of(self.loss)
        return {"zero_one": 1.0, "squared": scale**2}.get(self.loss.partition(":")[0], scale)

    def __post_init__(self) -> None:
        check_confidence(self.confidence)
        for name in ("courses", "spans"):
            if getattr(self, name) < 1:
                raise InvalidSetting(f"{name} is {getattr(self, name)}: give at least 1")
