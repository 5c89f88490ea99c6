"""What is sent to a gateway and what it answers, encoded and decoded without any I/O; a gateway checks what it gets."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import msgspec

from clipper_stream.answers import Answer, answer_of
from clipper_stream.errors import plain as printable
from clipper_stream.http.errors import BY_STATUS, GatewayUnavailable, HttpProblem, RequestRefused
from clipper_topics import codec
from clipper_topics.http_messages import QueryStatus
from clipper_topics.plain_values import UNENCODABLE, plain

T = TypeVar("T")


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


def read_answer(content: bytes, latency_s: float) -> Answer:
    """The answer that a body holds; raises as `read`."""
    return answer_of(read(codec.predictions.decode, content), latency_s=latency_s)


def problem_of(status: int, content: bytes, query_id: str | None) -> HttpProblem:
    """The error that an answer other than 2xx is; only words of a gateway are repeated."""
    try:
        found = _problems.decode(content)
    except (ValueError, RecursionError):
        found = _Problem("is this the URL of a gateway?")
    kind = BY_STATUS.get(status, RequestRefused if status // 100 == 4 else GatewayUnavailable)  # noqa: PLR2004
    text = f"the gateway answered {status}: {printable(found.error[:500])}"
    return kind(text, status=status, query_id=found.query_id or query_id)
