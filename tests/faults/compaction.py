"""Compaction by the broker within seconds instead of days, and seen rather than waited for."""

from collections import Counter

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from e2e.any_client import AnyClient
from e2e.programs import until

CLEANER = {"log.cleaner.backoff.ms": "200"}
"""Of every broker: how long the cleaner rests when there is nothing to do, 15 s by default."""


def compact_often(client: AnyClient, topic: str, segment_ms: int = 100) -> None:
    """Have the brokers compact the topic all the time from now on, except the segment that is written."""
    segments = {"segment.ms": str(segment_ms), "min.cleanable.dirty.ratio": "0.01"}
    admin = AdminClient({"bootstrap.servers": client.bootstrap})
    brokers = [(ResourceType.BROKER, str(number), CLEANER) for number in admin.list_topics(timeout=60).brokers]
    for kind, name, config in (*brokers, (ResourceType.TOPIC, topic, segments)):
        entries = [ConfigEntry(*one, incremental_operation=AlterConfigOpType.SET) for one in config.items()]
        (done,) = admin.incremental_alter_configs([ConfigResource(kind, name, incremental_configs=entries)]).values()
        done.result(60)


def compact(client: AnyClient, topic: str) -> None:
    """Have all records of a topic compacted that nobody writes: of each key one is left when this returns.

    A transaction that is taken back makes each partition begin a new segment, and is seen by no reader.
    """
    compact_often(client, topic)
    roll(client, topic)
    until(f"one record a key in {topic}", lambda: is_compacted(client, topic))


def roll(client: AnyClient, topic: str) -> None:
    """Begin a new segment in each partition."""
    producer = Producer({"bootstrap.servers": client.bootstrap, "transactional.id": f"{topic} roll"})
    producer.init_transactions(60)
    producer.begin_transaction()
    for partition in range(client.partitions(topic)):
        producer.produce(topic, b"", b"", partition)
    producer.flush(60)
    producer.abort_transaction(60)


def is_compacted(client: AnyClient, topic: str) -> bool:
    """Whether no key stands twice in a partition."""
    return max(Counter((one.partition, one.key) for one in client.read(topic)).values(), default=1) == 1
