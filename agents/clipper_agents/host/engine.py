"""Carries out what the batcher decides: waits for rows, runs batches, sends replies, reports finished requests.

Rules of this file:
- Three things go on at once: a batch in the model, the next one gathering, replies on their way to the broker.
- Nothing polls: rows that arrive, the window's alarm, an acknowledgement or a failure wake what waits for them.
- `submit` waits while the process is full; `take` is for who has a bound of its own.
- An error that is not the model's (a send that failed, a mistake of ours) ends `run` and every `submit` with it: no
  row is lost, because what is not acknowledged is read again by the next process.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from opentelemetry.trace import SpanKind

from clipper_agents.host.batching import BatchingStep, HostBatcher, Piece, Replies, RequestRows, RowSpan
from clipper_agents.host.predictor import Predictor, TimedOutcome
from clipper_agents.observability.metrics import BatchMetrics, ProcessMetrics
from clipper_stream.batching.limits import make_limit
from clipper_stream.batching.window import Window
from clipper_stream.models.runner import BatchOutcome
from clipper_topics.manifests import ModelManifest

if TYPE_CHECKING:
    from clipper_agents.observability.span_exporter import SpanRecorder, WorkerSpan

_TIMER_SLACK_S = 0.0005
"""uvloop's timers round to milliseconds: so much later they are never early, and the alarm rings once."""


class OutputSink(Protocol):
    """Where outputs go: a topic from a host, the router itself from a colocated model."""

    def send(self, partition: int, pieces: Sequence[Piece], /) -> Awaitable[object] | None:
        """Send all pieces that a batch has for one partition.

        What is returned ends when they are safe, or raises when they are lost. None: they are safe already.
        """
        ...

    def finish(self, origins: list[Any], /) -> None:
        """Take back requests whose answers are all safe, by their origins."""
        ...


class BatchGuard(Protocol):
    """Stands around each batch of a model: the watch over its time, and the memory of rows that ended the process."""

    def begin(self, batch: Sequence[RowSpan], /) -> str | None:
        """Note that these rows go into the model, or return why they must not."""
        ...

    def end(self) -> None:
        """Note that the model has returned."""
        ...


class BatchTraces:
    """Records the spans of rows of sampled queries in one model's batches; nothing without a recorder.

    The topic is that of the model's requests, empty in a router. For a batch without a sampled row no clock is read.
    """

    def __init__(self, recorder: "SpanRecorder | None" = None, ref: str = "", topic: str = "") -> None:
        self._recorder, self._ref, self.is_on = recorder, ref, recorder is not None
        self._name, self._kind = (f"process {topic}", SpanKind.CONSUMER) if topic else ("model", SpanKind.INTERNAL)

    def ran(self, rows: Sequence[RowSpan], timed: TimedOutcome, taken_at_s: float) -> None:
        """Record a batch whose outputs were handed on just now, taken at a time by `time.monotonic`."""
        spans = self._begun(rows)
        if not spans:
            return
        now_ns, now_s, outcome = time.time_ns(), time.monotonic(), timed.outcome
        taken_ns = now_ns - round((now_s - taken_at_s) * 1e9)
        began_ns = now_ns - round((now_s - timed.began_s) * 1e9) if timed.began_s else taken_ns
        batch: dict[str, Any] = {"clipper.batch.rows": len(outcome.outputs)}
        if outcome.failed:
            batch["clipper.rows.failed"] = len(outcome.failed)
        if outcome.error is not None:
            batch["error.type"] = type(outcome.error).__name__
        for span in spans:
            span.add_event("batch", at_ns=taken_ns)
            span.add_event("model", at_ns=began_ns)
            span.add_event("outputs", at_ns=began_ns + round(timed.latency_s * 1e9))
            span.end(batch, now_ns)

    def late(self, rows: Iterable[RowSpan]) -> None:
        for span in self._begun(rows):
            span.end({"error.type": "late"})

    def _begun(self, rows: Iterable[RowSpan]) -> "list[WorkerSpan]":
        if self._recorder is None:
            return []
        spans = list["WorkerSpan"]()
        for request, start, stop in rows:
            for query in request.traced:
                count, since_ns = min(stop, query.stop) - max(start, query.start), round(request.admitted_s * 1e9)
                if count > 0:
                    about = {"clipper.model": self._ref, "clipper.rows": count}
                    spans.append(self._recorder.begin(self._name, self._kind, query.parent, about, since_ns))
        return spans


UNTRACED = BatchTraces()
"""Where nothing is recorded."""


class HostEngine:
    """Batches the rows of many requests through one model, which it closes at its end; `clock` is since the epoch."""

    def __init__(
        self,
        batcher: HostBatcher,
        predictor: Predictor,
        sink: OutputSink,
        metrics: BatchMetrics,
        guards: Sequence[BatchGuard] = (),
        traces: BatchTraces = UNTRACED,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._batcher, self._predictor, self._sink, self._metrics = batcher, predictor, sink, metrics
        self._guards, self._traces, self._clock = guards, traces, clock
        self._deliveries: set[asyncio.Task[None]] = set()
        self._work = asyncio.Event()
        self._room = asyncio.Event()
        self._failure: BaseException | None = None
        self._draining = False

    async def submit(self, requests: Iterable[RequestRows]) -> None:
        """Take on requests; waits while the process is full, and for ever once it drains; raises what ended `run`."""
        for request in requests:
            while self._failure is None and (self._draining or self._batcher.is_full):
                self._room.clear()
                await self._room.wait()
            self.take(request)

    def take(self, request: RequestRows) -> None:
        """Take on a request at once; raises as `submit`."""
        self._raise_failure()
        if self._batcher.admit(request, self._clock()):
            self._sink.finish([request.origin])
        self._work.set()

    async def run(self) -> None:
        """Run batches until drained; raises where a send failed, or something that is no model's fault."""
        try:
            while await self._turn():
                pass
            while self._deliveries:
                await asyncio.wait(self._deliveries)
            self._raise_failure()
        except BaseException as error:
            self._fail(error)
            raise
        finally:
            self._predictor.close()

    def drain(self) -> None:
        self._draining = True
        self._work.set()

    async def _turn(self) -> bool:
        """One batch, or one wait; False when drained."""
        self._raise_failure()
        step = self._batcher.step(self._clock())
        self._metrics.queued(self._batcher.queued_rows)
        if step.late:
            spans = [span for pieces in step.late.values() for span, _ in pieces]
            self._metrics.late(sum(span.size for span in spans))
            self._traces.late(spans)
            self._dispatch(step.late)
        if not step.spans:
            return await self._wait(step.wake_at_s)
        taken_at_s = time.monotonic()
        timed = await self._predicted(step)
        self._dispatch(self._batcher.complete(step.spans, timed.outcome, timed.latency_s), taken_at_s)
        self._metrics.batch(
            rows=len(step.inputs),
            failed=len(timed.outcome.failed),
            raised=timed.outcome.error is not None,
            waited_s=step.waited_s,
            latency_s=timed.latency_s,
            took_s=time.monotonic() - taken_at_s,
            limit_rows=self._batcher.limit_rows,
        )
        if self._traces.is_on:
            self._traces.ran(step.spans, timed, taken_at_s)
        return True

    async def _predicted(self, step: BatchingStep) -> TimedOutcome:
        refusal = next(filter(None, (guard.begin(step.spans) for guard in self._guards)), None)
        if refusal is not None:
            rows = len(step.inputs)
            return TimedOutcome(BatchOutcome([None] * rows, dict.fromkeys(range(rows), refusal), calls=0), 0.0)
        try:
            return await self._predictor.predict(step.inputs)
        finally:
            for guard in self._guards:
                guard.end()

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

    def _dispatch(self, replies: Replies, taken_at_s: float | None = None) -> None:
        for partition, pieces in replies.items():
            sending = self._sink.send(partition, pieces)
            if sending is None:
                self._sent(pieces, taken_at_s)
                continue
            task = asyncio.get_running_loop().create_task(self._deliver(sending, pieces, taken_at_s))
            self._deliveries.add(task)
            task.add_done_callback(self._deliveries.discard)

    async def _deliver(self, sending: Awaitable[object], pieces: list[Piece], taken_at_s: float | None) -> None:
        try:
            await sending
            self._sent(pieces, taken_at_s)
        except BaseException as error:  # noqa: BLE001 - ends `run`, which raises it
            self._fail(error)

    def _sent(self, pieces: list[Piece], taken_at_s: float | None) -> None:
        if taken_at_s is not None:
            self._batcher.delivered(time.monotonic() - taken_at_s)
        finished = self._batcher.acknowledge(pieces)
        if finished:
            self._sink.finish(finished)
        self._room.set()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        self._room.set()
        self._work.set()

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


def make_engine(
    manifest: ModelManifest,
    predictor: Predictor,
    sink: OutputSink,
    metrics: ProcessMetrics,
    guards: Sequence[BatchGuard],
    traces: BatchTraces,
) -> HostEngine:
    """Make an engine with the batching that the manifest says; `SetupError` where that lies outside its bounds."""
    batch = manifest.batch
    limit = make_limit(batch.limit, batch.target_ms / 1000, batch.max_rows)
    batcher = HostBatcher(Window(batch.max_delay_ms / 1000), limit)
    return HostEngine(batcher, predictor, sink, BatchMetrics(metrics, manifest.name, manifest.version), guards, traces)
