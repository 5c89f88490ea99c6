"""Where a model runs: on the event loop when it is so cheap that a thread would cost more, else in a thread of its own.

A hand-over to a thread and back costs about 0.1 ms and two changes of the interpreter lock, a cheap model's batch less
than that; but a batch on the loop holds up the broker's heartbeats and everybody else there, so it must be short
whatever its size. That is measured at the start, and watched: a model that turns out slow moves to a thread for good.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import takewhile

from clipper_agents.observability.logging import event
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.registry import load_model
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runner import BatchOutcome, explain, predict_rows, warm_up
from clipper_stream.models.runtimes.model_files import STRICT, FileRules
from clipper_topics.manifests import ModelManifest

logger = logging.getLogger(__name__)

ONE_ROW_MAX_S = 0.0002
FULL_BATCH_MAX_S = 0.001
"""For running on the loop: a row costs less than twice the hand-over, a full batch delays others unnoticed."""
MAX_SLOW_RATIO = 0.3
"""Share of about the last 10 batches that may take longer on the loop (garbage collection, another process)."""
STALL_S = 0.1
"""One batch of so long on the loop is enough: the broker hears nothing meanwhile."""
_MEMORY_BATCHES = 10
_TRIES = 10
"""A measurement is repeated until it is within its bound, because what disturbs it only makes it longer; so often, or
until `_PATIENCE` times the bound is spent."""
_PATIENCE = 20
SAY_EVERY_S = 60.0
MOST_KINDS = 10
"""Of errors whose tracebacks are logged: a model may make classes of errors as it goes."""

Timer = Callable[[], float]
Sample = Callable[[int], Rows | None]
"""So many rows to measure with; None when the input spec does not say what a row is."""


@dataclass(frozen=True, slots=True)
class TimedOutcome:
    """The result of a batch with its latency in seconds, and when it began by the timer; 0.0: it did not."""

    outcome: BatchOutcome
    latency_s: float
    began_s: float = 0.0


class FailureLog:
    """Logs that a model fails: the first time of a kind with its traceback, and at most once a minute."""

    def __init__(self, ref: str) -> None:
        self._ref = ref
        self._said_s, self._rows = -SAY_EVERY_S, 0
        self._kinds: set[type[BaseException]] = set()

    def note(self, outcome: BatchOutcome, now_s: float) -> None:
        error = outcome.error
        if error is None:
            return
        self._rows += len(outcome.failed)
        is_new = type(error) not in self._kinds and len(self._kinds) < MOST_KINDS
        if is_new or now_s - self._said_s >= SAY_EVERY_S:
            text = "model fails model=%s rows=%d reason=%s"
            logger.error(text, self._ref, self._rows, explain(error), exc_info=error if is_new else None)
            self._said_s, self._rows = now_s, 0
        if is_new:
            self._kinds.add(type(error))


class Predictor:
    """Runs batches of one model, one at a time: on the loop as long as it is `inline`, else in a thread."""

    def __init__(self, model: Model, *, inline: bool, ref: str = "", timer: Timer = time.monotonic) -> None:
        self.model, self.inline = model, inline
        self._failures, self._timer, self._slow_ratio = FailureLog(ref), timer, 0.0
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="model")

    async def predict(self, inputs: Rows) -> TimedOutcome:
        """Run one batch; never raises for the model's fault."""
        if self.inline:
            timed = _timed(self.model, inputs, self._timer)
            self._slow_ratio += ((timed.latency_s > FULL_BATCH_MAX_S) - self._slow_ratio) / _MEMORY_BATCHES
            self.inline = self._slow_ratio <= MAX_SLOW_RATIO and timed.latency_s < STALL_S
            await asyncio.sleep(0)  # others have their turn between two batches
        else:
            loop = asyncio.get_running_loop()
            timed = await loop.run_in_executor(self._executor, _timed, self.model, inputs, self._timer)
        self._failures.note(timed.outcome, timed.began_s)
        return timed

    def close(self) -> None:
        self._executor.shutdown(wait=False, cancel_futures=True)


def prepare(manifest: ModelManifest, allowed: Sequence[str], files: FileRules = STRICT) -> Predictor:
    """Load the model, warm it up and measure it. That may take seconds: not for an event loop that others wait for.

    The manifest may come from the control topic: `allowed` and `files` say what this process may load. `SetupError` for
    no runtime, or a model that cannot be loaded.

    >>> from clipper_topics.manifests import InputSpec
    >>> uri = "clipper_agents.examples.models:slow"
    >>> prepare(ModelManifest(name="slow", uri=uri, input=InputSpec(shape=[4])), ["clipper_agents.examples"]).inline
    False
    """
    declared = (manifest.runtime, manifest.uri, manifest.sha256, manifest.parameters)
    spec = RowSpec.of(manifest.input)
    model = load_model(*declared, columns=spec.columns, allowed=allowed, files=files)
    refused = warm_up(model, spec.sample(1))
    if refused is not None:
        event(logger, "model refuses an empty row", logging.WARNING, model=manifest.ref, reason=refused)
    inline = is_cheap(model, spec.sample, manifest.batch.max_rows)
    event(logger, "model loaded", model=manifest.ref, uri=manifest.uri, runs_in="loop" if inline else "thread")
    return Predictor(model, inline=inline, ref=manifest.ref)


def is_cheap(model: Model, sample: Sample, max_rows: int, timer: Timer = time.perf_counter) -> bool:
    """Whether every batch of a warm model, of up to `max_rows` rows, is short enough for the event loop."""
    sizes = [1, *takewhile(lambda rows: rows < max_rows, (2**power for power in range(1, 32))), max_rows]
    bounds_s = [ONE_ROW_MAX_S, *[FULL_BATCH_MAX_S] * (len(sizes) - 1)]
    try:
        return all(_within(model, sample(rows), bound_s, timer) for rows, bound_s in zip(sizes, bounds_s, strict=True))
    except MemoryError:  # a full batch of such rows does not fit: whatever it is, it is not cheap
        return False


def _within(model: Model, inputs: Rows | None, bound_s: float, timer: Timer) -> bool:
    """Whether the sample runs within the bound, and without failing: a row that is refused measures nothing."""
    if inputs is None:
        return False
    spent_s = 0.0
    for _ in range(_TRIES):
        timed = _timed(model, inputs, timer)
        spent_s += timed.latency_s
        if timed.outcome.failed or timed.latency_s < bound_s or spent_s > _PATIENCE * bound_s:
            return not timed.outcome.failed and timed.latency_s < bound_s
    return False


def _timed(model: Model, inputs: Rows, timer: Timer) -> TimedOutcome:
    began = timer()
    outcome = predict_rows(model, inputs)
    return TimedOutcome(outcome, timer() - began, began)
