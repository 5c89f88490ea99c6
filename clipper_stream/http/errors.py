"""What can go wrong between a call over HTTP and its answer, by whose fault.

call --> [encode] --> [send, again] --> gateway --> [read] --> HttpAnswer
            |               |              |           |
     RequestRefused  GatewayUnavailable  by status:  GatewayUnavailable, when no gateway writes so
                        401 403: AccessDenied      429: Overloaded      other 4xx: RequestRefused
                        504: AnswerTimeout         all others: GatewayUnavailable
"""

from clipper_stream.errors import ClipperError, RequestError, SetupError


class HttpProblem(ClipperError):
    """Root of these errors.

    Attributes:
        status: HTTP status of the answer; None when there was none.
        query_id: Id of the query, under which it can be asked again, or looked up.
    """

    def __init__(self, message: str, *, status: int | None = None, query_id: str | None = None) -> None:
        super().__init__(message)
        self.status, self.query_id = status, query_id


class RequestRefused(HttpProblem, RequestError):
    """The query or the feedback cannot be used as it is, or there is no such application or query."""


class Overloaded(HttpProblem, RequestError):
    """The gateway had no room for the call, at every attempt."""


class AnswerTimeout(HttpProblem, RequestError, TimeoutError):
    """The answer did not come in time; it may still be decided: ask for it by `query_id`."""


class AccessDenied(HttpProblem, SetupError):
    """The gateway does not know the key, or the key lacks the right or the application."""


class GatewayUnavailable(HttpProblem, SetupError):
    """The gateway cannot be reached, has no Kafka, or answers as no gateway does; or the client was closed."""


BY_STATUS: dict[int, type[HttpProblem]] = {401: AccessDenied, 403: AccessDenied, 429: Overloaded, 504: AnswerTimeout}
"""Errors of statuses that have one of their own."""
