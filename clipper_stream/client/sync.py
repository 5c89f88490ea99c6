"""The client for code without an event loop, from any number of threads."""

from clipper_stream.blocking import BlockingClient, blocking
from clipper_stream.client.client import Client
from clipper_stream.client.errors import ClientClosed
from clipper_topics.codec import JSON
from clipper_topics.connection import KafkaConnection


class SyncClient(BlockingClient[Client]):
    """A client of one deployment whose calls block; it has the arguments, calls and errors of `Client`.

    with SyncClient("localhost:9092") as client:
        answer = client.predict("digits", [0.0, 0.5, 1.0])
        client.feedback(answer, label=3)
    """

    def __init__(
        self,
        kafka: str | KafkaConnection,
        *,
        prefix: str = "clipper",
        content_type: str = JSON,
        send_timeout_s: float = 5.0,
    ) -> None:
        client = Client(kafka, prefix=prefix, content_type=content_type, send_timeout_s=send_timeout_s)
        super().__init__(client, ClientClosed)

    predict = blocking(Client.predict)
    predict_many = blocking(Client.predict_many)
    predict_packed = blocking(Client.predict_packed)
    feedback = blocking(Client.feedback)
