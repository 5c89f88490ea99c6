"""A topic with records, to see whether a broker keeps them."""

from confluent_kafka.admin import AdminClient, NewTopic
from e2e.any_client import AnyClient

TOPIC = "greetings"


def create(bootstrap: str) -> None:
    # librdkafka says on stderr, as information, that it drops events which nobody asked for
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
    admin.create_topics([NewTopic(TOPIC, 1, 1)])[TOPIC].result(60)


def produce(bootstrap: str, value: bytes = b"hello") -> None:
    AnyClient(bootstrap).send(TOPIC, value, partition=0)


def consume(bootstrap: str) -> list[bytes | None]:
    return [record.value for record in AnyClient(bootstrap).read(TOPIC)]
