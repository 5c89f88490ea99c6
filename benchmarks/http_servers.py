"""How fast is this pipeline beside model servers that a user would pick instead, and for how much CPU?

    python benchmarks/http_servers.py --json results/http_servers.json      # about eight minutes
    python benchmarks/http_servers.py --quick

The same model behind MLServer (batches of a fixed size and wait), BentoML (sized by a regression), Ray Serve (fixed)
and FastAPI (called in the handler, no batches) over HTTP, one row a request; and in this pipeline: through Kafka, with
the model in the router and in a host, and through its gateway over HTTP, with the model in the router, one row a
request and 16 (`gateway-packed`). The servers' packages go into environments of their own, made on first use. None of
the servers chooses, caches, logs or learns. `bare` is the calibration: the gateway's HTTP layer (Starlette, uvicorn and
its protocol class) with a constant answer, without a pipeline.

An open loop at fixed rates, each latency counted from the intended send time; then a closed loop with a fixed number of
requests without an answer, for as long, by `wrk` where it is installed, because a generator in Python costs more than
the server; `client` in the result says which. wrk looks at no labels, so a sample is checked before and after. A
missing or wrong answer is late for ever. No row comes twice. CPU from /proc, of all processes of the system but the
broker's (`broker_cpu_us` in the result, where the broker is our own).
"""

import argparse
import asyncio
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, Literal

from rig.contenders import NotInstalled, versions
from rig.http_load import WRK, WrkFailed, paced, saturated, saturated_by_wrk, write_lines
from rig.measuring import loaded, rows, warm_broker
from rig.model_servers import SERVERS, Served, Server, made, requests, serving
from rig.processes import cpu_s_by_process
from rig.results import Measures, Run, Summary, Target, median_of
from rig.session import Session, in_rounds, parsed, report, session, system_options
from rig.systems import SYSTEMS

from clipper_loadgen import LoadPlan

SATURATION = "saturation"
CPU, PER_S = "CPU µs a query", "answers/s"
OURS = ("colocated", "separate")
RIVALS_OF_OURS = ("mlserver", "bentoml", "ray-serve")
WRK_ROWS_PER_S = 10_000
"""Rows that are prepared for wrk, which sends the first ones again when a system has answered them all."""
WRK_PACKED_ROWS_PER_S = 50_000
SAMPLE, AT_ONCE, SAMPLE_S = 64, 8, 60.0
"""Requests whose labels are checked beside wrk's: how many, how many at once, and within how many seconds."""
MEASURES: Measures = {
    "p50 ms": lambda run: run.get("p50_ms"),
    "p99 ms": lambda run: run.get("p99_ms"),
    PER_S: lambda run: run.get("throughput_per_s"),
    "rows/s": lambda run: run.get("rows_per_s"),
    CPU: lambda run: run.get("system_cpu_us"),
    "gateway CPU µs": lambda run: run.get("gateway_cpu_us"),
}
Bound = tuple[str, str, tuple[str, str] | None, Literal["<=", ">="], float]
SLOW, FAST = "200/s", "1000/s"
GATEWAY = f"gateway, {SATURATION}"
BOUNDS: Sequence[Bound] = (
    (f"gateway, {SLOW}", "p50 ms", (f"mlserver, {SLOW}", "p50 ms"), "<=", 2.0),
    (f"gateway, {SLOW}", "p99 ms", (f"mlserver, {SLOW}", "p99 ms"), "<=", 2.5),
    (f"gateway, {SLOW}", CPU, (f"mlserver, {SLOW}", CPU), "<=", 1.0),
    (f"gateway, {FAST}", "p50 ms", None, "<=", 3.5),
    (GATEWAY, PER_S, (f"fastapi, {SATURATION}", PER_S), ">=", 0.75),
    (GATEWAY, "gateway CPU µs", None, "<=", 250.0),
    (f"gateway-packed, {SATURATION}", "rows/s", (GATEWAY, PER_S), ">=", 4.0),
    *((f"colocated, {SATURATION}", CPU, (f"{name}, {SATURATION}", CPU), "<=", 0.5) for name in RIVALS_OF_OURS),
)
"""What is expected of ours: row, measure, what it is divided by, sense, bound."""
QUICK = {"rounds": 1, "rates": [200], "seconds": 0.5, "warmup": 0.1, "queries": 300, "outstanding": 32, "warm": 0}


def main() -> None:
    options = arguments()
    with session(options) as here:
        warm_broker(here, options.warm)
        runs = in_rounds(options.systems, options.rounds, lambda name, number: measured(name, number, here, options))
    calibration = {f"gateway, {load_name(load)}": f"bare, {load_name(load)}" for load in loads(options)}
    used = {SERVERS[name].environment for name in options.systems if name in SERVERS and SERVERS[name].package}
    rivals = versions(*(f"requirements{environment}.txt" for environment in sorted(used)))
    title = "median (least to most), x: times bare"
    report(options, title, runs, MEASURES, lambda found: targets(found, options), calibration, rivals=rivals)


def measured(name: str, number: int, here: Session, options: argparse.Namespace) -> Iterator[Run]:
    """Every load on one system, one after the other."""
    place = here.place(f"l{number}-{name}")
    if name in OURS:
        with SYSTEMS[name](place) as roots:
            for load in loads(options):
                yield {"load": load_name(load), **loaded(plan(load, options), place, roots, here.broker)}
        return
    try:
        with serving(SERVERS[name], place, install=options.install) as served:
            for load in loads(options):
                figures = asked(SERVERS[name], served, here, load, options)
                yield {"load": load_name(load), "rows_each": SERVERS[name].rows_each, **figures}
    except NotInstalled as error:
        yield {"note": f"did not run: {error}"}
    except WrkFailed as error:  # Ray Serve's proxy takes no connections any more after a rate beyond it
        yield {"load": SATURATION, "note": f"was not there any more: {error}"}


def load_name(rate: float | None) -> str:
    return f"{rate:g}/s" if rate else SATURATION


def loads(options: argparse.Namespace) -> list[float | None]:
    """The rates, and None for saturation."""
    return [*options.rates, None]


def plan(rate: float | None, options: argparse.Namespace) -> LoadPlan:
    """The load on this pipeline."""
    if rate is None:
        inputs = rows(options.queries, seed=1)
        return LoadPlan(
            "digits", mode=SATURATION, queries=options.queries, outstanding=options.outstanding, dataset=inputs
        )
    return LoadPlan(
        "digits",
        rate_per_s=rate,
        duration_s=options.seconds,
        warmup_s=options.warmup,
        arrivals="constant",
        dataset=rows(round(rate * (options.warmup + options.seconds)), seed=round(rate)),
    )


def asked(
    server: Server, served: Served, here: Session, rate: float | None, options: argparse.Namespace
) -> dict[str, Any]:
    """The same load over HTTP; at a fixed rate after a warm-up."""
    if rate is not None:
        asyncio.run(paced(served.url, requests(server, round(rate * options.warmup), 1), server.labels, rate))
        timed = requests(server, round(rate * options.seconds), 2)
        return with_cpu(lambda: asyncio.run(paced(served.url, timed, server.labels, rate)), served, here, server)
    if WRK is None:
        several = requests(server, options.queries, 3)
        load = partial(saturated, served.url, several, server.labels, options.outstanding, options.seconds)
        return with_cpu(lambda: asyncio.run(load()), served, here, server)
    rows_per_s = WRK_ROWS_PER_S if server.rows_each == 1 else WRK_PACKED_ROWS_PER_S
    count, lines = math.ceil(options.seconds) * rows_per_s // server.rows_each, here.folder / "wrk-bodies"
    write_lines(lines, (body for body, _ in made(server, count, 3)))
    wrong = wrong_of_sample(server, served, 4)
    by_wrk = partial(saturated_by_wrk, served.url, lines, options.outstanding, options.seconds)
    figures = with_cpu(by_wrk, served, here, server)
    wrong += wrong_of_sample(server, served, 5)
    repeated = max(0, figures["queries"] - count) if served.gateway else 0
    note = f"{repeated} requests came again, and were perhaps answered by the cache" if repeated else ""
    return figures | {"wrong": wrong, "note": note}


def with_cpu(load: Callable[[], dict[str, Any]], served: Served, here: Session, server: Server) -> dict[str, Any]:
    """Figures of a load, with the CPU that it took by part of the system, and rows a second where they are packed."""
    groups = {"system": served.roots, "gateway": served.gateway, "broker": here.broker if served.gateway else []}
    before_s = {name: cpu_s(pids) for name, pids in groups.items()}
    figures = load()
    for name, pids in groups.items():
        if pids:
            figures[f"{name}_cpu_us"] = round((cpu_s(pids) - before_s[name]) * 1e6 / figures["queries"], 1)
    if server.rows_each > 1:
        figures["rows_per_s"] = round(figures["throughput_per_s"] * server.rows_each, 1)
    return figures


def cpu_s(pids: list[int]) -> float:
    return sum(cpu_s_by_process(pids).values())


def wrong_of_sample(server: Server, served: Served, seed: int) -> int:
    """How many of some requests had no answer or a wrong one."""
    sample = requests(server, SAMPLE, seed)
    return int(asyncio.run(saturated(served.url, sample, server.labels, AT_ONCE, SAMPLE_S))["missing"])


def targets(found: Summary, options: argparse.Namespace) -> list[Target]:
    """What is expected of ours, beside the servers of the same run, as far as both were asked for."""
    asked_for = {f"{system}, {load_name(load)}" for system in options.systems for load in loads(options)}
    expected = []
    for row, measure, base, sense, bound in BOUNDS:
        value, words = median_of(found, row, measure), f"{row}: {measure}"
        if base is not None:
            other = median_of(found, *base)
            value = round(value / other, 3) if value is not None and other else None
            words += f", x {base[0]}"
        if row in asked_for and (base is None or base[0] in asked_for):
            expected.append(Target(benchmark="L", what=words, value=value, sense=sense, bound=bound))
    return expected


def arguments() -> argparse.Namespace:
    systems = [*SERVERS, *OURS]
    parser = system_options(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rates", nargs="+", type=float, default=[200, 1_000], help="queries a second")
    parser.add_argument("--seconds", type=float, default=5.0, help="of measured latency at each rate")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds at the same rate before")
    parser.add_argument("--queries", type=int, default=20_000, help="at saturation")
    parser.add_argument("--outstanding", type=int, default=256, help="queries without an answer, at saturation")
    parser.add_argument("--warm", type=int, default=20_000, help="queries through an echo before the first system")
    parser.add_argument("--systems", nargs="+", choices=systems, default=systems)
    parser.add_argument("--no-install", dest="install", action="store_false", help="use servers that are there already")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
