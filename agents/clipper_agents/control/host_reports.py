"""Writes host reports from a thread of its own, so that serving and supervising never wait for a broker.

Rules of this file:
- Only the newest report of a host is written: one that is outdated before it was written is dropped.
- While no broker answers, reports wait here and are tried again; only a missing right is reported to the caller.
- Reports of one key are written in order: each is acknowledged before the next is sent.
"""

import asyncio
import contextlib
import socket
import threading
import time
from concurrent.futures import Future
from textwrap import shorten

from aiokafka.errors import KafkaError

from clipper_agents.kafka.clients import make_producer
from clipper_agents.kafka.retry import RESTART_WAIT_S, is_outage, retry
from clipper_stream.client.access import RIGHTS
from clipper_stream.client.kafka import stop
from clipper_topics import codec
from clipper_topics.connection import KafkaConnection
from clipper_topics.host_report import HostReport, report_key

REASON_CHARACTERS = 500
ANYWHERE = ("", "0.0.0.0", "::")  # noqa: S104 (what it listens on, and no address to ask at)


def one_line(reason: object) -> str:
    """Return a reason as a report has it: one line of limited length.

    >>> one_line("no such file:" + chr(10) + "  model.skops")
    'no such file: model.skops'
    """
    return shorten(str(reason), REASON_CHARACTERS, placeholder="...") or "no reason was given"


def address_of(listens_on: str, port: int) -> str:
    """Where others find what listens on this address: at the name of this machine, if it listens on all addresses.

    >>> address_of("127.0.0.1", 9100), address_of("::1", 9100)
    ('127.0.0.1:9100', '[::1]:9100')
    """
    host = socket.gethostname() if listens_on in ANYWHERE else listens_on
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class HostReports:
    """Reports of one process about itself, or about the hosts that it supervises, on the hosts topic.

    Attributes:
        refused: Set to the error once this user turns out not to have the right to write here.
    """

    def __init__(self, kafka: KafkaConnection, topic: str) -> None:
        self.refused: Future[None] = Future()
        self._kafka, self._topic = kafka, topic
        self._lock = threading.Lock()
        self._newest: dict[bytes, bytes | None] = {}
        self._loop: asyncio.AbstractEventLoop | None = None
        self._wake = asyncio.Event()
        self._written = threading.Event()
        self._written.set()
        self._closing = self._given_up = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._write_all()), name="host reports", daemon=True)
        self._thread.start()

    def put(self, report: HostReport) -> None:
        """Write the report as soon as a broker accepts it."""
        if not report.at_ms:
            report.at_ms = int(time.time() * 1000)
        self._put(report_key(report.model, report.instance), codec.host_reports.encode(report))

    def withdraw(self, model: str, instance: str) -> None:
        """Remove the report of a host that has left."""
        self._put(report_key(model, instance), None)

    def wait_written(self, within_s: float) -> bool:
        """Wait until every report is written, at most this long, and return whether it is."""
        return self._written.wait(within_s)

    def close(self, within_s: float) -> bool:
        """Write what is left, for at most this long, and end; return whether everything was written.

        Nothing is waited for once a right turned out to be missing.
        """
        with self._lock:
            self._closing = True
            self._ring()
        self._thread.join(0.0 if self.refused.done() else within_s)
        self._given_up = True
        return self._written.is_set()

    def _put(self, key: bytes, value: bytes | None) -> None:
        with self._lock:
            self._newest.pop(key, None)
            self._newest[key] = value
            self._written.clear()
            self._ring()

    def _ring(self) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # the thread has just ended
                self._loop.call_soon_threadsafe(self._wake.set)

    async def _write_all(self) -> None:
        with self._lock:
            self._loop = asyncio.get_running_loop()
            self._wake.set()
        with contextlib.suppress(KafkaError, OSError):
            await retry(
                f"report to {self._topic} is not written yet", self._write, wait_s=RESTART_WAIT_S, passes=self._passes
            )

    def _passes(self, error: Exception) -> bool:
        if isinstance(error, RIGHTS) and not self.refused.done():
            self.refused.set_exception(error)
        return is_outage(error) and not self._given_up

    async def _write(self) -> None:
        producer = make_producer(self._kafka)
        try:
            await producer.start()
            while True:
                await self._wake.wait()
                self._wake.clear()
                while (report := self._oldest()) is not None:
                    key, value = report
                    await producer.send_and_wait(self._topic, key=key, value=value, partition=0)
                    self._done(key, value)
                if self._closing:
                    return
        finally:
            self._wake.set()  # for the next attempt
            await stop(producer)

    def _oldest(self) -> tuple[bytes, bytes | None] | None:
        with self._lock:
            return next(iter(self._newest.items()), None)

    def _done(self, key: bytes, value: bytes | None) -> None:
        with self._lock:
            if key in self._newest and self._newest[key] == value:
                del self._newest[key]
            if not self._newest:
                self._written.set()
