"""The moving parts of one run: what an answer sets off, and when the run is over."""

import asyncio
import math
from collections.abc import Callable, Sequence

from clipper_loadgen.answers import UNSTATED, Answer
from clipper_loadgen.feedback import DelayedFeedback
from clipper_loadgen.ledger import Ledger
from clipper_loadgen.plan import LoadPlan
from clipper_loadgen.preparation import Prepared
from clipper_loadgen.producing import BatchOutlet
from clipper_loadgen.progress import ProgressSink
from clipper_loadgen.report import LoadReport, summarise
from clipper_loadgen.sending import Gate, Outlet

LOOK_S = 0.05
"""How often the run looks whether it is over; no measurement depends on it."""
DUPLICATES_S = 0.2
"""After the last answer, for second answers to arrive and be counted."""


class Run:
    """One run.

    Args:
        plan: The plan.
        prepared: The plan's queries.
        start_s: When the schedule starts.
        feedback: Where feedback goes.
        clock: Seconds.
    """

    def __init__(
        self, plan: LoadPlan, prepared: Prepared, start_s: float, feedback: Outlet, clock: Callable[[], float]
    ) -> None:
        self._plan, self._prepared, self.clock = plan, prepared, clock
        self.script = prepared.script
        self.due_s = [start_s + time_s for time_s in prepared.times_s]
        self.ledger = Ledger(self.due_s)
        self.gate = Gate()
        self.delayed: DelayedFeedback | None = None
        if prepared.delays_s is not None:
            self.delayed = DelayedFeedback(prepared.feedback_of, prepared.delays_s, feedback, clock)
        self._last_event_s = start_s
        self._sent_before = 0
        self._cpu_s, self._took_s = 0.0, math.inf

    def on_answers(self, answers: Sequence[Answer], now_s: float) -> None:
        """Enter answers, let saturation go on, and plan feedback; answers to others' queries are passed over."""
        for answer in answers:
            query = self.script.query_of(answer.query_id)
            if query is None:
                continue
            reason = (answer.reason or UNSTATED) if answer.default else None
            if self.ledger.answered(query, now_s, reason=reason) and self.delayed is not None:
                self.delayed.answered(query, now_s)
            self._last_event_s = now_s
        if self._plan.mode == "saturation":
            self.gate.release(self.ledger.answered_count + self._plan.outstanding)
        if self.delayed is not None:
            self.delayed.arm()

    async def settled(self, progress: ProgressSink | None = None) -> None:
        """Return when every query is answered and every feedback sent, or nothing has happened for `plan.drain_s`."""
        while self.ledger.answered_count < len(self.ledger) and not self._stalled():
            await asyncio.sleep(LOOK_S)
            if progress is not None:
                progress(sent=self.ledger.sent_count, answered=self.ledger.answered_count, total=len(self.ledger))
        await asyncio.sleep(DUPLICATES_S)
        if self.delayed is not None:
            await self.delayed.drained(self._plan.drain_s)

    def spent(self, cpu_s: float, took_s: float) -> None:
        """What the run cost this process."""
        self._cpu_s, self._took_s = cpu_s, took_s

    def report(self, queries: BatchOutlet, feedback: BatchOutlet) -> LoadReport:
        """The report on the queries after the warm-up."""
        return summarise(
            self.ledger,
            application=self._plan.application,
            mode=self._plan.mode,
            first=self._prepared.first,
            send_failures=queries.failures + feedback.failures,
            send_failure=queries.first_failure or feedback.first_failure,
            distinct_inputs=self._prepared.distinct_inputs,
            feedback_sent=self.delayed.sent_count if self.delayed else 0,
            feedback_pending=self.delayed.pending if self.delayed else 0,
            generator_cpu_us=round(self._cpu_s * 1e6 / max(1, self.ledger.sent_count), 1),
            generator_cpu_ratio=round(self._cpu_s / self._took_s, 4),
            encoding=self._plan.encoding,
            seed=self._plan.seed,
        )

    def _stalled(self) -> bool:
        """Nothing was sent or answered for `plan.drain_s`, though something was to be expected."""
        if self.ledger.sent_count != self._sent_before:
            self._sent_before, self._last_event_s = self.ledger.sent_count, self.clock()
        waiting = self.ledger.outstanding > 0 or self.ledger.sent_count == len(self.ledger)
        return waiting and self.clock() - self._last_event_s > self._plan.drain_s
