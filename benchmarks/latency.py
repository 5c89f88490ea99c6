"""How long does a prediction take from topic to topic, and how much of that is Kafka?

    python benchmarks/latency.py --json results/latency.json        # about fifteen minutes
    python benchmarks/latency.py --quick

Four systems on one broker, the same queries, in rounds that rotate their order: the pipeline with its model inside the
router (`colocated`, two hops) beside a bare aiokafka echo with two hops (`echo`), and the pipeline with its model in a
host process (`separate`, four hops) beside an echo of four hops (`echo-chain`). Each gets new topics and new processes.

An open loop at fixed rates, each latency counted from the intended send time (no coordinated omission); `half` is half
of the rate at which the same pipeline, in the same round, answered when a bounded number of queries was always
outstanding. The echoes run at the fixed rates only: half of what they saturate at would be another load.

At half of saturation the generator sends every 5 ms, as Kafka's own producers do by default: with a request for each
query or two, generator and broker alone use up the CPU that they share, and their own queue is what is measured.

That load comes several times in each round, because a stall of some milliseconds decides its p99, and in turn with the
same load on an application with an objective of 50 ms: how many answers are the default?

A net and images of 784 numbers, at half of each system's own saturation alone, in the first round: ours with the net in
the router (`net`) beside Kafka Streams and Flink in Java. All find their saturation twice, the first time for a JVM to
compile its hot paths.

CPU by process from /proc. Where broker and generator share a CPU and use more than 0.8 of it, the queue before them is
what was measured; a note says so.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from itertools import count

import numpy as np
from rig.contenders import JAVA_VERSIONS, NotInstalled, command_of, contenders, versions
from rig.measuring import loaded, rows, warm_broker
from rig.results import Measures, Run, Summary, Target
from rig.session import Session, in_rounds, parsed, report, session, system_options
from rig.systems import RIVAL_OF, SYSTEMS, Place, pipeline, rival
from rig.tasks import IMAGES

from clipper_loadgen import Dataset, LoadPlan

HALF, SATURATION = "half", "saturation"
IN_A_HURRY = "50 ms objective"
TICK_S = 0.005
"""Of the generator, at half of saturation: so long Kafka's own producers wait by default."""
MEASURES: Measures = {
    "p50 ms": lambda run: run.get("p50_ms"),
    "p99 ms": lambda run: run.get("p99_ms"),
    "p99.9 ms": lambda run: run.get("p99.9_ms"),
    "answers/s": lambda run: run.get("throughput_per_s"),
    "defaults, share": lambda run: run.get("default_ratio"),
    "CPU µs a query": lambda run: run.get("system_cpu_us"),
    "broker CPU": lambda run: run.get("broker_cpu"),
    "generator CPU": lambda run: run.get("generator_cpu"),
}
JAVA = ("kafka-streams-net", "flink-net")
NETS = ("net", *JAVA)
IMAGES_SHARE = 2
"""Images are answered more slowly: half as many of them find the saturation."""
P50_X, P99_X = 1.3, 1.5
"""At most, in those of the echo with the same hops at 200 and 1,000 queries a second."""
BOUNDS = {
    "colocated": ({"200": 2.0, "1000": 1.0}, 25.0),
    "separate": ({"200": 1.2, "1000": 0.7}, 60.0),
}
"""At most: CPU a query by rate, in that of the echo; p99 in milliseconds of every load at half of saturation."""
QUICK = {
    "rounds": 1,
    "queries": 2_000,
    "outstanding": 500,
    "seconds": 0.4,
    "warmup": 0.1,
    "rates": ["200"],
    "warm": 0,
    "halves": 1,
    "systems": [*SYSTEMS, "net"],
}


def main() -> None:
    options = arguments()
    with session(options) as here:
        warm_broker(here, options.warm)
        runs = in_rounds(options.systems, options.rounds, lambda name, number: measured(name, number, here, options))
    rivals = {f"{mine}, {rate}": f"{rival}, {rate}" for mine, rival in RIVAL_OF.items() for rate in loads(options)}
    title = "median (least to most), x: times the echo with the same hops at the same rate"
    report(options, title, runs, MEASURES, targets, rivals, rivals=versions(JAVA_VERSIONS))


Loaded = Callable[[str, LoadPlan], Run]
"""Puts a load on a system, by its name and plan."""


def measured(name: str, number: int, here: Session, options: argparse.Namespace) -> Iterator[Run]:
    """Every load on one system, one after the other.

    Each load has its own seed: an input that came before would be answered from the cache.
    """
    if name in NETS and number:
        return
    place = here.place(f"b{number}-{name}")
    try:
        system = started(name, place, install=options.install)
    except NotInstalled as error:
        yield {"note": f"did not run: {error}"}
        return
    with system as roots:
        every_load = loads_of_net if name in NETS else loads_of_digits
        yield from every_load(
            name, lambda load, plan: {"load": load, **loaded(plan, place, roots, here.broker)}, options
        )


def loads_of_digits(name: str, run: Loaded, options: argparse.Namespace) -> Iterator[Run]:
    seeds = count(1)

    def at(rate: str, rate_per_s: float, application: str = "digits", more: str = "") -> Run:
        plan = paced(name, application, rate_per_s, next(seeds), options, TICK_S if rate == HALF else 0.0)
        return run(load_name(rate) + more, plan)

    most = run(SATURATION, saturating(name, next(seeds), options)) if name in RIVAL_OF else None
    if most:
        yield most
    for rate in options.rates:
        if rate != HALF:
            yield at(rate, float(rate))
    if most and HALF in options.rates:
        for _ in range(options.halves):
            yield at(HALF, half_of(most))
            yield at(HALF, half_of(most), "digits-50ms", f", {IN_A_HURRY}")


def loads_of_net(name: str, run: Loaded, options: argparse.Namespace) -> Iterator[Run]:
    run(SATURATION, saturating(name, 0, options))
    most = run(SATURATION, saturating(name, 1, options))
    yield most
    yield run(load_name(HALF), paced(name, "digits", half_of(most), 2, options, TICK_S))


def half_of(most: Run) -> float:
    return (most["throughput_per_s"] or 0.0) / 2 or 1.0


def started(name: str, place: Place, *, install: bool) -> AbstractContextManager[list[int]]:
    """A system for the time of a block; its process ids.

    Raises:
        NotInstalled: a rival in Java that is not there, and could not be made.
    """
    if name in SYSTEMS:
        return SYSTEMS[name](place)
    contender = contenders("msgpack")["net-json" if name == "net" else name]
    command, environ = command_of(contender, place, install=install)
    return rival(place, {name: command}, environ) if name in JAVA else pipeline(place, contender.config)


def load_name(rate: str) -> str:
    return "half of saturation" if rate == HALF else f"{rate}/s"


def loads(options: argparse.Namespace) -> list[str]:
    return [load_name(rate) for rate in options.rates]


def dataset(name: str, count: int, seed: int) -> Dataset:
    if name in NETS:
        return Dataset(IMAGES.rows(np.random.default_rng(seed), count).astype(np.float32))
    return rows(count, seed)


def saturating(name: str, seed: int, options: argparse.Namespace) -> LoadPlan:
    queries = options.queries // (IMAGES_SHARE if name in NETS else 1)
    return LoadPlan(
        "digits-backlog",
        mode="saturation",
        queries=queries,
        outstanding=options.outstanding,
        dataset=dataset(name, queries, seed),
        encoding=options.encoding,
    )


def paced(
    name: str, application: str, rate_per_s: float, seed: int, options: argparse.Namespace, tick_s: float
) -> LoadPlan:
    return LoadPlan(
        application,
        rate_per_s=rate_per_s,
        duration_s=options.seconds,
        warmup_s=options.warmup,
        arrivals="constant",
        dataset=dataset(name, round(rate_per_s * (options.warmup + options.seconds)), seed),
        encoding=options.encoding,
        linger_s=tick_s,
    )


def targets(found: Summary) -> list[Target]:
    half = load_name(HALF)
    expected: list[Target] = []
    for name, (cpu, p99_ms) in BOUNDS.items():
        for rate, most in cpu.items():
            bounds = {"p50 ms": P50_X, "p99 ms": P99_X, "CPU µs a query": most}
            expected += [_target(found, name, load_name(rate), *bound, part="ratio") for bound in bounds.items()]
        expected += [
            _target(found, name, half, "p99 ms", p99_ms, part="most"),
            _target(found, name, f"{half}, {IN_A_HURRY}", "defaults, share", 0.0, part="most"),
        ]
    return expected


def _target(found: Summary, name: str, load: str, measure: str, bound: float, part: str) -> Target:
    row = f"{name}, {load}"
    loads = found.get(row, {}).get(measure, {}).get("rounds", 0)
    words = f"x {RIVAL_OF[name]}" if part == "ratio" else f"the most of {loads} loads"
    return Target.of("B", f"{row}: {measure}, {words}", (found, row, measure), "<=", bound, part)


def load_options(question: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a benchmark that puts `saturating` and `paced` loads on systems."""
    parser = system_options(question)
    parser.add_argument("--seconds", type=float, default=8.0, help="of measured latency at each rate")
    parser.add_argument("--warmup", type=float, default=2.0, help="seconds at the same rate before")
    parser.add_argument("--queries", type=int, default=80_000, help="to find saturation")
    parser.add_argument("--outstanding", type=int, default=10_000, help="queries without an answer, at saturation")
    parser.add_argument("--encoding", choices=["json", "msgpack"], default="json")
    parser.add_argument("--warm", type=int, default=20_000, help="queries through an echo before the first system")
    return parser


def arguments() -> argparse.Namespace:
    parser = load_options(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--halves", type=int, default=5, help="loads at half of saturation in each round, of each kind")
    parser.add_argument("--rates", nargs="+", default=["200", "1000", "5000", HALF], help="queries a second, or `half`")
    known = [*SYSTEMS, *NETS]
    parser.add_argument("--systems", nargs="+", choices=known, default=known)
    parser.add_argument("--no-install", dest="install", action="store_false", help="use rivals that are there already")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
