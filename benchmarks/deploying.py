"""What does it cost everybody else when versions of models are deployed and retired all the time?

    python benchmarks/deploying.py --json results/deploying.json        # about two minutes
    python benchmarks/deploying.py --quick

One application with an objective of 250 ms, asked at a steady rate (Poisson, latency from the intended send time). In
half of the runs nothing happens; in the others versions come and go one after the other: a pair is declared (one in a
host of its own, one in the router whose making takes two seconds of the interpreter), asked by the same application,
taken out of it, retired and withdrawn. Both halves follow each other on the same system, in turn, because a machine is
never twice the same. `rebalances` of the routers' group must be none: a version has nothing to do with the partitions.
"""

import argparse
import asyncio
import itertools
import threading
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import msgspec
from rig.measuring import loaded, steady
from rig.metrics import counters
from rig.results import Measures, Run, Summary, Target
from rig.session import Session, in_rounds, parsed, report, rotated, session, system_options
from rig.systems import Place, application, model, pipeline, written

from clipper_agents.broker.properties import free_port
from clipper_agents.control.apply import apply_manifests
from clipper_agents.control.plan import Plan
from clipper_agents.control.state import read_control
from clipper_agents.control.writer import change_control
from clipper_agents.kafka.topics import existing_topics
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest

OBJECTIVE_MS = 250
NAME = "steady"
QUIET, DEPLOYING = "quiet", "deploying"
QUICK = {"rounds": 1, "seconds": 1.5, "warmup": 0.5, "stay": 0.5}
COUNTED = {"rebalances": ("clipper_rebalances_total",)}
POLL_S = 0.2
MEASURES: Measures = {
    "p50 ms": lambda run: run["p50_ms"],
    "p99 ms": lambda run: run["p99_ms"],
    "max ms": lambda run: run["max_ms"],
    "defaults, share": lambda run: run["default_ratio"],
    "missing": lambda run: run["missing"],
    "versions": lambda run: run["versions"],
    "rebalances": lambda run: run["rebalances"],
}


def main() -> None:
    options = arguments()
    with session(options) as here:
        models = [model("base", "models:prompt"), model("other", "models:SlowToMake")]
        config = written(here.folder / "deploying.toml", [application(NAME, ["base"], "exp3", OBJECTIVE_MS)], models)
        runs = in_rounds([DEPLOYING], options.rounds, lambda _, number: measured(number, here, config, options))
    report(options, "median (least to most)", runs, MEASURES, targets)


def measured(number: int, here: Session, config: str, options: argparse.Namespace) -> Iterator[Run]:
    """Both halves on one system."""
    place, port = here.place(f"k{number}"), free_port()
    with pipeline(place, config, f"router.metrics_port={port}") as roots:
        for name in rotated([QUIET, DEPLOYING], number):
            before = counters(port, COUNTED)
            with Deploys(place, options.stay, busy=name == DEPLOYING) as deploys:
                figures = loaded(steady(NAME, number, options), place, roots, here.broker)
            rebalances = counters(port, COUNTED)["rebalances"] - before["rebalances"]
            yield {"system": name, **figures, "versions": deploys.count, "rebalances": rebalances}


class Deploys:
    """Versions that come and go in a thread, for the time of a block.

    Attributes:
        count: How many came and went.
    """

    def __init__(self, place: Place, stay_s: float, *, busy: bool) -> None:
        self.count = 0
        self._place, self._stay_s, self._over = place, stay_s, threading.Event()
        self._thread = threading.Thread(target=self._run) if busy else None

    def __enter__(self) -> Self:
        if self._thread is not None:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._come_and_go())

    async def _come_and_go(self) -> None:
        connection, catalogue = self._place.connection, self._place.catalogue
        declared = (await read_control(connection, catalogue)).manifests.applications[NAME]
        for turn in itertools.count():
            if self._over.is_set():
                return
            pair = [version(f"h{turn}"), version(f"c{turn}", colocated=True)]
            await apply_manifests(connection, catalogue, [], pair)
            declared = revised(declared, ["base:1", *(one.ref for one in pair)])
            await apply_manifests(connection, catalogue, [declared], [])
            await self._until_asked(catalogue.requests(pair[0].name, pair[0].version), there=True)
            declared = revised(declared, ["base:1"])
            gone = tuple(one.ref for one in pair)
            retired = [msgspec.structs.replace(one, retired=True) for one in pair]
            await apply_manifests(connection, catalogue, [declared], retired)
            await self._until_asked(catalogue.requests(pair[0].name, pair[0].version), there=False)
            await change_control(connection, catalogue, lambda _, gone=gone: Plan(withdrawn=gone))
            self.count += len(pair)

    async def _until_asked(self, topic: str, *, there: bool) -> None:
        """Wait until the version's topic is there and its host had time to serve, or until the topic is gone."""
        connection, prefix = self._place.connection, self._place.catalogue.prefix
        while (topic in await existing_topics(connection, prefix)) is not there:  # noqa: ASYNC110 (it is the broker's)
            await asyncio.sleep(POLL_S)
        if there:
            await asyncio.to_thread(self._over.wait, self._stay_s)


def version(name: str, *, colocated: bool = False) -> ModelManifest:
    uri = "models:SlowToMake"
    spec = InputSpec(dtype="float32", shape=[64])
    return ModelManifest(name="v", version=name, uri=uri, input=spec, deterministic=False, colocated=colocated)


def revised(declared: ApplicationManifest, models: list[str]) -> ApplicationManifest:
    return msgspec.structs.replace(declared, models=models, revision=declared.revision + 1)


def targets(found: Summary) -> list[Target]:
    rebalances, p99 = (found, DEPLOYING, "rebalances"), (found, DEPLOYING, "p99 ms")
    what = "rebalances of the routers' group while versions come and go"
    return [
        Target.of("K", what, rebalances, "<=", 0, part="most"),
        Target.of("K", "p99 ms while versions come and go", p99, "<=", OBJECTIVE_MS),
    ]


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--rate", type=float, default=200.0, help="queries a second")
    parser.add_argument("--seconds", type=float, default=20.0, help="of measured load in each half")
    parser.add_argument("--stay", type=float, default=5.0, help="seconds until a version goes again")
    parser.add_argument("--warmup", type=float, default=3.0, help="seconds at the same rate before")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
