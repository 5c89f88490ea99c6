"""What can go wrong between a call over HTTP and its answer, by whose fault.

call --> [encode] --> [send, again] --> gateway --> [read] --> HttpAnswer
            |               |              |           |
     RequestRefused  GatewayUnavailable  by status:  GatewayUnavailable, when no gateway writes so
                        401 403: AccessDenied      429: Overloaded      other 4xx: RequestRefused
                        504: AnswerTimeout         all others: GatewayUnavailable
"""

from clipper_stream.errors import ClipperError, RequestError, SetupError


class HttpProblem(ClipperError):
    """Root of the errors of this package.

    Attributes:
        status: HTTP status of the answer; None when there was none.
        query_id: Id of the query, under which it can be asked again, or looked up.
        retry_s: Seconds after which the gateway wants to be asked again, where it says so.
    """

    def __init__(
        self, message: str, *, status: int | None = None, query_id: str | None = None, retry_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.query_id, self.retry_s = status, query_id, retry_s


class RequestRefused(HttpProblem, RequestError):
    """The query or the feedback cannot be used as it is, or there is no such application or query."""


class Overloaded(HttpProblem, RequestError):
    """The gateway had no room for the call, at every attempt."""


class AnswerTimeout(HttpProblem, RequestError, TimeoutError):
    """The answer did not come in time; it may still be decided: ask for it by `query_id`."""


class AccessDenied(HttpProblem, SetupError):
    """The gateway does not know the key, or the key lacks the right or the application."""


class GatewayUnavailable(HttpProblem, SetupError):
    """The gateway cannot be reached, has no Kafka, or answers as no gateway does; or the client is not open."""


_CLASSES: dict[int, type[HttpProblem]] = {401: AccessDenied, 403: AccessDenied, 429: Overloaded, 504: AnswerTimeout}
RETRIED = frozenset({None, 429, 502, 503})
"""Statuses of which a later attempt may have another: no connection, no room, a gateway that starts behind a proxy."""


def error_class(status: int) -> type[HttpProblem]:
    """The class of the error that a status is.

    >>> error_class(422).__name__, error_class(503).__name__
    ('RequestRefused', 'GatewayUnavailable')
    """
    refused = 400 <= status < 500  # noqa: PLR2004 - of HTTP
    return _CLASSES.get(status, RequestRefused if refused else GatewayUnavailable)
