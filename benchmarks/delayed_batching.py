"""What does it bring to let rows wait for company, where a call of the model has a fixed cost?

    python benchmarks/delayed_batching.py --json results/delayed_batching.json        # about a minute
    python benchmarks/delayed_batching.py --quick

Clipper's figure 5: scikit-learn's linear SVM, whose call costs about 0.15 ms and whose row almost nothing, under the
host's own engine without Kafka. Rows arrive one by one (Poisson, 4000 a second, each a frame of its own, timed by a
thread of its own); a batch waits for company for 0 to 10 ms from its first row on (`max_delay_ms`).

What is measured: the mean batch, the share of the time in which the model is busy, and `rows/s of model time`: rows
answered divided by the seconds that the model was busy for them. That is the rate that one model could sustain with
such batches, or how many models of an ensemble can share a core. `answered, x offered` below 1: rows came faster than
the engine with one call a row or two could take them. Latency of a row: from its arrival to its answer.

What is not: a higher rate for a model that is behind. While it is busy rows gather anyway, and go together when it is
free; `rows/s on a backlog` shows that a delay changes nothing there. In the paper each call goes to another process,
which costs more than the model, so that the throughput itself rises.
"""

import argparse
import asyncio
import math
import random
import statistics
import threading
import time
from collections import deque
from dataclasses import replace
from typing import Any

import rig.one_thread  # noqa: F401 - before numpy is there
from rig.digit_models import images, plain_linear_svm
from rig.engines import EngineRun, Feed, asked, backlog, run_engine
from rig.results import Measures, Summary, Target, load_average, median_of
from rig.session import in_rounds, parsed, report, result_options

from clipper_agents.host.batching import RequestRows
from clipper_agents.host.engine import HostEngine
from clipper_stream.batching.limits import Fixed

MAX_ROWS = 4096
CAPACITY = "rows/s of model time"
MEASURES: Measures = {
    "rows a batch": lambda run: run["mean_rows"],
    "model busy, share": lambda run: run["busy_ratio"],
    CAPACITY: lambda run: run["rows_per_busy_s"],
    "answered, x offered": lambda run: run["answered_ratio"],
    "row p50 ms": lambda run: run["p50_ms"],
    "row p99 ms": lambda run: run["p99_ms"],
    "rows/s on a backlog": lambda run: run["backlog_per_s"],
}
QUICK = {"rounds": 1, "seconds": 0.4, "delays_ms": [0.0, 2.0]}


def main() -> None:
    options = arguments()
    model, rows = plain_linear_svm(), images()[0]
    frames = [asked(rows[index : index + 1], index) for index in range(len(rows))]
    names = {f"{delay_ms:g} ms": delay_ms / 1000 for delay_ms in options.delays_ms}
    runs = in_rounds(
        list(names),
        options.rounds,
        lambda name, number: [measured(model, names[name], frames, number, options)],
        stride=2,
    )
    title = f"{options.rate:g} rows/s one by one, by delay: median (least to most), x: times no delay"
    report(options, title, runs, MEASURES, targets, {name: next(iter(names)) for name in list(names)[1:]})


def measured(
    model: Any, delay_s: float, frames: list[RequestRows], number: int, options: argparse.Namespace
) -> dict[str, Any]:
    """One delay: rows one by one, then a backlog."""
    before = load_average()
    run = run_engine(
        model, Fixed(MAX_ROWS), one_by_one(frames, options.rate, seed=number), options.seconds, max_delay_s=delay_s
    )
    behind = run_engine(model, Fixed(MAX_ROWS), backlog(images()[0]), options.seconds / 4, max_delay_s=delay_s)
    rows, busy_s = sum(batch.rows for batch in run.batches), sum(batch.latency_s for batch in run.batches)
    waits_s = sorted(run.waits_s)
    return {
        "load_before": before,
        "mean_rows": round(statistics.fmean(batch.rows for batch in run.batches), 2),
        "busy_ratio": round(busy_s / run.seconds, 4),
        "rows_per_busy_s": round(rows / busy_s, 1),
        "answered_ratio": round(run.rows_per_s / options.rate, 3),
        "p50_ms": round(1000 * waits_s[len(waits_s) // 2], 3),
        "p99_ms": round(1000 * waits_s[math.ceil(0.99 * len(waits_s)) - 1], 3),
        "backlog_per_s": behind.rows_per_s,
    }


def one_by_one(frames: list[RequestRows], rate_per_s: float, seed: int) -> Feed:
    """Each frame at its own time, however far behind the engine is; a loop's timer would let them come in clumps."""

    async def feed(engine: HostEngine, _run: EngineRun) -> None:
        loop, arrived, came, stop = asyncio.get_running_loop(), deque[float](), asyncio.Event(), threading.Event()

        def arrive() -> None:
            draw, due_s = random.Random(seed), time.perf_counter()
            while not stop.is_set():
                due_s += draw.expovariate(rate_per_s)
                time.sleep(max(0.0, due_s - time.perf_counter()))
                arrived.append(due_s)
                loop.call_soon_threadsafe(came.set)

        thread = threading.Thread(target=arrive, daemon=True)
        thread.start()
        try:
            await _submitted(engine, frames, arrived, came)
        finally:
            stop.set()
            thread.join()

    return feed


async def _submitted(engine: HostEngine, frames: list[RequestRows], arrived: deque[float], came: asyncio.Event) -> None:
    number = 0
    while True:
        await came.wait()
        came.clear()
        while arrived:
            await engine.submit([replace(frames[number % len(frames)], origin=arrived.popleft())])
            number += 1


def targets(found: Summary) -> list[Target]:
    value = median_of(found, "2 ms", CAPACITY, "ratio")
    return [Target(benchmark="D", what=f"{CAPACITY} with a delay of 2 ms, x none", value=value, sense=">=", bound=3.3)]


def arguments() -> argparse.Namespace:
    parser = result_options(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=4000.0, help="rows a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of each delay in each round")
    parser.add_argument("--delays-ms", type=float, nargs="+", default=[0.0, 1.0, 2.0, 3.0, 5.0, 10.0])
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
