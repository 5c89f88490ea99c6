"""The loop one writes by hand on confluent-kafka (librdkafka): consume a batch, one model call, produce each answer.

At least once: what was produced is flushed before the offsets are committed, once a second.
"""

import signal
import time
from collections.abc import Callable
from typing import Any

from common import BATCH, BOOTSTRAP, COMMIT_S, GROUP, LINGER_MS, PREDICTIONS, QUERIES, answers, decode, encode
from confluent_kafka import Consumer, KafkaException, Producer

CONSUMER = {"group.id": GROUP, "auto.offset.reset": "earliest", "enable.auto.commit": False}
PRODUCER = {"acks": "all", "linger.ms": LINGER_MS, "queue.buffering.max.messages": 500_000}


class Stopped(Exception):
    """SIGTERM has come."""


def stop(*_: object) -> None:
    raise Stopped


def check(error: Any, _: Any) -> None:
    if error is not None:
        raise KafkaException(error)


def main(topics: list[str], step: Callable[[Producer, list[Any]], bool]) -> None:
    """Run until SIGTERM; the step handles the records that were fetched, and says whether there were any."""
    signal.signal(signal.SIGTERM, stop)
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, **CONSUMER})
    only_errors = {"delivery.report.only.error": True}
    producer = Producer({"bootstrap.servers": BOOTSTRAP, **PRODUCER, **only_errors})
    consumer.subscribe(topics)
    committed_s, uncommitted = time.monotonic(), False
    try:
        while True:
            # waits for one record, then takes what is there: consume() with a time-out would wait for a full batch
            records = consumer.consume(1, 0.2)
            records += consumer.consume(BATCH - 1, 0) if records else []
            uncommitted = step(producer, records) or uncommitted
            if uncommitted and time.monotonic() - committed_s > COMMIT_S:
                producer.flush()
                consumer.commit(asynchronous=False)
                committed_s, uncommitted = time.monotonic(), False
    except Stopped:
        producer.flush()
    finally:
        consumer.close()


def score(producer: Producer, records: list[Any]) -> bool:
    good = [record for record in records if record.error() is None]
    if good:
        found = answers([decode(record.value()) for record in good])
        for record, answer in zip(good, found, strict=True):
            producer.produce(PREDICTIONS, encode(answer), record.key(), record.partition(), on_delivery=check)
        producer.poll(0)
    return bool(good)


if __name__ == "__main__":
    main([QUERIES], score)
