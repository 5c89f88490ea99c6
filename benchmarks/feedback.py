"""How many observations a second can be learned from, and what does the cache do for that?

    python benchmarks/feedback.py --json results/feedback.json      # about three minutes
    python benchmarks/feedback.py --quick

After Clipper, section 4.2: an ensemble of four scikit-learn models (those of `batching.py`, in a host each), and
observations, each a query and its feedback, of inputs that were seen before. 19 of 20 queries repeat an input of the
last `--recent` queries, so about 0.95 of the rows are in the cache, or on their way into it (coalesced). The same
without a cache: models that are declared not to be deterministic.

In this pipeline the decision log has the outputs of every decision, so a feedback itself needs no model at all. So
`feedback alone` is feedback for queries that were answered before, as fast as it is learned from, in both systems.

A rate is observations by the time from the first query read to the last feedback applied, by the router's metrics,
looked at ten times a second.
"""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rig.digit_models import noisy_digits
from rig.flood import produce_all
from rig.measuring import loaded
from rig.metrics import Counter, Growth, counters
from rig.predictions import answered_since, ends_of
from rig.results import Measures, Run, Summary, Target
from rig.session import Session, in_rounds, parsed, report, session, system_options
from rig.systems import HERE, Place, pipeline

from clipper_agents.broker.properties import free_port
from clipper_loadgen import LoadPlan
from clipper_topics import codec
from clipper_topics.feedback import Feedback

CACHED, UNCACHED = "with cache", "without cache"
OBSERVATIONS, ALONE = "observations", "feedback alone"
REPEAT_RATIO = 0.95
MEASURES: Measures = {
    "a second": lambda run: run["per_s"],
    "hit ratio": lambda run: run.get("hit_ratio"),
    "coalesced ratio": lambda run: run.get("coalesced_ratio"),
    "CPU µs each": lambda run: run.get("system_cpu_us"),
    "defaults, share": lambda run: run.get("default_ratio"),
}
COUNTED: dict[str, Counter] = {
    "queries": ("clipper_queries_total",),
    "applied": ("clipper_feedback_total", 'outcome="applied"'),
    "lookups": ("clipper_cache_lookups_total",),
    "hits": ("clipper_cache_hits_total",),
    "coalesced": ("clipper_coalesced_total",),
}
QUICK = {"rounds": 1, "queries": 600, "recent": 200, "outstanding": 100}


def main() -> None:
    options = arguments()
    with session(options) as here:
        systems = [CACHED, UNCACHED]
        runs = in_rounds(systems, options.rounds, lambda name, number: measured(name, number, here, options))
    rivals = {f"{CACHED}, {load}": f"{UNCACHED}, {load}" for load in (OBSERVATIONS, ALONE)}
    report(options, "median (least to most), x: times the one without cache", runs, MEASURES, targets, rivals)


def measured(name: str, number: int, here: Session, options: argparse.Namespace) -> Iterator[Run]:
    """Warm-up, observations, and feedback alone, on one system."""
    place = here.place(f"e{number}-{'cached' if name == CACHED else 'uncached'}")
    port = free_port()
    with pipeline(place, str(config(name, place, quick=options.quick)), f"router.metrics_port={port}") as roots:
        loaded(plan(options, seed=1, count=options.queries // 10), place, roots, here.broker)
        yield {"load": OBSERVATIONS, **observations(options, place, roots, here.broker, port)}
        yield {"load": ALONE, **feedback_alone(options, place, roots, here.broker, port)}


def config(name: str, place: Place, *, quick: bool) -> Path:
    """The configuration of this benchmark, without `deterministic` where the cache is not to be used."""
    text = (HERE / "configs" / "feedback.toml").read_text()
    if quick:
        # nothing to train in each process, and no scikit-learn to load
        text = re.sub(r'uri = "rig.digit_models:Digits"\nparameters = .*', 'uri = "models:digits"', text)
    if name == UNCACHED:
        text = text.replace("\ndeterministic = true", "\ndeterministic = false")
    path = place.logs / f"{place.catalogue.prefix}.toml"
    path.write_text(text)
    return path


def plan(
    options: argparse.Namespace, *, seed: int, count: int | None = None, feedback_delay_s: float | None = None
) -> LoadPlan:
    queries = count or options.queries
    return LoadPlan(
        "digits",
        mode="saturation",
        queries=queries,
        outstanding=options.outstanding,
        dataset=noisy_digits(round(queries * (1 - REPEAT_RATIO) * 1.2), seed),
        repeat_ratio=REPEAT_RATIO,
        recent=options.recent,
        feedback_delay_s=feedback_delay_s,
        encoding="msgpack",
        seed=seed,
    )


def observations(
    options: argparse.Namespace, place: Place, roots: list[int], broker: list[int], port: int
) -> dict[str, Any]:
    with Growth(lambda: counters(port, COUNTED)) as growth:
        figures = loaded(plan(options, seed=2, feedback_delay_s=0.0), place, roots, broker)
        complete = growth.reached("applied", options.queries)
    lookups = growth.grown("lookups")
    return {
        **figures,
        "per_s": growth.per_s("applied", since="queries"),
        "hit_ratio": round(growth.grown("hits") / lookups, 4) if lookups else 0.0,
        "coalesced_ratio": round(growth.grown("coalesced") / lookups, 4) if lookups else 0.0,
        "note": "" if complete else f"feedback was applied {growth.grown('applied'):.0f} times",
    }


def feedback_alone(
    options: argparse.Namespace, place: Place, roots: list[int], broker: list[int], port: int
) -> dict[str, Any]:
    """Queries first, without feedback; then a label for each of them at once."""
    before = ends_of(place.connection, place.catalogue.predictions, place.catalogue.partitions)
    loaded(plan(options, seed=3, count=options.queries // 2), place, roots, broker)
    answers = answered_since(place.connection, place.catalogue.predictions, before)
    records = [
        (partition, key, codec.feedback.encode(Feedback(query_id=query_id, label=number % 10)))
        for number, (partition, key, query_id) in enumerate(answers)
    ]
    with Growth(lambda: counters(port, COUNTED)) as growth:
        produce_all(place.connection, place.catalogue.feedback, iter(records))
        complete = growth.reached("applied", len(records))
    note = "" if complete else f"feedback was applied {growth.grown('applied'):.0f} times, sent {len(records)} times"
    return {"per_s": growth.per_s("applied", since="applied"), "note": note}


def targets(found: Summary) -> list[Target]:
    rate = (found, f"{CACHED}, {OBSERVATIONS}", "a second")
    return [Target.of("E", "observations a second with cache, x without", rate, ">=", 1.6, part="ratio")]


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--queries", type=int, default=10_000, help="observations; half as many of feedback alone")
    parser.add_argument("--recent", type=int, default=3_000, help="repeats are drawn from so many queries before")
    parser.add_argument("--outstanding", type=int, default=1_000, help="queries without an answer")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
