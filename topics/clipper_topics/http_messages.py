"""Bodies of the gateway's HTTP API that are no records of topics.

Rules of this file:
- A field that is misspelt in a question is an error, which names it; in an answer unknown fields are ignored.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from clipper_topics.feedback import Feedback
from clipper_topics.prediction import Prediction
from clipper_topics.query import MOST_ROWS


class PredictBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A question to an application: one row (`input`) or several (`inputs`)."""

    input: Any = msgspec.UNSET
    """One row: numbers, nested numbers, text, or `{"base64": ...}`."""
    inputs: Annotated[list[Any], Meta(extra_json_schema={"minItems": 1, "maxItems": MOST_ROWS})] | None = None
    """Several rows, answered together by one decision."""
    query_id: str | None = None
    """An id of your own, as the header Idempotency-Key: the same request again has the same answer."""
    context: str | None = None
    """Whose weights to use: a user, a device."""
    deadline_ms: float | None = None
    """Answer within so many milliseconds; at most the application's objective counts."""
    models: list[str] | None = None
    """Ask exactly these models, `name` or `name:version`."""
    features: list[float] | None = None
    """Numbers that a policy such as `lin_ucb` chooses by."""
    strict: bool = False
    """Whether a default output is an error (503, with the reason) instead of an answer."""


class Accepted(msgspec.Struct, omit_defaults=True):
    """What was taken, to be answered or counted later."""

    query_id: str | None = None
    """Id to ask for the answer by."""
    application: str | None = None
    accepted: int | None = None
    """How many records were written."""


class FeedbackReport(Feedback, kw_only=True, omit_defaults=True):
    """One feedback about a query, and what became of it."""

    outcome: str | None = None
    """A key of `clipper_topics.feedback.OUTCOMES`; absent: not known, or not read yet."""
    explanation: str | None = None
    """What is wrong with it, in words."""


class QueryAnswer(msgspec.Struct, omit_defaults=True):
    """What the logs have about a query."""

    query_id: str
    prediction: Prediction | None = None
    """The answer with its decision; absent while it is being decided."""
    feedback: list[FeedbackReport] = []
    complete: bool = True
    """False when there was more in the logs than was read."""


class ClipperQuery(msgspec.Struct, kw_only=True):
    """A question as applications of Clipper (NSDI 2017) ask it."""

    input: Any = None
    """One row."""
    input_batch: list[Any] | None = None
    """Several rows, decided one by one."""
    uid: int | str | None = None
    """User: the query's context."""


class ClipperUpdate(msgspec.Struct, kw_only=True):
    """What Clipper's applications say about an input later."""

    label: Any
    """The true output."""
    input: Any = None
    """The row that it is about, without a `query_id`."""
    query_id: str | None = None
    """The query that it is about."""
    uid: int | str | None = None
    """User: the query's context."""
