"""A topic with records, to see whether a broker keeps them, and whether its process has ended."""

from pathlib import Path

from confluent_kafka.admin import AdminClient, NewTopic
from e2e.any_client import AnyClient

TOPIC = "greetings"


def create(bootstrap: str, replication: int = 1) -> None:
    # librdkafka says on stderr, as information, that it drops events which nobody asked for
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 4})
    admin.create_topics([NewTopic(TOPIC, 1, replication)])[TOPIC].result(60)


def produce(bootstrap: str, value: bytes = b"hello") -> None:
    AnyClient(bootstrap).send(TOPIC, value, partition=0)


def consume(bootstrap: str) -> list[bytes | None]:
    return [record.value for record in AnyClient(bootstrap).read(TOPIC)]


def state_of(pid: int) -> str:
    """The letter of proc(5); `Z`, too, when there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"


def is_gone(pid: int) -> bool:
    return state_of(pid) == "Z"
