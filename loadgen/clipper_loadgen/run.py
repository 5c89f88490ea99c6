"""One run: draw the workload, send, read, report.

plan ──> workload ──> script ──> [gate] ──> queries topic
                                   ^              │
      pacer (rate) or answers (saturation)   the pipeline
                                                  │
report <── ledger <── answers <────────── predictions topic
                          └──> delayed feedback ──> feedback topic
"""

import asyncio
import math
import time
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer
from aiokafka.errors import KafkaError

from clipper_loadgen.answers import ANSWER_STATUSES, AnswerStatus, read_answers
from clipper_loadgen.feedback import DelayedFeedback
from clipper_loadgen.gate import Gate, Outlet, Pacer, send_released
from clipper_loadgen.ledger import Ledger
from clipper_loadgen.outlet import BatchOutlet, frozen_garbage, open_outlet
from clipper_loadgen.plan import LoadPlan
from clipper_loadgen.preparation import PreparedLoad, prepare_load
from clipper_loadgen.report import LoadReport, summarise
from clipper_stream.client.access import explained
from clipper_stream.client.kafka import assigned_consumer
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import Codec
from clipper_topics.connection import KafkaConnection

HEAD_START_S = 0.1
"""Between the making of the schedule and its first query, so that the pacer is waiting when it is due."""
LOOK_S = 0.05
"""How often the run looks whether it is over; no measurement depends on it."""
DUPLICATES_S = 0.2
"""After the last answer, for second answers to arrive and be counted."""
FETCH_BYTES = 4 << 20


class LoadObserver(Protocol):
    """Follows a run query by query.

    Attributes:
        answers: Decodes the predictions, as far as they are observed.
    """

    answers: Codec[Any]

    def begun(self, run: "LoadRun") -> None:
        """The first query is due in a moment."""
        ...

    def releasing(self, count: int) -> None:
        """The first `count` queries may be sent from now on."""
        ...

    def answered(self, query: int, answer: Any) -> None:
        """The first answer to a query has come."""
        ...


class ProgressSink(Protocol):
    """Told a few times a second how far the run is."""

    def __call__(self, *, sent: int, answered: int, total: int) -> None:
        """Queries sent and answered so far, of how many."""
        ...


async def run_load(
    plan: LoadPlan,
    connection: KafkaConnection,
    catalogue: Catalogue,
    progress: ProgressSink | None = None,
    observer: LoadObserver | None = None,
) -> LoadReport:
    """Put the load on the pipeline and report what became of it.

    Args:
        plan: What to send.
        connection: Where Kafka is.
        catalogue: The topics of the deployment.
        progress: Told a few times a second how far the run is.
        observer: Told about every query and answer, which costs the generator time.

    Returns:
        The report. A run whose answers stop coming ends `plan.drain_s` after the last one, and is reported as it is.

    Raises:
        InvalidSetting: the topics do not exist.
        UnknownName: the plan has no data set, and no such application is registered.
        BrokerUnavailable: no broker answers.
        AccessRefused: Kafka does not let us in, or not read or write a topic.
    """
    try:
        consumer = await assigned_consumer(
            connection,
            catalogue.predictions,
            at_end=True,
            isolation_level="read_committed",
            max_partition_fetch_bytes=FETCH_BYTES,
        )
        try:
            partitions = len(consumer.assignment())  # predictions and queries are co-partitioned
            prepared = await prepare_load(plan, connection, catalogue, partitions)
            async with (
                open_outlet(connection, catalogue.queries, plan.encoding) as queries,
                open_outlet(connection, catalogue.feedback, plan.encoding) as feedback,
            ):
                with frozen_garbage():
                    run = LoadRun(plan, prepared, feedback, time.perf_counter, observer)
                    await run.run(consumer, queries, progress)
                return run.report(queries, feedback)
        finally:
            await consumer.stop()
    except KafkaError as error:
        raise await explained(connection, "cannot put load on it", error) from error


class LoadRun:
    """One run, due to begin `HEAD_START_S` after it is made: what an answer sets off, and when the run is over.

    Args:
        plan: The plan.
        prepared: The plan's queries.
        feedback: Where feedback goes.
        clock: Seconds.
        observer: Told about every query and answer.

    Attributes:
        start_s: When the first query may be sent, in seconds of the clock.
        ledger: When each query was due, sent and answered.
        labels: What the feedback of each query says; None where the truth is not known.
    """

    def __init__(
        self,
        plan: LoadPlan,
        prepared: PreparedLoad,
        feedback: Outlet,
        clock: Callable[[], float],
        observer: LoadObserver | None = None,
    ) -> None:
        self._plan, self._prepared, self._clock, self._observer = plan, prepared, clock, observer
        self._script, self.labels = prepared.script, prepared.labels
        self.start_s = clock() + HEAD_START_S
        self._due_s = [self.start_s + time_s for time_s in prepared.times_s]
        self.ledger = Ledger(self._due_s if plan.mode == "rate" else [math.nan] * len(self._due_s))
        self._due = len(self._due_s) if plan.mode == "saturation" else 0
        self._gate = Gate()
        self._delayed: DelayedFeedback | None = None
        if prepared.delays_s is not None:
            self._delayed = DelayedFeedback(prepared.feedback_of, prepared.delays_s, feedback, clock)
        self._last_event_s = self.start_s
        self._sent_before = 0
        self._cpu_s, self._took_s = 0.0, math.inf

    @property
    def feedback_sent(self) -> int:
        """Feedback records sent so far."""
        return self._delayed.sent_count if self._delayed else 0

    async def run(self, consumer: AIOKafkaConsumer, queries: BatchOutlet, progress: ProgressSink | None) -> None:
        """Send, read and give feedback at once, until nothing more is to be expected."""
        answers = ANSWER_STATUSES if self._observer is None else self._observer.answers
        work = [
            read_answers(consumer, self._clock, self._on_answers, answers),
            send_released(self._script, self._gate, queries, self.ledger, self._clock),
            *([] if self._delayed is None else [self._delayed.run()]),
        ]
        cpu_s = time.process_time()
        if self._observer is not None:
            self._observer.begun(self)
        with self._gate_keeper():
            await _run_alongside(self._settled(progress), *work)
        self._cpu_s, self._took_s = time.process_time() - cpu_s, self._clock() - self.start_s

    def report(self, queries: BatchOutlet, feedback: BatchOutlet) -> LoadReport:
        """The report on the queries after the warm-up."""
        return summarise(
            self.ledger,
            application=", ".join(self._plan.applications),
            mode=self._plan.mode,
            first=self._prepared.first,
            send_failures=queries.failures + feedback.failures,
            send_failure=queries.first_failure or feedback.first_failure,
            distinct_inputs=self._prepared.distinct_inputs,
            feedback_sent=self.feedback_sent,
            feedback_pending=self._delayed.pending if self._delayed else 0,
            generator_cpu_us=round(self._cpu_s * 1e6 / max(1, self.ledger.sent_count), 1),
            generator_cpu_ratio=round(self._cpu_s / self._took_s, 4),
            encoding=self._plan.encoding,
            seed=self._plan.seed,
        )

    def _gate_keeper(self) -> "Pacer | nullcontext[None]":
        """Who opens the gate: the pacer's thread, or the answers themselves."""
        if self._plan.mode == "saturation":
            self._release(self._due)
            return nullcontext()
        loop, release = asyncio.get_running_loop(), self._release
        return Pacer(self._due_s, lambda due: loop.call_soon_threadsafe(release, due), tick_s=self._plan.linger_s)

    def _release(self, due: int) -> None:
        """Let through the queries that are due, as many of them as may be outstanding."""
        self._due = due
        count = min(due, self.ledger.answered_count + self._plan.most_outstanding)
        if self._observer is not None:
            self._observer.releasing(count)
        self._gate.release(count)

    def _on_answers(self, answers: Sequence[AnswerStatus], now_s: float) -> None:
        """Enter answers, release further queries, and plan feedback; answers to others' queries are passed over."""
        for answer in answers:
            query = self._script.query_of(answer.query_id)
            if query is None:
                continue
            self._last_event_s = now_s
            if not self.ledger.answered(query, now_s, reason=answer.default_reason):
                continue
            if self._delayed is not None:
                self._delayed.answered(query, now_s)
            if self._observer is not None:
                self._observer.answered(query, answer)
        if self._plan.mode != "rate":
            self._release(self._due)
        if self._delayed is not None:
            self._delayed.arm()

    async def _settled(self, progress: ProgressSink | None) -> None:
        """Return when every query is answered and every feedback sent, or nothing has happened for `plan.drain_s`."""
        ledger = self.ledger
        while ledger.answered_count < len(ledger) and not self._stalled():
            await asyncio.sleep(LOOK_S)
            if progress is not None:
                progress(sent=ledger.sent_count, answered=ledger.answered_count, total=len(ledger))
        await asyncio.sleep(DUPLICATES_S)
        if self._delayed is not None:
            await self._delayed.drained(self._plan.drain_s)

    def _stalled(self) -> bool:
        """Nothing was sent or answered for `plan.drain_s`, though something was to be expected."""
        if self.ledger.sent_count != self._sent_before:
            self._sent_before, self._last_event_s = self.ledger.sent_count, self._clock()
        waiting = self.ledger.outstanding > 0 or self.ledger.sent_count == len(self.ledger)
        return waiting and self._clock() - self._last_event_s > self._plan.drain_s


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
