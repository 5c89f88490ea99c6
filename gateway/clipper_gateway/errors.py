"""Why a request is refused or fails, once for HTTP (RFC 9457) and gRPC.

request --> [size, time] --> [who] --> [decode] --> [in flight] --> topics --> answer
               413 408     401 403 429   400 415          429       503   504 422

Rules of this file:
- A message states the value, the bound and what to do next, and holds no key, no token and no header.
- A `Refusal` is the only error that a caller sees in words; whatever is asked of the gateway may raise one. Any other
  error is a defect, logged, and answered by 500.
"""

import http
import logging
from collections.abc import Mapping
from typing import Any

import grpc
import msgspec

from clipper_agents.control.errors import (
    NoSuchRestore,
    RefusedChange,
    RestoreBrokenOff,
    StaleRevision,
    UnusableState,
    WriteContention,
)
from clipper_agents.dead_letters.reader import NoSuchLetter
from clipper_agents.observability.logging import event
from clipper_stream.client import InvalidFeedback, InvalidQuery, PredictionTimeout, RecordTooLarge
from clipper_stream.errors import ClipperError, SetupError

logger = logging.getLogger(__name__)

_GRPC = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    401: grpc.StatusCode.UNAUTHENTICATED,
    403: grpc.StatusCode.PERMISSION_DENIED,
    404: grpc.StatusCode.NOT_FOUND,
    408: grpc.StatusCode.DEADLINE_EXCEEDED,
    409: grpc.StatusCode.ALREADY_EXISTS,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    422: grpc.StatusCode.FAILED_PRECONDITION,
    429: grpc.StatusCode.RESOURCE_EXHAUSTED,
    431: grpc.StatusCode.RESOURCE_EXHAUSTED,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


_STATUSES: tuple[tuple[int, tuple[type[ClipperError], ...]], ...] = (
    (400, (InvalidQuery, InvalidFeedback)),
    (404, (NoSuchLetter,)),
    (409, (RefusedChange, StaleRevision, NoSuchRestore, UnusableState)),
    (413, (RecordTooLarge,)),
    (503, (WriteContention, RestoreBrokenOff)),
)
"""Of errors whose message is for the caller."""


class Refusal(ClipperError):
    """A request that is not answered by a prediction."""

    def __init__(
        self,
        status: int,
        error: str,
        *,
        retry_after_s: float | None = None,
        headers: Mapping[str, str] | None = None,
        query_id: str | None = None,
        reason: str | None = None,
    ) -> None:
        super().__init__(error)
        self.status, self.query_id, self.reason = status, query_id, reason
        self.headers = dict(headers or {})
        if retry_after_s is not None:
            self.headers["retry-after"] = str(max(1, round(retry_after_s)))

    @property
    def grpc_code(self) -> grpc.StatusCode:
        """Return the status of a gRPC call."""
        return _GRPC.get(self.status, grpc.StatusCode.INTERNAL)

    def body(self) -> bytes:
        """Return the response's body: `application/problem+json`, with the field `error` that V2 clients read."""
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": http.HTTPStatus(self.status).phrase,
            "status": self.status,
            "error": str(self),
        }
        extra = {"query_id": self.query_id, "reason": self.reason}
        return msgspec.json.encode(problem | {name: value for name, value in extra.items() if value is not None})


def refusal_of(error: ClipperError) -> Refusal:
    """Return the refusal that an error of the client or of a record is."""
    match error:
        case Refusal():
            return error
        case PredictionTimeout():
            return Refusal(504, str(error), query_id=error.query_id, reason="late")
        case _ if told := [status for status, kinds in _STATUSES if isinstance(error, kinds)]:
            return Refusal(told[0], str(error))
        case SetupError():
            # the address and the user name of Kafka are the operator's business: they go to the log
            return Refusal(503, "Kafka does not answer this gateway now: try again", retry_after_s=1.0)
    return Refusal(500, "an error that this gateway does not know: see its log")


def logged_refusal(error: ClipperError) -> Refusal:
    """Return the refusal that an error is; what its caller is not told goes to the log."""
    refusal = refusal_of(error)
    if refusal.status >= 500 and refusal is not error:  # noqa: PLR2004 - of HTTP
        event(logger, "a call failed", logging.WARNING, status=refusal.status, error=error)
    return refusal
