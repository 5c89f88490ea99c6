"""Publishes how versions compare, for whoever looks on: the newest comparison of each version, now and then.

Rules of this file:
- Comparing and deciding never wait for it: what is due is written by a task of its own, once a broker takes it.
- A comparison that stays the same is written again each `AGAIN_S`: a young record says that a steward is at work.
- A topic or a right that is missing, and a Kafka that is away, are said once, until something was written again.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable

from clipper_agents.kafka.clients import make_producer, started
from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.topics import existing_topics
from clipper_agents.observability.logging import event
from clipper_stream.errors import SetupError
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.comparison import Comparison, comparison_key
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)

CHANGED_S = 5.0
"""At most so often is a comparison written that changes all the time."""
AGAIN_S = 60.0
RETRY_S = 10.0


class ComparisonReports:
    """The comparisons of one steward, on their way to the comparisons topic.

    >>> from clipper_topics.examples import COMPARISON
    >>> reports = ComparisonReports(KafkaConnection(bootstrap="localhost:9092"), Catalogue())
    >>> reports.put([COMPARISON], now_s=0.0); reports.put([COMPARISON], now_s=1.0); len(reports.due)
    1
    """

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue) -> None:
        self._kafka, self._topic = kafka, catalogue.comparisons
        self._last: dict[bytes, tuple[Comparison, float]] = {}
        self.due: dict[bytes, bytes | None] = {}
        """Values by key that are to be written; None: the version is not compared any more."""
        self._wake = asyncio.Event()

    def put(self, comparisons: Iterable[Comparison], now_s: float) -> None:
        """Have written what is due of all comparisons that there are, at this monotonic time in seconds."""
        found = {comparison_key(one.application, one.model): one for one in comparisons}
        for key in self._last.keys() - found.keys():
            del self._last[key]
            self.due[key] = None
        for key, one in found.items():
            before, at_s = self._last.get(key, (None, float("-inf")))
            if now_s - at_s >= (AGAIN_S if one == before else CHANGED_S):
                self._last[key] = one, now_s
                self.due[key] = codec.comparisons.encode(one)
        if self.due:
            self._wake.set()

    async def run(self, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep) -> None:
        """Write what is due, without end; `sleep` waits between two attempts."""
        said = False
        while True:
            await self._wake.wait()
            try:
                async for _ in self._written():
                    said = False
            except (SetupError, OSError) as error:
                if not said:
                    text = "comparisons are not published, decisions are made all the same"
                    event(logger, text, logging.WARNING, topic=self._topic, reason=error)
                said = True
            self._wake.set()
            await sleep(RETRY_S)

    async def _written(self) -> AsyncGenerator[int, None]:
        """How many records were written, each time that some were."""
        kafka, topic = self._kafka, self._topic
        checked_partitions(topic, (await existing_topics(kafka)).get(topic))  # no broker is to make it on demand
        async with started(kafka, make_producer(kafka, idempotent=False, compression_type="gzip")) as producer:
            while True:
                await self._wake.wait()
                self._wake.clear()
                due = dict(self.due)
                sent = [await producer.send(topic, value, key=key, partition=0) for key, value in due.items()]
                await asyncio.gather(*sent)
                for key in [key for key, value in due.items() if self.due.get(key) is value]:
                    del self.due[key]
                yield len(due)
