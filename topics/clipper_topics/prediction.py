"""What the router answers: one record on the predictions topic, which is also the decision log.

Rules of this file:
- Bounds are told in the schema, not enforced in decoding: a log that routers recover from is never refused for the
  last bit of a float.
- `query_id` is the first field, so that a reader of a shared topic finds it without decoding the rest.
"""

from typing import Annotated, Any

import msgspec

_Propensity = Annotated[float, msgspec.Meta(extra_json_schema={"exclusiveMinimum": 0, "maximum": 1})]
_Ratio = Annotated[float, msgspec.Meta(extra_json_schema={"minimum": 0, "maximum": 1})]

REASONS = {
    "late": "nothing arrived by the deadline",
    "arrived_late": "the query was read after its deadline, or too shortly before it for any model",
    "overloaded": "too many queries of the application wait already, and others need the room",
    "no_models": "the application has no model to ask",
    "errors": "every model asked failed on this input",
    "low_confidence": "the models agreed less than the application's threshold",
    "invalid_input": "the input does not fit the application's input spec",
    "unknown_application": "no such application is registered",
    "unknown_model": "a model named in the query is not a candidate of the application",
}
"""Every reason for a default output, with its meaning."""

REFUSALS = frozenset({"invalid_input", "unknown_application", "unknown_model"})
"""Reasons that are the query's own fault."""
LOW_CONFIDENCE = "low_confidence"
"""The reason of a default that is an answer: the models did answer."""
NAMED = "named"
"""Name of the policy where the query named its models: no policy chose."""

_Reason = Annotated[str, msgspec.Meta(extra_json_schema={"examples": list(REASONS)})]


class PolicyRef(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Which selection policy decided."""

    name: str
    """Name of the policy, for example `exp3`."""
    version: int = 1
    """Revision of the application's manifest under which the decision was made."""


class MissingRow(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One row of a query of several rows that a model did not answer."""

    row: int
    """Index of the row in the query."""
    reason: str
    """`late` (nothing arrived by the deadline) or `error` (the model failed on this row)."""
    explanation: str = ""
    """What the model said, when it failed."""


class ModelAnswer(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One model that was asked and answered in time, at least for one row."""

    model: str
    """Name of the model."""
    version: str
    """Version of the model."""
    propensity: _Propensity
    """Probability with which the policy chose to ask this model, in (0, 1]."""
    output: Any = msgspec.UNSET
    """The model's output for a query of one row."""
    outputs: list[Any] | msgspec.UnsetType = msgspec.UNSET
    """The model's outputs, one a row, for a query of several rows; null for a row that it did not answer."""
    missing_rows: list[MissingRow] = []
    """The rows that it did not answer, for a query of several rows."""
    latency_ms: float = 0.0
    """From the decision until the output was here, in milliseconds."""
    confidence: _Ratio | None = None
    """The model's own, in [0, 1], where it gives one; over several rows the mean."""
    cached: bool = False
    """True when every row came from the cache."""
    served: bool = True
    """False when its output does not count in the answer: it was asked for the log only (an audit), or first."""


class Missing(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One model that was asked and whose answer was not used."""

    model: str
    """Name of the model."""
    version: str
    """Version of the model."""
    propensity: _Propensity
    """Probability with which the policy chose to ask this model, in (0, 1]."""
    reason: str
    """`late` (nothing arrived by the deadline) or `error` (the model failed on this input)."""
    explanation: str = ""
    """What the model said, when it failed."""
    served: bool = True
    """False when the model was asked for the log only (an audit)."""


class Prediction(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to one query and the record of how it was decided."""

    query_id: str
    """The query's id."""
    application: str
    """The query's application."""
    context: str | None = None
    """The query's context."""
    output: Any = msgspec.UNSET
    """The combined output, for a query of one row."""
    outputs: list[Any] | msgspec.UnsetType = msgspec.UNSET
    """The combined outputs, one a row, for a query of several rows."""
    confidence: _Ratio = 0.0
    """Share of the asked models that agree with the answer, in [0, 1]; over several rows the least."""
    default: bool = False
    """True when the application's default output was given; `explanation` then says why."""
    reason: _Reason | None = None
    """Why the default was given, in a word; a reader must expect new ones."""
    explanation: str | None = None
    """Why the default was given, in words, with the value and the bound."""
    policy: PolicyRef | None = None
    """Who decided; absent when nothing was decided (an invalid query)."""
    served_propensity: _Propensity | None = None
    """Probability with which the policy chose exactly the models served; absent when nothing was decided."""
    models: list[ModelAnswer] = []
    """The models asked that answered in time, with the propensities of the decision."""
    missing: list[Missing] = []
    """The models asked whose answers were late or failed."""
    audited: bool = False
    """True when other models were asked for the log only; what they said follows on the audits topic."""
    features: list[float] = []
    """The query's features: given with it, or the first numbers of its input; those that a policy chose by."""
    query_offset: int = -1
    """Offset of the query in its partition (predictions have the same partition number)."""
    queried_at_ms: int = 0
    """Timestamp of the query's record, milliseconds since the epoch."""
    predicted_at_ms: int = 0
    """When the answer was decided, milliseconds since the epoch."""
    latency_ms: float = 0.0
    """`predicted_at_ms - queried_at_ms`."""
