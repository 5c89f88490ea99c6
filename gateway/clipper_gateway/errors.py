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

from clipper_agents.control.errors import RefusedChange, RestoreBrokenOff, StaleRevision, UnusableState, WriteContention
from clipper_agents.dead_letters.reader import NoSuchLetter
from clipper_agents.observability.logging import event
from clipper_stream.client import InvalidFeedback, InvalidQuery, PredictionTimeout, RecordTooLarge
from clipper_stream.client.sender import MOST_RECORD_BYTES
from clipper_stream.errors import ClipperError, SetupError

logger = logging.getLogger(__name__)

_Code = grpc.StatusCode
STATUSES: dict[int, tuple[grpc.StatusCode, str]] = {
    400: (_Code.INVALID_ARGUMENT, "The request is not what it should be: `error` has the field, its value, its bound."),
    401: (_Code.UNAUTHENTICATED, "There are no credentials, or they are not valid."),
    403: (_Code.PERMISSION_DENIED, "The caller may not do this, or not with this application, or not from this site."),
    404: (_Code.NOT_FOUND, "There is no such application, version or query."),
    405: (_Code.UNIMPLEMENTED, "The path takes no such method."),
    408: (_Code.DEADLINE_EXCEEDED, "The message of a call was not sent, or its answer not taken, in time."),
    409: (_Code.ALREADY_EXISTS, "An action of the console cannot be done, or what it was decided on has changed."),
    413: (_Code.RESOURCE_EXHAUSTED, "The body, or the record that it becomes, is too large, or too long to decode."),
    415: (_Code.INVALID_ARGUMENT, "The body has another content type, or a content encoding."),
    422: (_Code.FAILED_PRECONDITION, "The query's id stands for another query already."),
    429: (
        _Code.RESOURCE_EXHAUSTED,
        "The caller's rate or a share is used up, or too many calls of the application wait.",
    ),
    431: (_Code.RESOURCE_EXHAUSTED, "The headers are too large or too many; this response has no body."),
    500: (_Code.INTERNAL, "A defect of the gateway: its log has it under the request's id."),
    503: (
        _Code.UNAVAILABLE,
        "Kafka or the token issuer is away, others hold all, or a `strict` answer was the default.",
    ),
    504: (_Code.DEADLINE_EXCEEDED, "No answer came in time. It may still come: ask for it by `query_id`."),
}
"""What each status of a refusal means, and the code that a call of gRPC ends with instead."""


_STATUSES: tuple[tuple[int, tuple[type[ClipperError], ...]], ...] = (
    (400, (InvalidQuery, InvalidFeedback)),
    (404, (NoSuchLetter,)),
    (409, (RefusedChange, StaleRevision, UnusableState)),
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
        return STATUSES[self.status][0]

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


def refusal_of(error: BaseException) -> Refusal:
    """Return the refusal that an error is; one that nobody expected is a defect."""
    match error:
        case Refusal():
            return error
        case PredictionTimeout():
            text = "no answer came in time: it may still come, ask for it by the query's id"
            return Refusal(504, text, query_id=error.query_id, reason="late")
        case RecordTooLarge():
            return Refusal(413, f"the record is larger than {MOST_RECORD_BYTES} bytes, Kafka's limit: send fewer rows")
        case _ if told := [status for status, kinds in _STATUSES if isinstance(error, kinds)]:
            return Refusal(told[0], str(error))
        case SetupError():
            # the address and the user name of Kafka are the operator's business: they go to the log
            return Refusal(503, "Kafka does not answer this gateway now: try again", retry_after_s=1.0)
    return Refusal(500, "a defect of this gateway: its log has it")


def logged_refusal(error: Exception, request_id: str) -> Refusal:
    """Return the refusal that an error is; what the caller is not told goes to the log."""
    refusal = refusal_of(error)
    if not isinstance(error, ClipperError):
        logger.error("a call failed request_id=%s", request_id, exc_info=error)
        return Refusal(500, f"{refusal} under {request_id}")
    if refusal.status >= 500 and refusal is not error:  # noqa: PLR2004 - of HTTP
        event(logger, "a call failed", logging.WARNING, status=refusal.status, request_id=request_id, error=error)
    return refusal
