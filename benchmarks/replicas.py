"""Do replicas of a model, and routers, multiply what a pipeline answers while their models only wait?

    python benchmarks/replicas.py --json results/replicas.json        # about two minutes
    python benchmarks/replicas.py --quick

Clipper's figure 6, with a simulated accelerator: each batch, of at most 32 rows, takes 50 ms without using a CPU
(`models.accelerator`), so that one replica answers at most 640 rows a second and a machine with two cores can
carry four. Through the whole pipeline, `clipper-stream up`, with a bounded number of queries always outstanding:

- `hosts 1` to `hosts 4`: one router, so many host processes with the model;
- `routers 1`, `routers 2`: the model colocated, so that each router process has its own; and
- `routers 2, hosts 4`: two routers before the same four hosts, which is to be no less than one router.

The rate lies between the 5 % and the 95 % mark of the answers. `of its limit`: share of the rate at which the models
would always be busy.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rig.measuring import loaded, rows, warm_broker
from rig.results import Measures, Run, Summary, Target
from rig.session import Session, in_rounds, parsed, report, session, system_options
from rig.systems import application, model, pipeline, written

from clipper_loadgen import LoadPlan

BATCH_ROWS, BATCH_S = 32, 0.05
LIMIT_PER_S = BATCH_ROWS / BATCH_S
RATE = "queries/s"
MEASURES: Measures = {
    RATE: lambda run: run["throughput_per_s"],
    "of its limit": lambda run: round((run["throughput_per_s"] or 0.0) / run["limit_per_s"], 4),
    "p50 ms": lambda run: run["p50_ms"],
    "CPU µs a query": lambda run: run["system_cpu_us"],
    "broker CPU": lambda run: run["broker_cpu"],
}
QUICK = {"rounds": 1, "seconds": 0.5, "systems": ["hosts 2", "routers 2"], "warm": 0}


@dataclass(frozen=True, slots=True)
class Size:
    """How many processes; without hosts the model is in the routers."""

    routers: int
    hosts: int

    @property
    def models(self) -> int:
        return self.hosts or self.routers


SIZES = {
    **{f"hosts {hosts}": Size(1, hosts) for hosts in (1, 2, 3, 4)},
    "routers 2, hosts 4": Size(2, 4),
    "routers 1": Size(1, 0),
    "routers 2": Size(2, 0),
}
RIVALS = {
    **{f"hosts {hosts}": "hosts 1" for hosts in (2, 3, 4)},
    "routers 2, hosts 4": "hosts 4",
    "routers 2": "routers 1",
}


def main() -> None:
    options = arguments()
    with session(options) as here:
        warm_broker(here, options.warm)
        runs = in_rounds(
            options.systems, options.rounds, lambda name, number: measured(name, number, here, options), stride=3
        )
    title = "median (least to most), x: times one replica, one router"
    report(options, title, runs, MEASURES, targets, RIVALS)


def measured(name: str, number: int, here: Session, options: argparse.Namespace) -> Iterator[Run]:
    """One size, with topics and processes of its own."""
    size = SIZES[name]
    limit_per_s = size.models * LIMIT_PER_S
    place = here.place(f"f{number}-{name.replace(', ', '-').replace(' ', '-')}")
    config = configuration(here.folder / f"{place.catalogue.prefix}.toml", size)
    queries = round(limit_per_s * options.seconds)
    plan = LoadPlan(
        "waiting",
        mode="saturation",
        queries=queries,
        outstanding=options.outstanding * size.models,
        dataset=rows(queries, seed=number),
        seed=number,
    )
    with pipeline(place, config) as roots:
        yield {"limit_per_s": limit_per_s, **loaded(plan, place, roots, here.broker)}


def configuration(path: Path, size: Size) -> str:
    batch = {"limit": "fixed", "max_rows": BATCH_ROWS}
    accelerator = model(
        "accelerator",
        "models:accelerator",
        parameters={"batch_s": BATCH_S},
        batch=batch,
        replicas=max(1, size.hosts),
        colocated=not size.hosts,
    )
    return written(path, [application("waiting", ["accelerator"], "single")], [accelerator], size.routers)


def targets(found: Summary) -> list[Target]:
    expected = {
        "hosts 4": ("queries/s of 4 replicas, x one", 3.8),
        "routers 2": ("queries/s of 2 routers with their own models, x one", 1.9),
        "routers 2, hosts 4": ("queries/s of 2 routers before 4 replicas, x one router", 0.95),
    }
    return [
        Target.of("F", what, (found, row, RATE), ">=", bound, part="ratio") for row, (what, bound) in expected.items()
    ]


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=6.0, help="of queries at the models' limit")
    parser.add_argument("--outstanding", type=int, default=256, help="queries without an answer, for each model")
    parser.add_argument("--warm", type=int, default=20_000, help="queries through an echo before the first system")
    parser.add_argument("--systems", nargs="+", choices=list(SIZES), default=list(SIZES))
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
