"""Writes the newest value of each key to a topic, from a thread of its own, so that nobody waits for a broker.

Rules of this file:
- Only the newest value of a key is written: one that is outdated before it was written is dropped.
- While no broker answers, values wait here and are tried again; only a missing right is told besides.
- The records of one key are written in order: each is acknowledged before the next is sent.
"""

import asyncio
import contextlib
import threading
from concurrent.futures import Future

from aiokafka.errors import KafkaError

from clipper_agents.kafka.clients import make_producer
from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.kafka.retry import RESTART_WAIT_S, is_outage, retry
from clipper_agents.kafka.topics import existing_topics
from clipper_stream.client.access import RIGHTS
from clipper_stream.client.kafka import stop
from clipper_stream.errors import SetupError
from clipper_topics.connection import KafkaConnection


class NewestRecords:
    """The records that one process has written to partition 0 of a topic; its thread begins with the first of them.

    With `checks_topic` no broker makes the topic on demand: one that is missing is waited for.

    Attributes:
        refused: Set to the error once this user turns out not to have the right to write here.
    """

    def __init__(self, kafka: KafkaConnection, topic: str, *, checks_topic: bool = False) -> None:
        self.refused: Future[None] = Future()
        self._kafka, self._topic, self._checks_topic = kafka, topic, checks_topic
        self._lock, self._written = threading.Lock(), threading.Event()
        self._written.set()
        self._due: dict[bytes, bytes | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._closing = self._given_up = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write_all()), name=topic, daemon=True)

    def write(self, key: bytes, value: bytes | None) -> None:
        """Write the value as soon as a broker accepts it; None takes the key's record away."""
        with self._lock:
            self._due[key] = value
            self._written.clear()
            if self._thread.ident is None:
                self._thread.start()
            self._ring()

    def wait_written(self, within_s: float) -> bool:
        """Wait until everything is written, at most this long, and return whether it is."""
        return self._written.wait(within_s)

    def close(self, within_s: float) -> bool:
        """Write what is left, for at most this long, and end; return whether everything was written.

        Nothing is waited for once a right turned out to be missing.
        """
        with self._lock:
            self._closing = True
            self._ring()
        if self._thread.ident is not None:
            self._thread.join(0.0 if self.refused.done() else within_s)
        self._given_up = True
        return self._written.is_set()

    def _ring(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the thread has just ended
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _write_all(self) -> None:
        with self._lock:
            self._loop = asyncio.get_running_loop()
        what = f"records of {self._topic} are not written yet"
        with contextlib.suppress(KafkaError, OSError, SetupError):
            await retry(what, self._write, wait_s=RESTART_WAIT_S, passes=self._passes)

    def _passes(self, error: Exception) -> bool:
        if isinstance(error, RIGHTS) and not self.refused.done():
            self.refused.set_exception(error)
        return not self._given_up and (is_outage(error) or isinstance(error, SetupError))

    async def _write(self) -> None:
        if self._checks_topic:
            checked_partitions(self._topic, (await existing_topics(self._kafka)).get(self._topic))
        producer = make_producer(self._kafka)
        try:
            await producer.start()
            while True:
                with self._lock:
                    due = dict(self._due)
                sent = [await producer.send(self._topic, value, key, partition=0) for key, value in due.items()]
                await asyncio.gather(*sent)
                with self._lock:
                    for key in [key for key, value in due.items() if self._due[key] is value]:
                        del self._due[key]
                    if not self._due:
                        self._written.set()
                        self._wake.clear()
                if not self._due and self._closing:
                    return
                await self._wake.wait()
        finally:
            await stop(producer)
