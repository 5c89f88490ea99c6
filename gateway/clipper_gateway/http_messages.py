"""Bodies of the gateway's HTTP API that are no records of topics.

Rules of this file:
- A field that is misspelt in a question is an error, which names it; in an answer unknown fields are ignored.
- Fields that a query's record has too are bounded as there: the OpenAPI document takes those bounds from `Query`.
- Other bounds stand here for the document alone, unless msgspec enforces them: the gateway's messages say more.

Source: Open Inference Protocol V2, "HTTP/REST"; RFC 9457.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from clipper_topics.manifests import InputSpec
from clipper_topics.prediction import REASONS

_Length = Annotated[int, Meta(extra_json_schema={"minimum": 1})]
_Reason = Annotated[str, Meta(extra_json_schema={"examples": list(REASONS)})]


class PredictBody(msgspec.Struct, kw_only=True, forbid_unknown_fields=True):
    """A question to an application: one row (`input`) or several (`inputs`)."""

    input: Any = msgspec.UNSET
    """One row: numbers, nested numbers, text, or `{"base64": ...}`."""
    inputs: list[Any] | None = None
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


class Accepted(msgspec.Struct):
    """Feedback that was taken, to be counted later."""

    accepted: int
    """How many records were written."""


class ModelSummary(msgspec.Struct, kw_only=True):
    """What callers may know of a version of a model."""

    name: str
    """Name of the model."""
    version: str
    """Version of the model."""
    runtime: str
    """What runs it."""
    input: InputSpec
    """What one row of input looks like."""
    colocated: bool
    """Whether routers run it in their own processes."""
    retired: bool
    """Whether it is served no more."""


class LiveReport(msgspec.Struct):
    """Answer of a process that lives."""

    live: bool


class ReadyReport(msgspec.Struct):
    """Whether the gateway serves."""

    ready: bool
    reasons: list[str]
    """Why it does not; empty when it does."""


class Problem(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Why a request was refused or failed (RFC 9457)."""

    type: str
    """Always `about:blank`: the status says which kind of problem this is."""
    title: str
    """The status in words."""
    status: int
    """The response's status."""
    error: str
    """What went wrong, the bound, and what to do next."""
    query_id: str | None = None
    """Of the query, where there is one already."""
    reason: _Reason | None = None
    """Why the default output was given, in a word; a reader must expect new ones."""


# --- Open Inference Protocol V2 ---------------------------------------------------------------------------------------
class InputTensor(msgspec.Struct, kw_only=True):
    """Rows of a question, the first dimension."""

    name: str
    """Any name."""
    datatype: str
    """Type of the values; `BYTES` for text, binary and JSON."""
    shape: list[_Length]
    """Lengths, rows first; one numeric row alone may come without its dimension."""
    parameters: dict[str, Any] | None = None
    """`binary_data_size`: its values are so many bytes behind the JSON. `content_type`: `base64` for binary rows."""
    data: list[Any] | None = None
    """The values, flat in row-major order or nested as the shape; absent when they are binary."""


class RequestedOutput(msgspec.Struct, kw_only=True):
    """An output that is asked for."""

    name: Annotated[str, Meta(extra_json_schema={"const": "output"})]
    """There is one output."""
    parameters: dict[str, Any] | None = None
    """`binary_data`: whether its values come as bytes behind the JSON."""


class InferenceRequest(msgspec.Struct, kw_only=True):
    """A question to an application, as a model of the protocol."""

    inputs: Annotated[list[InputTensor], Meta(extra_json_schema={"minItems": 1, "maxItems": 1})]
    """One tensor, whose rows are one query."""
    id: str | None = None
    """Comes back in the answer; the query's id is the parameter `query_id`."""
    parameters: dict[str, Any] | None = None
    """Those of a query, and `binary_data_output`: whether the outputs come as bytes behind the JSON."""
    outputs: list[RequestedOutput] | None = None
    """Absent: the only one there is."""


class OutputTensor(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The outputs of an answer, rows first."""

    name: str
    datatype: str
    shape: list[int]
    data: list[Any] | None = None
    """The values, flat in row-major order; absent when they are binary."""
    parameters: dict[str, Any] | None = None
    """`binary_data_size`, and `content_type` `json` where each value is a JSON text."""


class InferenceResponse(msgspec.Struct, kw_only=True, omit_defaults=True):
    """The answer to a question of the protocol."""

    model_name: str
    """Name of the application."""
    model_version: str
    """Its revision."""
    id: str | None = None
    """As in the question."""
    parameters: dict[str, Any]
    """`query_id`, `confidence`, `default`, `models`, `latency_ms`, `policy`, and `reason` of a default output."""
    outputs: list[OutputTensor]
    """One tensor, `output`."""


class TensorMetadata(msgspec.Struct, kw_only=True):
    """What a tensor of an application looks like; -1 for a length that is open."""

    name: str
    datatype: str
    shape: list[int]


class ModelMetadata(msgspec.Struct, kw_only=True):
    """An application, as a model of the protocol."""

    name: str
    versions: list[str]
    """Revision of the application."""
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]
    """A guess: what the models give is stated in each answer."""


class ModelReady(msgspec.Struct):
    """Whether a version that may answer for the application is served."""

    name: str
    ready: bool


class ServerMetadata(msgspec.Struct, kw_only=True):
    """The server of the protocol."""

    name: str
    version: str
    extensions: list[str]


EXAMPLES: dict[str, dict[str, Any]] = {
    "PredictBody": {"input": [0.0, 0.5, 1.0], "query_id": "order-7"},
    "Feedback": {"query_id": "order-7", "application": "digits", "label": 3},
    "InferenceRequest": {"inputs": [{"name": "input", "datatype": "FP32", "shape": [1, 3], "data": [0.0, 0.5, 1.0]}]},
}
"""Of what clients send, by struct."""
