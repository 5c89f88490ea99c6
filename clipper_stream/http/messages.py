"""What is sent to a gateway and what it answers, encoded and decoded without any I/O; a gateway checks what it gets."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, TypedDict, TypeVar

import msgspec

from clipper_stream.errors import plain as printable
from clipper_stream.http.errors import BY_STATUS, GatewayUnavailable, HttpProblem, RequestRefused
from clipper_topics import codec
from clipper_topics.feedback import Feedback
from clipper_topics.plain_values import UNENCODABLE, plain
from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction

T = TypeVar("T")


class HttpOptions(TypedDict, total=False):
    """What a call may say beside its application and its input; each may be left out. See `HttpClient.predict`."""

    context: str | None
    deadline_ms: float | None
    models: Sequence[str] | None
    features: Sequence[float] | None
    timeout_s: float | None


class HttpTruth(TypedDict, total=False):
    """What a feedback says; exactly one of the three. See `HttpClient.feedback`."""

    label: Any
    loss: float
    reward: float


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpAnswer:
    """The answer to one query; the attributes are those of `clipper_stream.client.Answer`."""

    query_id: str
    application: str
    context: str | None
    output: Any
    outputs: list[Any] | None
    confidence: float
    default: bool
    reason: str | None
    explanation: str | None
    policy: PolicyRef | None = field(repr=False)
    models: tuple[ModelAnswer, ...]
    missing: tuple[Missing, ...] = field(repr=False)
    latency_s: float


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


class _Problem(msgspec.Struct):
    error: str
    query_id: str | None = None


queries = msgspec.json.Decoder(QueryStatus)
_problems = msgspec.json.Decoder(_Problem)


def body_of(given: Mapping[str, Any]) -> bytes:
    """The body with these fields; raises `RequestRefused` where JSON cannot hold one of them."""
    try:
        ready = {name: [*map(plain, value)] if name == "inputs" else plain(value) for name, value in given.items()}
        return msgspec.json.encode(ready)
    except UNENCODABLE as error:
        raise RequestRefused(f"the request cannot be written as JSON: {error}") from error


def read(decode: Callable[[bytes], T], content: bytes) -> T:
    """What a body holds; raises `GatewayUnavailable` where it cannot be decoded."""
    try:
        return decode(content)
    except (ValueError, RecursionError) as error:
        raise GatewayUnavailable(f"the answer cannot be read ({error}): is this the URL of a gateway?") from error


def read_answer(content: bytes, latency_s: float) -> HttpAnswer:
    """The answer that a body holds; raises as `read`."""
    prediction = read(codec.predictions.decode, content)
    values = {each.name: getattr(prediction, each.name, None) for each in fields(HttpAnswer)}
    found: dict[str, Any] = {name: None if value is msgspec.UNSET else value for name, value in values.items()}
    found |= {"models": tuple(prediction.models), "missing": tuple(prediction.missing), "latency_s": latency_s}
    return HttpAnswer(**found)


def problem_of(status: int, content: bytes, query_id: str | None) -> HttpProblem:
    """The error that an answer other than 2xx is; only words of a gateway are repeated."""
    try:
        found = _problems.decode(content)
    except (ValueError, RecursionError):
        found = _Problem("is this the URL of a gateway?")
    kind = BY_STATUS.get(status, RequestRefused if status // 100 == 4 else GatewayUnavailable)  # noqa: PLR2004
    text = f"the gateway answered {status}: {printable(found.error[:500])}"
    return kind(text, status=status, query_id=found.query_id or query_id)
