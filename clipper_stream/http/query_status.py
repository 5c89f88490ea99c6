"""What a gateway says about one query, and its clients read."""

import msgspec

from clipper_topics.feedback import Feedback
from clipper_topics.prediction import Prediction


class FeedbackReport(Feedback, kw_only=True, omit_defaults=True):
    """One feedback about a query, and what became of it."""

    outcome: str | None = None
    """A key of `clipper_topics.feedback.OUTCOMES`; absent: not known, or not read yet."""
    explanation: str | None = None
    """What is wrong with it, in words."""


class QueryStatus(msgspec.Struct, omit_defaults=True):
    """What the logs have about a query."""

    query_id: str
    prediction: Prediction | None = None
    """The answer with its decision; absent while it is being decided."""
    feedback: list[FeedbackReport] = []
    complete: bool = True
    """False when there was more in the logs than was read."""
