"""The host's own engine without Kafka: frames come from memory, answers are safe at once."""

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from clipper_agents.host.batching import HostBatcher, RequestRows
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.predictor import Predictor
from clipper_agents.memory import settle_memory
from clipper_stream.batching.limits import BatchLimit
from clipper_stream.batching.window import Window

FRAME_ROWS = 256
"""About what a router sends at once under load."""


@dataclass(frozen=True, slots=True)
class BatchSeen:
    """One batch: when it was answered, in seconds from the first one; its rows; its latency; the limit afterwards."""

    at_s: float
    rows: int
    latency_s: float
    limit_rows: int


@dataclass(slots=True)
class EngineRun:
    """What an engine did.

    Attributes:
        batches: In their order.
        seconds: How long it ran, from the end of the first batch on: until then the backlog was being built up.
        waits_s: Of each frame that was answered, seconds from its submission, where these were asked for.
    """

    batches: list[BatchSeen] = field(default_factory=list)
    seconds: float = 0.0
    waits_s: list[float] = field(default_factory=list)
    first_done: asyncio.Event = field(default_factory=asyncio.Event)
    _began_s: float = 0.0

    @property
    def rows_per_s(self) -> float:
        """Rows answered a second of wall time, without those of the first batch; 0 where there was no other."""
        return 0.0 if not self.seconds else round(sum(batch.rows for batch in self.batches[1:]) / self.seconds, 1)

    def batch(self, *, rows: int, failed: int, latency_s: float, limit_rows: int, **_: object) -> None:
        if failed:
            raise RuntimeError(f"{failed} of {rows} rows failed")
        now_s = time.perf_counter()
        if not self.batches:
            self._began_s = now_s
            self.first_done.set()
        self.seconds = now_s - self._began_s
        self.batches.append(BatchSeen(self.seconds, rows, latency_s, limit_rows))

    def late(self, rows: int) -> None:
        raise RuntimeError(f"{rows} rows were late, without any deadline")

    def queued(self, rows: int) -> None:
        """Not asked."""

    def send(self, partition: int, pieces: Any) -> None:
        """The answers are safe at once."""

    def finish(self, origins: list[float]) -> None:
        now_s = time.perf_counter()
        self.waits_s.extend(now_s - began_s for began_s in origins)


Feed = Callable[[HostEngine, EngineRun], Awaitable[None]]


def run_engine(
    model: Any, limit: BatchLimit, feed: Feed, seconds: float, *, max_delay_s: float = 0.0, open_rows: int = 20_000
) -> EngineRun:
    """A model under an engine for so many seconds; what is open at their end is dropped.

    Args:
        model: Runs in a thread, as every model does whose full batch takes longer than a millisecond.
        limit: Goes on learning from where it was.
        feed: Submits frames until it is cancelled.
        seconds: How long.
        max_delay_s: Of the window.
        open_rows: Most rows in the engine.
    """
    settle_memory()  # as a host does when its model is loaded
    return uvloop.run(_run_engine(model, limit, feed, seconds, max_delay_s, open_rows))


async def _run_engine(
    model: Any, limit: BatchLimit, feed: Feed, seconds: float, max_delay_s: float, open_rows: int
) -> EngineRun:
    run = EngineRun()
    batcher = HostBatcher(Window(max_delay_s), limit, open_rows)
    engine = HostEngine(batcher, Predictor(model, inline=False), run, run)
    tasks = [asyncio.create_task(engine.run()), asyncio.create_task(feed(engine, run))]
    tasks.append(asyncio.create_task(_wait(run, seconds)))
    done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in done:
        task.result()  # raises what ended it
    return run


async def _wait(run: EngineRun, seconds: float) -> None:
    await run.first_done.wait()
    await asyncio.sleep(seconds)


def backlog(rows: NDArray[Any]) -> Feed:
    """Frames without end, as fast as the engine takes them."""
    frames = [
        asked(rows[start : start + FRAME_ROWS], frame)
        for frame, start in enumerate(range(0, len(rows) - FRAME_ROWS + 1, FRAME_ROWS))
    ]

    async def feed(engine: HostEngine, _run: EngineRun) -> None:
        for frame in itertools.cycle(frames):
            await engine.submit([replace(frame, origin=time.perf_counter())])

    return feed


def asked(rows: NDArray[Any], frame: int) -> RequestRows:
    """A frame of these rows, without deadlines."""
    rows = np.ascontiguousarray(rows)
    kind = (str(rows.dtype), *rows.shape[1:])
    deadlines_s = (inf,) * len(rows)
    return RequestRows(router=b"bench", frame=frame, reply=0, kind=kind, rows=rows, deadlines_s=deadlines_s)
