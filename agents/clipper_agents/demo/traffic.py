"""The demo as an application: queries at their times, answers read, truths sent a while later.

script --> [pacer] --> queries topic          predictions topic --> answers --> delayed truths --> feedback topic
              +--> fault, where a phase begins
"""

import asyncio
import time
from dataclasses import dataclass

import numpy as np
from aiokafka import AIOKafkaConsumer

from clipper_agents.demo.answers import Answers, decode_answers
from clipper_agents.demo.fault import Fault
from clipper_agents.demo.script import Scripted
from clipper_loadgen.feedback import DelayedFeedback
from clipper_loadgen.gate import Gate, Pacer, send_released
from clipper_loadgen.outlet import frozen_garbage, open_outlet
from clipper_loadgen.run import run_alongside
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

HEAD_START_S = 0.2
PATIENCE_S = 20.0
"""The run is given up when no answer came for so long, though queries wait: longer than a router needs to restart."""
LOOK_S = 0.1
DUPLICATES_S = 0.5
"""After the last answer, for second answers to arrive and be counted."""
TICK_S = 0.02
"""Queries that are due within 20 ms leave together, as when a page asks about all its pictures: fewer wake-ups."""
MOST_OPEN = 64
"""Queries without an answer: four times what an idle machine has at the default rate. On a busy one the demo then
asks more slowly, so that what it shows is how policies choose and not how deadlines are missed."""
RECENT = 500
"""Queries that the live percentiles are about: two seconds' worth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How far a run is.

    Attributes:
        sent: Queries sent.
        answered: Queries answered.
        truths: Feedback records sent.
    """

    sent: int
    answered: int
    truths: int


class Traffic:
    """One run of the script.

    Args:
        scripted: What is sent.
        models: References of the models.
        fault: Told about every query before it is sent.

    Attributes:
        answers: What came back.
        start_s: When the first query is due, by `time.perf_counter`.
    """

    def __init__(self, scripted: Scripted, models: list[str], fault: Fault) -> None:
        self._scripted, self._fault = scripted, fault
        self.start_s = time.perf_counter() + HEAD_START_S
        self._due_s = [self.start_s + at_s for at_s in scripted.due_s]
        self.answers = Answers(scripted.script, models)
        self._gate = Gate()
        self._due = 0
        self._delayed: DelayedFeedback | None = None
        self._moved_s = self.start_s
        self._answered = 0

    async def run(self, connection: KafkaConnection, catalogue: Catalogue, consumer: AIOKafkaConsumer) -> None:
        """Send everything and read until all is answered and all truths are sent, or nothing has happened for long.

        Raises:
            KafkaError: Kafka refused, or was gone for too long.
        """
        async with (
            open_outlet(connection, catalogue.queries, "json") as queries,
            open_outlet(connection, catalogue.feedback, "json") as truths,
        ):
            delays_s = self._scripted.feedback_delays_s
            delayed = self._delayed = DelayedFeedback(self._scripted.feedback, delays_s, truths, time.perf_counter)
            with frozen_garbage(), self._pacer():
                script, ledger = self._scripted.script, self.answers.ledger
                await run_alongside(
                    self._settled(delayed),
                    self._read(consumer),
                    send_released(script, self._gate, queries, ledger, time.perf_counter),
                    delayed.run(),
                )

    @property
    def counts(self) -> Counts:
        """What was sent and answered so far."""
        ledger = self.answers.ledger
        truths = self._delayed.sent_count if self._delayed else 0
        return Counts(sent=ledger.sent_count, answered=ledger.answered_count, truths=truths)

    def recent_ms(self, share: float) -> float | None:
        """A percentile of the latest latencies, in milliseconds."""
        ledger = self.answers.ledger
        latencies_s = ledger.latencies_s(max(0, ledger.sent_count - RECENT))
        known = latencies_s[np.isfinite(latencies_s)]
        return float(np.percentile(known, share)) * 1e3 if len(known) else None

    def _pacer(self) -> Pacer:
        loop = asyncio.get_running_loop()
        return Pacer(self._due_s, lambda due: loop.call_soon_threadsafe(self._release, due), tick_s=TICK_S)

    def _release(self, due: int) -> None:
        """So many queries are due: let through as many of them as may be open."""
        self._due = due
        released = min(due, self.answers.ledger.answered_count + MOST_OPEN)
        self._fault.before_query(released - 1)
        self._gate.release(released)

    async def _read(self, consumer: AIOKafkaConsumer) -> None:
        while True:
            fetched = await consumer.getmany(timeout_ms=1_000)
            now_s = time.perf_counter()
            for records in fetched.values():
                self._take([record.value for record in records], now_s)

    def _take(self, values: list[bytes | None], now_s: float) -> None:
        assert self._delayed is not None
        for answer in decode_answers(values):
            query = self.answers.take(answer, now_s)
            if query is not None:
                self._delayed.answered(query, now_s)
        self._delayed.arm()
        self._release(self._due)

    async def _settled(self, delayed: DelayedFeedback) -> None:
        ledger = self.answers.ledger
        while ledger.answered_count < len(ledger) and not self._stalled():  # noqa: ASYNC110 - a stall is no event
            await asyncio.sleep(LOOK_S)
        await asyncio.sleep(DUPLICATES_S)
        await delayed.drained(PATIENCE_S)

    def _stalled(self) -> bool:
        """Queries are waiting, and for long none of them was answered."""
        ledger, now_s = self.answers.ledger, time.perf_counter()
        if ledger.answered_count != self._answered or not ledger.outstanding:
            self._answered, self._moved_s = ledger.answered_count, now_s
        return now_s - self._moved_s > PATIENCE_S
