"""Sends a logged range of queries and feedback again, at the pace of the log or another.

[merged_log] --> [resending] --> [pace] --> producer, whose buffer is the only thing that may hold records up

Rules of this file:
- A record is sent when it is due, whether or not the brokers have acknowledged the ones before it.
- Records of one partition keep their order: the producer is idempotent.
- Whoever stops the run gets the summary of what was sent, after the last record is acknowledged.
"""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.errors import KafkaError

from clipper_agents.kafka.reader import Range
from clipper_agents.kafka.time_order import Record
from clipper_agents.replay.pace import Lateness, Pace
from clipper_agents.replay.resent_records import RecordResender, ResentRecord
from clipper_stream.client.access import RIGHTS

Send = Callable[[ResentRecord], Awaitable["asyncio.Future[Any]"]]
YIELD_EVERY = 100
"""Records after which the event loop comes to the producer's requests, when nothing is waited for."""


class ResendProgress(Protocol):
    """Called after each record."""

    def __call__(self, *, read: int, sent: int) -> None:
        """Report the records read and sent so far."""
        ...


@dataclass(slots=True, kw_only=True)
class RerunSummary:
    """Outcome of a run; times in seconds.

    Attributes:
        read: Records of the range.
        sent: Records sent, by topic.
        left_out: Records not sent, by reason (`resending.LeftOut`).
        failed: Records that the brokers did not take.
        first_failure: The first of those failures.
        refused: The first that no repetition changes, a right that is missing.
        first_ms: Timestamp of the first record that was sent, milliseconds since the epoch.
        last_ms: Timestamp of the last one.
        took_s: From the first record that was sent to the last.
        lateness: How late records were sent; empty where none was due.
        unread: The part of each partition's range that was not reached.
        interrupted: Whether it was stopped, or broke, before the end of the range.
    """

    read: int = 0
    sent: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    first_failure: str | None = None
    refused: KafkaError | None = None
    first_ms: int | None = None
    last_ms: int = 0
    took_s: float = 0.0
    lateness: Lateness = field(default_factory=Lateness)
    unread: dict[TopicPartition, Range] = field(default_factory=dict)
    interrupted: bool = False

    @property
    def span_s(self) -> float:
        """Seconds between the first and the last sent record when they were logged."""
        return 0.0 if self.first_ms is None else (self.last_ms - self.first_ms) / 1000

    @property
    def speed(self) -> float | None:
        """Multiple of the logged speed; None for a run too short to tell."""
        return self.span_s / self.took_s if self.took_s > 0 else None

    @property
    def rate_per_s(self) -> float | None:
        """Records sent a second; None for a run too short to tell."""
        return self.sent.total() / self.took_s if self.took_s > 0 else None


class RunTimer:
    """Tells the time of a run, and waits until it is stopped.

    Args:
        stop: Ends the run when it is set.
    """

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop

    @property
    def stopped(self) -> bool:
        """Whether the run has been stopped."""
        return self._stop.is_set()

    def now_s(self) -> float:
        """Return seconds of a clock that never goes back."""
        return time.perf_counter()

    async def wait(self, seconds: float) -> None:
        """Wait a number of seconds, or until the run is stopped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stop.wait()


class Rerun:
    """Sends the records of a log at their pace, once.

    Args:
        resending: Makes the copies.
        send: Hands a copy to the producer; the future is done when the brokers have acknowledged it.
        speed: Multiple of the logged speed; None: as fast as possible.
        timer: Tells the time, and waits.
        progress: Called after each record.
        summary: Says what was done so far, also of a run that breaks.
    """

    def __init__(
        self,
        resending: RecordResender,
        send: Send,
        *,
        speed: float | None,
        timer: RunTimer,
        progress: ResendProgress | None = None,
        summary: RerunSummary | None = None,
    ) -> None:
        self._resending, self._send, self._speed = resending, send, speed
        self._timer, self._progress = timer, progress
        self._pace: Pace | None = None
        self._under_way: set[asyncio.Future[Any]] = set()
        self._summary = summary or RerunSummary()

    async def run(self, log: AsyncGenerator[tuple[int, Record], None]) -> RerunSummary:
        """Send the records of the log, and return the summary once the brokers have acknowledged all of them."""
        try:
            await self._send_all(log)
        except Exception:
            await self._acknowledged()
            raise
        await self._acknowledged()
        self._summary.interrupted = self._timer.stopped or self._summary.refused is not None
        return self._summary

    async def _acknowledged(self) -> None:
        if self._under_way:
            await asyncio.wait(self._under_way)

    async def _send_all(self, log: AsyncGenerator[tuple[int, Record], None]) -> None:
        async with contextlib.aclosing(log):
            async for at_ms, record in log:
                if self._timer.stopped or self._summary.refused is not None:
                    break
                await self._take(at_ms, record)

    async def _take(self, at_ms: int, record: Record) -> None:
        summary = self._summary
        copy = self._resending.copy(record)
        if isinstance(copy, str):
            summary.left_out[copy] += 1
        elif not await self._sent_when_due(at_ms, copy):
            return
        summary.read += 1
        if (rest := summary.unread.get(tp := TopicPartition(record.topic, record.partition))) is not None:
            summary.unread[tp] = Range(record.offset + 1, rest.end)
        if self._progress is not None:
            self._progress(read=summary.read, sent=summary.sent.total())
        if summary.read % YIELD_EVERY == 0:
            await asyncio.sleep(0)

    async def _sent_when_due(self, at_ms: int, copy: ResentRecord) -> bool:
        """Send a copy when it is due; return False if the run was stopped before."""
        if self._pace is None:
            self._pace = Pace(first_ms=at_ms, started_s=self._timer.now_s(), speed=self._speed)
            self._summary.first_ms = self._summary.last_ms = at_ms
        due_s = self._pace.due_s(at_ms)
        if not await self._until(due_s):
            return False
        if self._speed is not None:
            self._summary.lateness.add(self._timer.now_s() - due_s)
        await self._begin(copy)
        self._summary.sent[copy.topic] += 1
        self._summary.last_ms = max(self._summary.last_ms, at_ms)
        self._summary.took_s = self._timer.now_s() - self._pace.started_s
        return True

    async def _until(self, due_s: float) -> bool:
        """Wait until a time; return False if the run was stopped meanwhile."""
        ahead_s = due_s - self._timer.now_s()
        if ahead_s > 0:
            await self._timer.wait(ahead_s)
        return not self._timer.stopped

    async def _begin(self, copy: ResentRecord) -> None:
        try:
            future = await self._send(copy)
        except KafkaError as error:
            self._failed(error)
            return
        self._under_way.add(future)
        future.add_done_callback(self._done)

    def _done(self, future: "asyncio.Future[Any]") -> None:
        self._under_way.discard(future)
        if not future.cancelled() and (error := future.exception()) is not None:
            self._failed(error)

    def _failed(self, error: BaseException) -> None:
        summary = self._summary
        summary.failed += 1
        summary.first_failure = summary.first_failure or repr(error)
        if isinstance(error, RIGHTS):
            summary.refused = summary.refused or error


def sender(producer: AIOKafkaProducer) -> Send:
    """Return a function that sends by this producer, and waits while its buffer is full."""

    async def send(copy: ResentRecord) -> "asyncio.Future[Any]":
        future: asyncio.Future[Any] = await producer.send(
            copy.topic, copy.value, copy.key, copy.partition, headers=copy.headers
        )
        return future

    return send


async def only_counted(copy: ResentRecord) -> "asyncio.Future[Any]":
    """Send nothing."""
    del copy
    done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    done.set_result(None)
    return done
