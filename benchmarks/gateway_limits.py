"""What do many, slow and vanishing clients cost the others at the gateway, and what does overload do?

    python benchmarks/gateway_limits.py --json results/gateway_limits.json        # about three minutes
    python benchmarks/gateway_limits.py --quick

First, other clients ask a prompt model at a steady rate (an open loop, latency from the intended send time): `alone`;
beside connections that have asked once and stay `idle`; beside `slow` clients, who send a byte a second of their
headers or their body, and begin again when the gateway cuts them off; and beside some that `vanish` with half a body
sent, or before they have read their answer; and beside one `greedy` caller who takes all that callers share: searches
for unknown queries, live pages, dead letters, sign-ins, bodies in flight. `before` and `after` all of that:
descriptors, connections and resident memory of the gateway.

Then `overload`: a model that takes 20 ms for a batch of at most 10 rows and no CPU (`models.accelerator`), so at most
500 rows a second, and an objective of 200 ms. A closed loop measures the capacity; an open loop has a calm rate, five
times the capacity, and the calm rate again. Taken: answered with 200, also by a default output. Refused: by 429.
Goodput: outputs of the model within the objective and a fifth, a second. `normal after`: seconds until the median is at
most twice that of the calm before, and stays there, by windows of half a second.

Clients, broker, router and gateway share two cores. `of its limit` is the capacity as a share of what the model's wait
alone allows: where it is far below 1, these cores bound the capacity, and the overload takes them from the router too.
The open loop is a process of its own that sends prepared bytes; `sent_late_p99_ms` in the result says how far it was
behind its own times.
"""

import argparse
import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from itertools import cycle
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from models import INPUTS, RIGHT
from rig.careless_clients import greedy_clients, idle_clients, slow_clients, vanishing_clients
from rig.http_flood import OK, TOO_MANY, Answers, Phase, flood, flood_process
from rig.http_load import answering, saturated
from rig.measuring import warm_broker
from rig.processes import NotServing, memory_mib_by_process
from rig.results import Measures, Run, Summary, Target, load_average, median_of, show, summary
from rig.session import Session, finish, in_rounds, parsed, session, system_options
from rig.systems import HttpPipeline, application, model, pipeline_with_gateway, written

OVERLOAD = "overload"
PROMPT, LIMITED = "prompt", "limited"
"""Applications."""
OBJECTIVE_MS, BATCH_ROWS, BATCH_S = 200, 10, 0.02
IN_TIME_MS = 1.2 * OBJECTIVE_MS
TIMES_CAPACITY, CALM_SHARE = 5.0, 0.2
CLOSED_LOOP = 60
"""Requests at once that measure the capacity: six batches keep the model busy, and fewer than 64 are never refused."""
WINDOW_S = 0.5
LISTENING, NO_PROCESS = "0A", "0"
"""State of a socket and its inode, in /proc/net/tcp."""
READY_S, SETTLED_S = 60.0, 30.0
CLIENTS: Measures = {
    "p50 ms": lambda run: run.get("p50_ms"),
    "p99 ms": lambda run: run.get("p99_ms"),
    "RSS MiB": lambda run: run.get("rss_mib"),
    "connections": lambda run: run.get("connections"),
    "descriptors": lambda run: run.get("descriptors"),
}
OVERLOAD_MEASURES: Measures = {
    "capacity/s": lambda run: run["capacity_per_s"],
    "of its limit": lambda run: round(run["capacity_per_s"] * BATCH_S / BATCH_ROWS, 3),
    "goodput/s": lambda run: run["goodput_per_s"],
    "goodput, x capacity": lambda run: round(run["goodput_per_s"] / run["capacity_per_s"], 3),
    "taken p99 ms": lambda run: run["taken_p99_ms"],
    "refused p99 ms": lambda run: run["refused_p99_ms"],
    "refused, share": lambda run: run["refused_ratio"],
    "neither, share": lambda run: run["unanswered_ratio"],
    "normal after s": lambda run: run["normal_after_s"],
}
QUICK = {
    "rounds": 1, "idle": 100, "slow": 20, "vanishing": 40, "greedy": 20, "beside": 0.5, "warmup": 0.2, "calm": 0.5,
    "seconds": 3.0, "after": 1.0, "warm": 0,
}  # fmt: skip


def main() -> None:
    options = arguments()
    with session(options) as here:
        warm_broker(here, options.warm)
        config = written(here.folder / "gateway-limits.toml", *declared())
        runs = in_rounds(["gateway"], options.rounds, lambda _, number: measured(number, here, config, options))
    found: Summary = {}
    for title, measures in (("other clients", CLIENTS), (OVERLOAD, OVERLOAD_MEASURES)):
        several = [run for run in runs if (run["system"] == OVERLOAD) == (title == OVERLOAD)]
        part = summary(several, measures)
        show(f"{title}, median (least to most)", part, several)
        found |= part
    finish(options, runs, found, targets(found))


def declared() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Applications and models."""
    fixed = {"limit": "fixed", "max_rows": BATCH_ROWS}
    slow = model(LIMITED, "models:accelerator", colocated=True, parameters={"batch_s": BATCH_S}, batch=fixed)
    applications = [
        application(PROMPT, [PROMPT], "single", 1_000),
        application(LIMITED, [LIMITED], "single", OBJECTIVE_MS),
    ]
    return applications, [model(PROMPT, "models:prompt", colocated=True), slow]


def measured(number: int, here: Session, config: str, options: argparse.Namespace) -> Iterator[Run]:
    """Every kind of client, then the overload, on one system."""
    with pipeline_with_gateway(here.place(f"n{number}"), config) as system, flood_process() as pool:
        for name in (PROMPT, LIMITED):
            if not asyncio.run(answering(url_of(system, name), (bodies()[0], [RIGHT]), label, READY_S)):
                raise NotServing(f"application {name} gave no right answer within {READY_S:.0f} s")
        yield from careless(system, pool, options)
        yield {"system": OVERLOAD, "load_before": load_average(), **overloaded(system, pool, options)}


def url_of(system: HttpPipeline, name: str) -> str:
    return f"{system.url}/v1/applications/{name}/predict"


def label(response: Any) -> list[int]:
    return [response["output"]]


def bodies() -> list[bytes]:
    """Some requests of one row; neither model is cached, so they may come again."""
    rows = np.random.default_rng(0).integers(0, 1_000, (64, INPUTS)) / 1_000.0
    return [msgspec.json.encode({"input": row}) for row in rows.tolist()]


# --- many, slow and vanishing clients --------------------------------------------------------------------------------
def careless(system: HttpPipeline, pool: ProcessPoolExecutor, options: argparse.Namespace) -> Iterator[Run]:
    url, body = url_of(system, PROMPT), bodies()[0]
    pool.submit(flood, url, bodies(), [Phase(options.rate, options.warmup)]).result()
    before = settled(system, {"connections": 0})
    yield {"system": "before", **before}
    kinds: dict[str, AbstractAsyncContextManager[Any]] = {
        "alone": nullcontext(),
        "idle": idle_clients(url, body, options.idle),
        "slow": slow_clients(url, body, options.slow),
        "vanish": vanishing(url, body, options),
        "greedy": greedy_clients(url, PROMPT, options.greedy),
    }
    for name, clients in kinds.items():
        yield {"system": name, "load_before": load_average(), **asyncio.run(beside(clients, system, pool, options))}
    yield {"system": "after", **settled(system, {name: before[name] for name in ("connections", "descriptors")})}


@asynccontextmanager
async def vanishing(url: str, body: bytes, options: argparse.Namespace) -> AsyncIterator[None]:
    """Clients that vanish one by one during the measurement; the block ends after the last one."""
    task = asyncio.create_task(vanishing_clients(url, body, options.vanishing, options.beside))
    yield
    await task


async def beside(
    clients: AbstractAsyncContextManager[Any],
    system: HttpPipeline,
    pool: ProcessPoolExecutor,
    options: argparse.Namespace,
) -> dict[str, Any]:
    """What the others see beside these clients, and the gateway's state at its end."""
    async with clients as slow:
        load = pool.submit(flood, url_of(system, PROMPT), bodies(), [Phase(options.rate, options.beside)])
        (answers,) = await asyncio.wrap_future(load)
        state = level(system)
    found = {"p50_ms": percentile_ms(answers, 50), "p99_ms": percentile_ms(answers, 99), **state}
    found |= {"missing": int(np.sum((answers.status != OK) | answers.default)), **lateness(answers)}
    return found if slow is None else found | {"cut_off": slow.cut_off}


def level(system: HttpPipeline) -> dict[str, Any]:
    """What the gateway holds now."""
    memory = memory_mib_by_process([system.gateway])
    return {
        "rss_mib": round(sum(sizes["rss"] for sizes in memory.values()), 1),
        "connections": connections_to(system.port),
        "descriptors": sum(1 for _ in Path(f"/proc/{system.gateway}/fd").iterdir()),
    }


def settled(system: HttpPipeline, most: dict[str, int]) -> dict[str, Any]:
    """`level` once it is so low, or after `SETTLED_S`."""
    give_up_s = time.monotonic() + SETTLED_S
    while any((found := level(system))[name] > bound for name, bound in most.items()):
        if time.monotonic() > give_up_s:
            break
        time.sleep(0.1)
    return found


def connections_to(port: int) -> int:
    """Connections to a port of this machine that a process holds (proc(5), /proc/net/tcp)."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    ours = [fields for fields in lines if fields[1].endswith(f":{port:04X}")]
    return sum(fields[3] != LISTENING and fields[9] != NO_PROCESS for fields in ours)


# --- overload --------------------------------------------------------------------------------------------------------
def overloaded(system: HttpPipeline, pool: ProcessPoolExecutor, options: argparse.Namespace) -> dict[str, Any]:
    """Capacity by a closed loop, then calm, overload and calm again by one open loop."""
    url = url_of(system, LIMITED)
    for seconds in (options.warmup, options.beside):
        asked = ((body, [RIGHT]) for body in cycle(bodies()))
        closed = asyncio.run(saturated(url, asked, label, CLOSED_LOOP, seconds))
    capacity = max(1.0, closed["throughput_per_s"])
    phases = [
        Phase(CALM_SHARE * capacity, options.calm),
        Phase(TIMES_CAPACITY * capacity, options.seconds),
        Phase(CALM_SHARE * capacity, options.after),
    ]
    before, during, after = pool.submit(flood, url, bodies(), phases).result()
    taken, refused = during.status == OK, during.status == TOO_MANY
    good = taken & ~during.default & (during.took_s * 1_000 <= IN_TIME_MS)
    return {
        "capacity_per_s": capacity,
        "capacity_p99_ms": closed["p99_ms"],
        "goodput_per_s": round(int(good.sum()) / options.seconds, 1),
        "taken_p50_ms": percentile_ms(during, 50, taken),
        "taken_p99_ms": percentile_ms(during, 99, taken),
        "refused_p50_ms": percentile_ms(during, 50, refused),
        "refused_p99_ms": percentile_ms(during, 99, refused),
        "refused_ratio": round(float(refused.mean()), 4),
        "defaults_of_taken": round(float(during.default.sum() / max(1, taken.sum())), 4),
        "unanswered_ratio": round(float((~taken & ~refused).mean()), 6),
        "statuses": {str(status): int((during.status == status).sum()) for status in np.unique(during.status)},
        "calm_p50_ms": percentile_ms(before, 50),
        "normal_after_s": normal_after_s(before, after),
        **lateness(during),
    }


def normal_after_s(before: Answers, after: Answers) -> float | None:
    """Seconds until the medians of all further windows are at most twice that of before; None: never."""
    bound_s = 2 * float(np.median(before.took_s))
    took_s = np.where((after.status == OK) & ~after.default, after.took_s, np.inf)
    windows = (after.due_s / WINDOW_S).astype(int)
    slow = [window for window in np.unique(windows) if np.median(took_s[windows == window]) > bound_s]
    if slow and slow[-1] == windows.max():
        return None
    return float(slow[-1] + 1) * WINDOW_S if slow else 0.0


def percentile_ms(answers: Answers, percent: float, of: Any = slice(None)) -> float | None:
    """Of some of the answers; None where it falls on a request without one."""
    took_s = answers.took_s[of]
    value = float(np.percentile(took_s, percent, method="higher")) if len(took_s) else np.inf
    return round(value * 1_000, 3) if np.isfinite(value) else None


def lateness(answers: Answers) -> dict[str, float]:
    return {"sent_late_p99_ms": round(float(np.percentile(answers.sent_late_s, 99)) * 1_000, 3)}


# --- expectations ----------------------------------------------------------------------------------------------------
def targets(found: Summary) -> list[Target]:
    def times(row: str, measure: str, base: str) -> float | None:
        value, of = median_of(found, row, measure), median_of(found, base, measure)
        return round(value / of, 3) if value is not None and of else None

    def more(measure: str) -> float | None:
        value, before = median_of(found, "after", measure), median_of(found, "before", measure)
        return None if value is None or before is None else value - before

    beside_others = [
        Target(benchmark="N", what=f"{row}: p99 ms of the others, x alone", value=times(row, "p99 ms", "alone"),
               sense="<=", bound=2)
        for row in ("idle", "slow", "vanish", "greedy")
    ]  # fmt: skip
    left = [
        Target(benchmark="N", what=f"after all: {measure} beyond before", value=more(measure), sense="<=", bound=0)
        for measure in ("connections", "descriptors")
    ]
    grown = times("after", "RSS MiB", "before")
    row = (found, OVERLOAD)
    return [
        Target.of("N", "idle: RSS MiB of the gateway", (found, "idle", "RSS MiB"), "<=", 200),
        *beside_others,
        *left,
        Target(benchmark="N", what="after all: RSS, x before", value=grown, sense="<=", bound=1.25),
        Target.of("N", "overload: p99 ms of refusals", (*row, "refused p99 ms"), "<=", 50),
        Target.of("N", "overload: p99 ms of what is taken", (*row, "taken p99 ms"), "<=", IN_TIME_MS),
        Target.of("N", "overload: goodput, x capacity", (*row, "goodput, x capacity"), ">=", 0.8),
        Target.of("N", "overload: neither taken nor refused, share", (*row, "neither, share"), "<=", 0),
        Target.of("N", "overload: normal after s", (*row, "normal after s"), "<=", 5),
    ]


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second of the others")
    parser.add_argument("--beside", type=float, default=10.0, help="seconds of that, beside each kind of client")
    parser.add_argument("--warmup", type=float, default=5.0, help="seconds of that before")
    parser.add_argument("--warm", type=int, default=20_000, help="queries through an echo before the first system")
    parser.add_argument("--idle", type=int, default=2_000, help="connections that ask nothing any more")
    parser.add_argument("--slow", type=int, default=200, help="clients that send a byte a second")
    parser.add_argument("--vanishing", type=int, default=1_000, help="clients that vanish")
    parser.add_argument("--greedy", type=int, default=300, help="connections of one caller that takes what is shared")
    parser.add_argument("--calm", type=float, default=5.0, help="seconds of the calm rate before the overload")
    parser.add_argument("--seconds", type=float, default=60.0, help="of overload")
    parser.add_argument("--after", type=float, default=10.0, help="seconds of the calm rate after it")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
