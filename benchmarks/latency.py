"""How long does a prediction take from topic to topic, and how much of that is Kafka?

    python benchmarks/latency.py --json results/latency.json        # about eight minutes
    python benchmarks/latency.py --quick

Four systems on one broker, the same queries, in rounds that rotate their order: the pipeline with its model inside the
router (`colocated`, two hops) beside a bare aiokafka echo with two hops (`echo`), and the pipeline with its model in a
host process (`separate`, four hops) beside an echo of four hops (`echo-chain`). Each gets new topics and new processes.

An open loop at fixed rates, each latency counted from the intended send time (no coordinated omission); `half` is half
of the rate at which the same pipeline, in the same round, answered when a bounded number of queries was always
outstanding. The echoes run at the fixed rates only: half of what they saturate at would be another load.

At half of saturation the generator sends every 5 ms, as Kafka's own producers do by default: with a request for each
query or two, generator and broker alone use up the CPU that they share, and their own queue is what is measured.

Then the same rates on an application with an objective of 50 ms: how many answers are the default?

A net and images of 784 numbers, at half of each system's own saturation alone: ours with the net in the router (`net`)
beside Kafka Streams and Flink in Java. All find their saturation twice, the first time for a JVM to compile its hot
paths.

CPU by process from /proc. Where broker and generator share a CPU and use more than 0.8 of it, the queue before them is
what was measured; a note says so.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import numpy as np
from rig.contenders import NotInstalled, command_of, contenders
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
BOUNDS = {
    "colocated": ({"200": 1.5, "1000": 1.0, "5000": 1.0}, 1.4, 6.0),
    "separate": ({"200": 0.8, "1000": 0.7, "5000": 0.7}, 1.0, 8.0),
}
"""At most: CPU a query by rate and p50, in those of the echo with the same hops at that rate; p99 in milliseconds."""
QUICK = {
    "rounds": 1,
    "queries": 2_000,
    "outstanding": 500,
    "seconds": 0.4,
    "warmup": 0.1,
    "rates": ["200"],
    "warm": 0,
    "systems": [*SYSTEMS, "net"],
}


def main() -> None:
    options = arguments()
    with session(options) as here:
        warm_broker(here, options.warm)
        runs = in_rounds(options.systems, options.rounds, lambda name, number: measured(name, number, here, options))
    rivals = {f"{mine}, {rate}": f"{rival}, {rate}" for mine, rival in RIVAL_OF.items() for rate in loads(options)}
    title = "median (least to most), x: times the echo with the same hops at the same rate"
    report(options, title, runs, MEASURES, targets, rivals)


Loaded = Callable[[str, LoadPlan], Run]
"""Puts a load on a system, by its name and plan."""


def measured(name: str, number: int, here: Session, options: argparse.Namespace) -> Iterator[Run]:
    """Every load on one system, one after the other.

    Each load has its own seed: an input that came before would be answered from the cache.
    """
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
    rates = {load_name(rate): float(rate) for rate in options.rates if rate != HALF}
    if name in RIVAL_OF:
        most = run(SATURATION, saturating(name, 1, options))
        yield most
        if HALF in options.rates:
            rates[load_name(HALF)] = half_of(most)
    for seed, (load, rate_per_s) in enumerate(rates.items(), 2):
        yield run(load, paced(name, "digits", rate_per_s, seed, options, ticks_s(load)))
    hurried = [load_name("200"), load_name(HALF)] if name in RIVAL_OF else []
    for seed, load in enumerate(hurried, 12):
        if load in rates:
            plan = paced(name, "digits-50ms", rates[load], seed, options, ticks_s(load))
            yield run(f"{load}, {IN_A_HURRY}", plan)


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
    return LoadPlan(
        "digits-backlog",
        mode="saturation",
        queries=options.queries,
        outstanding=options.outstanding,
        dataset=dataset(name, options.queries, seed),
        encoding=options.encoding,
    )


def ticks_s(load: str) -> float:
    return TICK_S if load == load_name(HALF) else 0.0


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
    slow, half = load_name("200"), load_name(HALF)
    expected: list[Target] = []
    for name, (cpu, p50, p99_ms) in BOUNDS.items():
        for rate, most in cpu.items():
            load = load_name(rate)
            expected += [
                _target(found, name, load, "CPU µs a query", most, part="ratio"),
                _target(found, name, load, "p50 ms", p50, part="ratio"),
            ]
        expected += [
            *(_target(found, name, load_name(rate), "p99 ms", p99_ms) for rate in ("200", "1000")),
            _target(found, name, half, "p99 ms", 20.0),
            _target(found, name, f"{slow}, {IN_A_HURRY}", "defaults, share", 0.0, part="most"),
            _target(found, name, f"{half}, {IN_A_HURRY}", "defaults, share", 0.0, part="most"),
        ]
    return expected


def _target(found: Summary, name: str, load: str, measure: str, bound: float, part: str = "median") -> Target:
    words = f"{measure}, x the echo with the same hops" if part == "ratio" else measure
    return Target.of("B", f"{name}, {load}: {words}", (found, f"{name}, {load}", measure), "<=", bound, part)


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
    parser.add_argument("--rates", nargs="+", default=["200", "1000", "5000", HALF], help="queries a second, or `half`")
    known = [*SYSTEMS, *NETS]
    parser.add_argument("--systems", nargs="+", choices=known, default=known)
    parser.add_argument("--no-install", dest="install", action="store_false", help="use rivals that are there already")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
