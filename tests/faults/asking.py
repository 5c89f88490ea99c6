"""Queries at a rate, whatever becomes of them."""

import threading
import time
from types import TracebackType
from typing import Self

from confluent_kafka import Producer

SLICE_S = 0.01


class Asking:
    """Asks at a rate, in a thread of its own, for the time of the block.

    Args:
        bootstrap: Of the Kafka.
        topic: The queries topic.
        application: Who asks.
        rate_per_s: Queries a second.
        value: What is sent instead of a query that can be answered.
        partition: Where all of it goes; absent: anywhere.
    """

    def __init__(
        self,
        bootstrap: str,
        topic: str,
        application: str,
        rate_per_s: float,
        value: bytes | None = None,
        partition: int = -1,
    ) -> None:
        self.asked = 0
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "linger.ms": 5,
                "partitioner": "murmur2_random",
                "message.max.bytes": 2_000_000,
            }
        )
        self._topic, self._rate_per_s, self._partition = topic, rate_per_s, partition
        self._value = value or b'{"application": "%s", "input": [1, 2, 3]}' % application.encode()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask)

    def _ask(self) -> None:
        began_s = time.monotonic()
        while not self._over.wait(SLICE_S):
            due = int((time.monotonic() - began_s) * self._rate_per_s)
            while self.asked < due:
                try:
                    self._producer.produce(self._topic, self._value, partition=self._partition)
                except BufferError:  # the broker is slower than we are: so be it
                    self._producer.poll(0.1)
                else:
                    self.asked += 1
            self._producer.poll(0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()
        assert self._producer.flush(60) == 0
