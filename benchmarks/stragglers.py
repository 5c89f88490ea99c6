"""Does an ensemble answer within its objective however many models it asks, and what does that cost in accuracy?

    python benchmarks/stragglers.py --json results/stragglers.json        # about two minutes
    python benchmarks/stragglers.py --quick

Clipper's figure 9: ensembles (exp4) of 1 to 16 models, each wrong about 30 % of the rows, each about others. A model
takes 5 to 15 ms for a batch, and for one batch in fifty up to half a second more (`models.straggler`, seeded).
They wait without a CPU, each in a thread of the router, so that two cores carry sixteen. `blocking`: no deadline, a
query is answered when all have answered; `deadline`: an objective of 100 ms, then with those that are there.

An open loop at a moderate rate (Poisson), latency from the intended send time. `missing`: share of the models' answers
that were not waited for. Accuracy: share of all answers that are right; a default output never is.
"""

import argparse
from collections.abc import Iterator
from typing import Any

from models import RIGHT
from rig.measuring import loaded, steady
from rig.predictions import decisions, shares
from rig.results import Measures, Run, Summary, Target
from rig.session import Session, in_rounds, parsed, report, rotated, session, system_options
from rig.systems import Place, application, model, pipeline, written

OBJECTIVE_MS = 100
BLOCKING, DEADLINE = "blocking", "deadline"
QUICK = {"rounds": 1, "seconds": 0.5, "warmup": 0.1, "sizes": [2]}
MEASURES: Measures = {
    "p50 ms": lambda run: run["p50_ms"],
    "p99 ms": lambda run: run["p99_ms"],
    "max ms": lambda run: run["max_ms"],
    "missing, share": lambda run: run["missing_ratio"],
    "accuracy": lambda run: run["accuracy"],
    "defaults, share": lambda run: run["default_ratio"],
    "CPU µs a query": lambda run: run["system_cpu_us"],
}


def main() -> None:
    options = arguments()
    with session(options) as here:
        config = written(here.folder / "stragglers.toml", *declared(options.sizes))
        runs = in_rounds(["stragglers"], options.rounds, lambda _, number: measured(number, here, config, options))
    report(options, "median (least to most)", runs, MEASURES, lambda found: targets(found, options))


def declared(sizes: list[int]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Two applications for each size, and the models."""
    names = [f"straggler-{number}" for number in range(max(sizes))]
    models = [
        model(name, "models:straggler", colocated=True, parameters={"seed": seed}) for seed, name in enumerate(names)
    ]
    objectives = {BLOCKING: {}, DEADLINE: {"objective_ms": OBJECTIVE_MS}}
    applications = [
        application(f"{kind}-{size}", names[:size], "exp4", **objective)
        for size in sizes
        for kind, objective in objectives.items()
    ]
    return applications, models


def measured(number: int, here: Session, config: str, options: argparse.Namespace) -> Iterator[Run]:
    """Every ensemble in turn, on one system."""
    place = here.place(f"g{number}")
    names = [f"{kind}-{size}" for size in options.sizes for kind in (BLOCKING, DEADLINE)]
    with pipeline(place, config) as roots:
        for name in rotated(names, 2 * number):
            figures = loaded(steady(name, number, options), place, roots, here.broker)
            yield {"system": name, **figures, **outcome(place, name)}


def outcome(place: Place, name: str) -> dict[str, Any]:
    """Shares over all queries of the application, those of the warm-up too."""
    return shares([one for one in decisions(place) if one.application == name], RIGHT)


def targets(found: Summary, options: argparse.Namespace) -> list[Target]:
    largest = max(options.sizes)
    what = f"{largest} models with an objective of {OBJECTIVE_MS} ms: p99 ms"
    return [Target.of("G", what, (found, f"{DEADLINE}-{largest}", "p99 ms"), "<=", 1.1 * OBJECTIVE_MS)]


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--rate", type=float, default=40.0, help="queries a second")
    parser.add_argument("--seconds", type=float, default=7.0, help="of measured load on each ensemble")
    parser.add_argument("--warmup", type=float, default=1.0, help="seconds at the same rate before")
    parser.add_argument("--sizes", type=int, nargs="+", default=[1, 2, 4, 8, 16], help="models of an ensemble")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
