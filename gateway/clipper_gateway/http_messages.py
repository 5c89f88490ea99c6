"""Bodies that the gateway's HTTP API takes and that are no records of topics.

Rules of this file:
- A field that is misspelt in a question is an error, which names it.
- Fields that a query's record has too are bounded as there: the OpenAPI document takes those bounds from `Query`.
- Other bounds stand here for the document alone, unless msgspec enforces them: the gateway's messages say more.

Source: Open Inference Protocol V2, "HTTP/REST"; RFC 9457.
"""

from typing import Annotated, Any

import msgspec
from msgspec import Meta

_Length = Annotated[int, Meta(extra_json_schema={"minimum": 1})]


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


# --- Open Inference Protocol V2 ---------------------------------------------------------------------------------------
class InputTensor(msgspec.Struct, kw_only=True):
    """Rows of a question, the first dimension."""

    name: Annotated[str, Meta(extra_json_schema={"const": "input"})]
    """There is one input."""
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
