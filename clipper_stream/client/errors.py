"""What can go wrong between a call and its answer, by whose fault.

call --> [check, encode] --> [send] --> router --> [read] --> Answer
              |                |          |           |
   InvalidQuery, RecordTooLarge|  PredictionTimeout   |
   InvalidFeedback       BrokerUnavailable      BrokerUnavailable
QueryRefused: the router answered with the default, because the query is at fault
credentials, certificates or rights that are not enough, at any of these: AccessRefused
a call before `open` or after `close`: ClientClosed
"""

from clipper_stream.answers import Answer
from clipper_stream.errors import RequestError, SetupError


class InvalidQuery(RequestError):
    """The query cannot be asked as it is; nothing was sent."""


class InvalidFeedback(RequestError):
    """The feedback cannot be given as it is, or nothing says which partition its query is in; nothing was sent."""


class RecordTooLarge(RequestError):
    """The record is larger than Kafka takes; nothing was sent."""


class QueryRefused(RequestError):
    """The query was answered with the default, because its input, application or a model that it names is wrong.

    Attributes:
        answer: The answer, with the reason.
    """

    def __init__(self, answer: Answer) -> None:
        super().__init__(f"{answer.reason}: {answer.explanation}")
        self.answer = answer


class PredictionTimeout(RequestError, TimeoutError):
    """The query is in Kafka, but its answer did not come in time; it may still come, nobody waits for it.

    Attributes:
        query_id: Of the query.
    """

    def __init__(self, message: str, query_id: str) -> None:
        super().__init__(message)
        self.query_id = query_id


class BrokerUnavailable(SetupError):
    """Kafka cannot be reached, has no such topics, did not acknowledge a record, or stopped delivering answers."""


class AccessRefused(SetupError):
    """Kafka answers, but does not let us in: a password, a certificate or a right has to be changed first."""


class ClientClosed(SetupError):
    """The client is not open, or was closed while the call waited."""
