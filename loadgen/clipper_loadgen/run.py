"""One run: draw the workload, send, read, report.

plan ──> workload ──> script ──> [gate] ──> queries topic
                                   ^              │
      pacer (rate) or answers (saturation)   the pipeline
                                                  │
report <── ledger <── answers <────────── predictions topic
                          └──> delayed feedback ──> feedback topic
"""

import asyncio
import gc
import math
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any, Protocol

import msgspec
from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from clipper_loadgen.gate import Gate, Send, pacer, send_released
from clipper_loadgen.ledger import Ledger
from clipper_loadgen.plan import LoadPlan
from clipper_loadgen.report import LoadReport, summarise
from clipper_loadgen.script import Script, write_script
from clipper_stream.client.access import explained
from clipper_stream.client.batch_sender import BatchSender, TopicRecord, batch_sender
from clipper_stream.client.kafka import consumer_at_end, stop
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import Codec, UndecodableRecord
from clipper_topics.connection import KafkaConnection

HEAD_START_S = 0.1
"""Between the making of the schedule and its first query, so that the pacer is waiting when it is due."""
LOOK_S = 0.05
"""How often the run looks whether it is over; no measurement depends on it."""
DUPLICATES_S = 0.2
"""After the last answer, for second answers to arrive and be counted."""
FETCH_BYTES = 4 << 20


class AnswerStatus(msgspec.Struct):
    """The fields of a prediction that are counted; the others are skipped, not decoded."""

    query_id: str
    default: bool = False
    reason: str | None = None


ANSWER_STATUSES = Codec(AnswerStatus)


def decode_answer(
    value: bytes | None, headers: Iterable[tuple[str, bytes]], answers: Codec[Any] = ANSWER_STATUSES
) -> Any | None:
    """The answer in a record, with as many fields as the codec decodes; None for bytes that are no prediction."""
    try:
        return answers.decode(value, headers)
    except UndecodableRecord:
        return None


class LoadObserver(Protocol):
    """Follows a run query by query, which costs the generator time."""

    answers: Codec[Any]
    """Decodes the predictions as far as they are observed, at least what an `AnswerStatus` has."""

    def releasing(self, count: int) -> None:
        """The first `count` queries may be sent from now on."""

    def answered(self, query: int, answer: Any) -> None:
        """The first answer to a query has come."""


LoadFollower = Callable[["LoadRun"], Coroutine[Any, Any, None]]
"""Looks at a run while it lasts: begins with the first query, and is cancelled when nothing more is expected."""


async def run_load(
    plan: LoadPlan,
    connection: KafkaConnection,
    catalogue: Catalogue,
    follower: LoadFollower | None = None,
    observer: LoadObserver | None = None,
) -> LoadReport:
    """Put the load on the pipeline and report what became of it, also where answers stop coming.

    Raises:
        InvalidSetting: the topics do not exist.
        BrokerUnavailable: no broker answers.
        AccessRefused: Kafka does not let us in, or not read or write a topic.
    """
    try:
        consumer = await consumer_at_end(connection, catalogue.predictions, max_partition_fetch_bytes=FETCH_BYTES)
        try:
            partitions = len(consumer.assignment())  # predictions and queries are co-partitioned
            script = await asyncio.to_thread(write_script, plan, partitions=partitions, run=secrets.token_hex(4))
            async with (
                batch_sender(connection, catalogue.queries) as queries,
                batch_sender(connection, catalogue.feedback) as feedback,
            ):
                gc.collect()
                gc.freeze()  # what was prepared: the garbage collector's rounds would stall the sender
                try:
                    run = LoadRun(plan, script, feedback.send, time.perf_counter, observer)
                    await run.run(consumer, queries.send, follower)
                finally:
                    gc.unfreeze()
                return run.report(queries, feedback)
        finally:
            await stop(consumer)
    except KafkaError as error:
        raise await explained(connection, "cannot put load on it", error) from error


class LoadRun:
    """One run, due to begin `HEAD_START_S` after it is made: what an answer sets off, and when the run is over."""

    def __init__(
        self,
        plan: LoadPlan,
        script: Script,
        feedback: Send,
        clock: Callable[[], float],
        observer: LoadObserver | None = None,
    ) -> None:
        self._plan, self.script, self._clock, self._observer = plan, script, clock, observer
        self.start_s = clock() + HEAD_START_S
        self._due_s = [self.start_s + time_s for time_s in script.times_s]
        self.ledger = Ledger(self._due_s if plan.mode == "rate" else [math.nan] * len(script))
        self._due = len(script) if plan.mode == "saturation" else 0
        self._gate = Gate()
        self._delayed = DelayedFeedback(script.feedback, script.delays_s, feedback)
        self._last_event_s = self.start_s
        self._sent_before = 0
        self._cpu_s, self._took_s = 0.0, math.inf

    async def run(self, consumer: AIOKafkaConsumer, queries: Send, follower: LoadFollower | None) -> None:
        """Send, read and give feedback at once, until nothing more is to be expected."""
        work = [
            self._read(consumer),
            send_released(self.script, self._gate, queries, self.ledger, self._clock),
            self._delayed.run(),
            *([] if follower is None else [follower(self)]),
        ]
        cpu_s = time.process_time()
        with self._gate_keeper():
            await _run_alongside(self._settled(), *work)
        self._cpu_s, self._took_s = time.process_time() - cpu_s, self._clock() - self.start_s

    def report(self, queries: BatchSender, feedback: BatchSender) -> LoadReport:
        return summarise(
            self.ledger,
            application=", ".join(self._plan.applications),
            mode=self._plan.mode,
            first=self.script.first,
            send_failures=queries.failures + feedback.failures,
            send_failure=queries.first_failure or feedback.first_failure,
            distinct_inputs=len(set(self.script.rows)),
            feedback_sent=self._delayed.sent_count,
            feedback_pending=self._delayed.pending,
            generator_cpu_us=round(self._cpu_s * 1e6 / max(1, self.ledger.sent_count), 1),
            generator_cpu_ratio=round(self._cpu_s / self._took_s, 4),
            encoding=self._plan.encoding,
            seed=self._plan.seed,
        )

    def _gate_keeper(self) -> AbstractContextManager[None]:
        if self._plan.mode == "saturation":
            self._release(self._due)
            return nullcontext()
        loop, release = asyncio.get_running_loop(), self._release
        return pacer(self._due_s, lambda due: loop.call_soon_threadsafe(release, due), tick_s=self._plan.linger_s)

    def _release(self, due: int) -> None:
        self._due = due
        count = min(due, self.ledger.answered_count + self._plan.most_outstanding)
        if self._observer is not None:
            self._observer.releasing(count)
        self._gate.release(count)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        answers = ANSWER_STATUSES if self._observer is None else self._observer.answers
        while True:
            fetched = await consumer.getmany(timeout_ms=1_000)
            now_s = self._clock()
            for records in fetched.values():
                decoded = (decode_answer(record.value, record.headers, answers) for record in records)
                self._on_answers([answer for answer in decoded if answer is not None], now_s)

    def _on_answers(self, answers: Sequence[AnswerStatus], now_s: float) -> None:
        for answer in answers:
            query = self.script.query_of(answer.query_id)
            if query is None:
                continue
            self._last_event_s = now_s
            reason = (answer.reason or "unstated") if answer.default else None
            if not self.ledger.answered(query, now_s, reason=reason):
                continue
            self._delayed.answered(query)
            if self._observer is not None:
                self._observer.answered(query, answer)
        if self._plan.mode != "rate":
            self._release(self._due)

    async def _settled(self) -> None:
        """Return when every query is answered and every feedback sent, or nothing has happened for `plan.drain_s`."""
        while self.ledger.answered_count < len(self.ledger) and not self._stalled():  # noqa: ASYNC110 - and time passes
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(DUPLICATES_S)
        await self._delayed.drained(self._plan.drain_s)

    def _stalled(self) -> bool:
        sent = self.ledger.sent_count
        if sent != self._sent_before:
            self._sent_before, self._last_event_s = sent, self._clock()
        waiting = sent > self.ledger.answered_count or sent == len(self.ledger)
        return waiting and self._clock() - self._last_event_s > self._plan.drain_s


class DelayedFeedback:
    """Sends the feedback of each query a drawn time after its answer, in seconds; none without delays.

    Attributes:
        pending: Answered queries whose feedback is not sent.
        sent_count: Feedback records sent so far.
    """

    def __init__(self, record_of: Callable[[int], TopicRecord], delays_s: list[float] | None, send: Send) -> None:
        self._record_of, self._delays_s, self._send = record_of, delays_s, send
        self._due: list[int] = []
        self._is_due = asyncio.Event()
        self.pending, self.sent_count = 0, 0

    def answered(self, query: int) -> None:
        if self._delays_s is not None:
            self.pending += 1
            asyncio.get_running_loop().call_later(self._delays_s[query], self._take, query)

    async def drained(self, at_most_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(at_most_s):
                while self.pending:  # noqa: ASYNC110 - and time passes
                    await asyncio.sleep(LOOK_S)

    async def run(self) -> None:
        """Send until cancelled; what is due at the same time leaves together."""
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            queries, self._due = self._due, []
            await self._send([self._record_of(query) for query in queries])
            self.sent_count += len(queries)
            self.pending -= len(queries)

    def _take(self, query: int) -> None:
        self._due.append(query)
        self._is_due.set()


async def _run_alongside(main: Coroutine[Any, Any, None], *others: Coroutine[Any, Any, None]) -> None:
    """Run other work while `main` runs, and cancel it after that; the first error ends everything."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(work) for work in others]
            await main
            for task in tasks:
                task.cancel()
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
