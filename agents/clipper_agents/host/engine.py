"""Carries out what the core decides: waits for rows, runs batches, sends replies, reports finished frames.

Rules of this file:
- Three things go on at once: a batch in the model, the next one gathering, replies on their way to the broker.
- Nothing polls: rows that arrive, the window's alarm, an acknowledgement or a failure wake what waits for them.
- At most `max_open_rows` rows (and the rest of one frame) are in the process; beyond that `submit` waits. `take` is for
  who has a bound of its own.
- An error that is not the model's (a send that failed, a mistake of ours) ends `run` and every `submit` with it: no
  row is lost, because what is not acknowledged is read again by the next process.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from typing import Generic, Protocol, TypeVar

from clipper_agents.host.batch_traces import UNTRACED, BatchTraces
from clipper_agents.host.batching import Batch, HostBatcher
from clipper_agents.host.outputs import Reply
from clipper_agents.host.poison_rows import BatchGuard
from clipper_agents.host.predictor import Predictor, TimedOutcome
from clipper_agents.host.request_rows import RequestRows
from clipper_stream.models.runner import BatchOutcome

Origin = TypeVar("Origin")

MAX_OPEN_ROWS = 20_000
"""Two seconds of work for a model of 0.1 ms a row; at 1 KiB a row 20 MB."""
_TIMER_SLACK_S = 0.0005
"""uvloop's timers round to milliseconds: so much later they are never early, and the alarm rings once."""

Send = Callable[[Reply[Origin]], Awaitable[object] | None]
"""Sends the pieces of a reply to its partition of the outputs topic: what it returns ends when they are safe, or raises
when they are lost. None: they are safe already."""


class HostObserver(Protocol):
    """Hears what happens, a call a batch."""

    def batch(
        self, *, rows: int, failed: int, raised: bool, waited_s: float, latency_s: float, took_s: float, limit_rows: int
    ) -> None:
        """A batch ran; so many of its rows failed, or a call (`raised`); the next may have `limit_rows`.

        It took so long until its outputs were sent, of that the model's latency.
        """
        ...

    def late(self, rows: int) -> None:
        """So many rows were dropped, past their deadlines."""
        ...

    def queued(self, rows: int) -> None:
        """So many rows wait for a batch."""
        ...


class HostEngine(Generic[Origin]):
    """Batches the rows of many frames through one model.

    Args:
        core: The decisions.
        predictor: The model. The engine closes it.
        send: Called once for all pieces that a batch has for one partition.
        finished: Called with the origins of frames whose answers are all safe.
        traces: Makes the spans of batches with rows of sampled queries.
    """

    def __init__(
        self,
        core: HostBatcher[Origin],
        predictor: Predictor,
        send: Send[Origin],
        finished: Callable[[list[Origin]], None],
        observer: HostObserver,
        *,
        guard: BatchGuard | None = None,
        traces: BatchTraces = UNTRACED,
        max_open_rows: int = MAX_OPEN_ROWS,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._core = core
        self._predictor = predictor
        self._send = send
        self._finished = finished
        self._observer = observer
        self._guard = guard or BatchGuard()
        self._traces = traces
        self._max_open_rows = max_open_rows
        self._clock = clock
        self._deliveries: set[asyncio.Task[None]] = set()
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self._draining = False

    async def submit(self, frames: Iterable[tuple[Origin, RequestRows]]) -> None:
        """Take on frames; waits while the process is full, and for ever once it drains.

        Raises:
            BaseException: what ended `run`.
        """
        for origin, request in frames:
            while self._failure is None and (self._draining or self._core.open_rows >= self._max_open_rows):
                self._room.clear()
                await self._room.wait()
            self.take(origin, request)

    def take(self, origin: Origin, request: RequestRows) -> None:
        """Take on a frame at once.

        Raises:
            BaseException: what ended `run`.
        """
        self._raise_failure()
        if self._core.admit(origin, request, self._clock()):
            self._finished([origin])
        self._work.set()

    async def run(self) -> None:
        """Run batches until drained.

        Raises:
            BaseException: a send failed, or something that is no model's fault.
        """
        try:
            while await self._turn():
                pass
            await self._delivered()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._predictor.close()

    def drain(self) -> None:
        """Let `run` return when all rows that were submitted are answered and their answers safe."""
        self._draining = True
        self._work.set()

    async def _turn(self) -> bool:
        """One batch, or one wait; False when drained."""
        self._raise_failure()
        step = self._core.step(self._clock())
        self._observer.queued(self._core.queued_rows)
        if step.late:
            self._observer.late(step.late_rows)
            self._traces.late(step.late)
            self._dispatch(step.late)
        if step.batch is None:
            return await self._wait(step.wake_at_s)
        taken_at_s = time.monotonic()
        timed = await self._predicted(step.batch)
        self._dispatch(self._core.complete(step.batch, timed.outcome, timed.latency_s), taken_at_s)
        self._observer.batch(
            rows=len(step.batch.inputs),
            failed=len(timed.outcome.failed),
            raised=timed.outcome.error is not None,
            waited_s=step.waited_s,
            latency_s=timed.latency_s,
            took_s=time.monotonic() - taken_at_s,
            limit_rows=self._core.limit_rows,
        )
        if self._traces.is_on:
            self._traces.ran(step.batch, timed, taken_at_s)
        return True

    async def _predicted(self, batch: Batch[Origin]) -> TimedOutcome:
        refusal = self._guard.begin(batch.runs)
        if refusal is not None:
            rows = len(batch.inputs)
            return TimedOutcome(BatchOutcome([None] * rows, dict.fromkeys(range(rows), refusal), calls=0), 0.0)
        try:
            return await self._predictor.predict(batch.inputs)
        finally:
            self._guard.end()

    async def _wait(self, wake_at_s: float | None) -> bool:
        if self._draining and wake_at_s is None:
            return False
        alarm = None
        if wake_at_s is not None:
            delay_s = max(0.0, wake_at_s - self._clock()) + _TIMER_SLACK_S
            alarm = asyncio.get_running_loop().call_later(delay_s, self._work.set)
        await self._work.wait()
        self._work.clear()
        if alarm is not None:
            alarm.cancel()
        return True

    def _dispatch(self, replies: list[Reply[Origin]], taken_at_s: float | None = None) -> None:
        for reply in replies:
            sending = self._send(reply)
            if sending is None:
                self._sent(reply, taken_at_s)
                continue
            task = asyncio.get_running_loop().create_task(self._deliver(sending, reply, taken_at_s))
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, sending: Awaitable[object], reply: Reply[Origin], taken_at_s: float | None) -> None:
        try:
            await sending
            self._sent(reply, taken_at_s)
        except BaseException as error:  # noqa: BLE001 - ends `run`, which raises it
            self._fail(error)

    def _sent(self, reply: Reply[Origin], taken_at_s: float | None) -> None:
        if taken_at_s is not None:
            self._core.delivered(time.monotonic() - taken_at_s)
        finished = self._core.acknowledge(reply)
        if finished:
            self._finished(finished)
        self._room.set()

    async def _delivered(self) -> None:
        while self._deliveries:
            await asyncio.wait(self._deliveries)
        self._raise_failure()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._room.set()
        self._work.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure
