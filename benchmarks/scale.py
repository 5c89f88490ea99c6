"""How does a router's CPU a query grow with contexts, with partitions and with models?

    python benchmarks/scale.py --json results/scale.json            # about three minutes
    python benchmarks/scale.py --quick

One router with its models inside (rows of four numbers, a cheap model), at saturation, its CPU from /proc. One thing
grows at a time:

- contexts: 10, 100 and 1,000 thousand, each with a selection row that a restarted router has read from its changelog
  (the rows are written there, not learned from feedback one by one). Every query draws a context
  uniformly; two models, exp3. The share of answers of the model that the rows say is right is checked. A load touches
  as many contexts as it has queries at most, and the router keeps some thousand choices prepared: with few contexts
  most queries find theirs, with many each has to read its row.
- partitions: 1, 4, 16, 64; one model.
- models: 1, 2, 4, 8, 16, all of them asked (exp4).

Each system gets `--repeats` loads; how it grows is the exponent b of CPU ~ size ** b by least squares over the medians
(0: not at all, 1: in proportion), the CPU at the largest size as a multiple of that at the smallest, and what one more
adds, by a straight line.
"""

import argparse
import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from aiokafka.partitioner import murmur2
from numpy.typing import NDArray
from rig.flood import Record, produce_all
from rig.measuring import loaded, rows
from rig.predictions import asked_ratio
from rig.results import Measures, Run, Summary, median_of, row_of, show, summary
from rig.session import PARTITIONS, Session, finish, parsed, session, system_options, told
from rig.systems import Place, pipeline

from clipper_agents.kafka.topics import ensure_topics
from clipper_loadgen import LoadPlan
from clipper_topics.manifests import InputSpec
from clipper_topics.selection_rows import ROW_VERSION, ModelTotalsRecord, RowKey, SelectionRow, encode_key, encode_row

SHORT = InputSpec(dtype="float32", shape=[4])
ROUTER_CPU = "router CPU µs a query"
MEASURES: Measures = {
    ROUTER_CPU: lambda run: run["cpu_us"]["router"],
    "queries/s": lambda run: run["throughput_per_s"],
    "start, s": lambda run: run["start_s"],
}
QUICK = {"repeats": 1, "queries": 1_000, "contexts": [1], "partitions": [8], "models": [4], "outstanding": 500}
FEEDBACKS = 200.0
"""In each context of the rows that are written: enough for a policy to be sure."""
RIGHT_RATIO = 0.8
"""Of the answers, at least, from the model that the rows say is right; exp3 asks the others now and then."""


def main() -> None:
    options = arguments()
    sweeps = {"contexts": options.contexts, "partitions": options.partitions, "models": options.models}
    with session(options) as here:
        runs = [
            run
            for what, sizes in sweeps.items()
            for size in sizes
            for run in told({"system": what, "load": named(what, size)}, measured(what, size, here, options))
        ]
    found = summary(runs, MEASURES)
    show("median (least to most) over the loads", found, runs)
    growth = {what: growth_of(what, sizes, found) for what, sizes in sweeps.items()}
    for what, how in growth.items():
        more = "a thousand more add" if what == "contexts" else "one more adds"
        print(f"{what}: CPU ~ {what} ** {how['exponent']}, at the largest {how['ratio']} x the smallest, ", end="")
        print(f"{more} {how['one_more_us']} µs")
    finish(options, runs, {**found, "growth": growth}, [])


def named(what: str, size: int) -> str:
    return f"{size * 1_000:,}" if what == "contexts" else str(size)


def measured(what: str, size: int, here: Session, options: argparse.Namespace) -> Iterator[Run]:
    """The loads on one system."""
    place = here.place(f"i-{what}-{size}", partitions=size if what == "partitions" else PARTITIONS)
    contexts = size * 1_000 if what == "contexts" else 0
    models = size if what == "models" else 2 if contexts else 1
    config = written(place, models, "exp3" if contexts else "exp4")
    if contexts:
        learned(place, contexts)
    began_s = time.monotonic()
    with pipeline(place, str(config)) as roots:
        start_s = round(time.monotonic() - began_s, 2)
        for number, plan in enumerate(plans(options, contexts)):
            run = {"round": number, **loaded(plan, place, roots, here.broker), "start_s": start_s}
            if number:  # the first is the warm-up
                yield {**run, **checked(place, contexts)}


def plans(options: argparse.Namespace, contexts: int) -> Iterator[LoadPlan]:
    """A short one to warm up, and the others; no input twice."""
    for seed, queries in enumerate([options.queries // 5, *[options.queries] * options.repeats]):
        yield LoadPlan(
            "short",
            mode="saturation",
            queries=queries,
            outstanding=options.outstanding,
            dataset=rows(queries, seed, SHORT),
            contexts=contexts,
            encoding="msgpack",
            seed=seed,
        )


def learned(place: Place, contexts: int) -> None:
    asyncio.run(ensure_topics(place.connection, place.catalogue))
    records = learned_rows("short", "m0:1", "m1:1", contexts, place.catalogue.partitions)
    produce_all(place.connection, place.catalogue.selection_changelog, records)


def checked(place: Place, contexts: int) -> dict[str, Any]:
    """Whether decisions follow the rows."""
    if not contexts:
        return {}
    right = asked_ratio(place.connection, place.catalogue.predictions, "m0")
    note = {} if right >= RIGHT_RATIO else {"note": f"rows were not used: the better model was asked in {right}"}
    return {"right_ratio": right, **note}


def written(place: Place, models: int, policy: str) -> Path:
    """A configuration with so many colocated models."""
    shape = 'input = { dtype = "float32", shape = [4] }'
    refs = ", ".join(f'"m{number}:1"' for number in range(models))
    parts = [
        f'[[application]]\nname = "short"\n{shape}\nmodels = [{refs}]\npolicy = {{ name = "{policy}" }}',
        "objective_ms = 600000\ndefault_output = -1\n",
        *(f'[[model]]\nname = "m{n}"\nuri = "models:largest"\n{shape}\ncolocated = true\n' for n in range(models)),
    ]
    path = place.logs / f"{place.catalogue.prefix}.toml"
    path.write_text("\n".join(parts))
    return path


def growth_of(what: str, sizes: list[int], found: Summary) -> dict[str, float | None]:
    """Exponent, the largest size's CPU as a multiple of the smallest's, and what one more adds."""
    cpu = {size: median_of(found, row_of({"system": what, "load": named(what, size)}), ROUTER_CPU) for size in sizes}
    points = np.array([(size, value) for size, value in cpu.items() if value])
    if len(points) < 2:
        return {"exponent": None, "ratio": None, "one_more_us": None}
    ratio = points[-1][1] / points[0][1]
    exponent, one_more_us = _slope(np.log(points)), _slope(points)
    return {"exponent": _digits(exponent), "ratio": _digits(ratio), "one_more_us": _digits(one_more_us)}


def _slope(points: NDArray[np.float64]) -> float:
    """Of the straight line through points of shape [n, 2], by least squares."""
    return float(np.polyfit(points[:, 0], points[:, 1], 1)[0])


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--contexts", type=int, nargs="*", default=[10, 100, 1_000], help="thousands")
    parser.add_argument("--partitions", type=int, nargs="*", default=[1, 4, 16, 64])
    parser.add_argument("--models", type=int, nargs="*", default=[1, 2, 4, 8, 16])
    parser.add_argument("--repeats", type=int, default=2, help="loads on each system")
    parser.add_argument("--queries", type=int, default=30_000, help="of each load")
    parser.add_argument("--outstanding", type=int, default=5_000, help="queries without an answer")
    return parsed(parser, QUICK)


def learned_rows(application: str, right: str, wrong: str, count: int, partitions: int) -> Iterator[Record]:
    """The rows of contexts `c0`, `c1`, ..., as the load generator names them, for the table's changelog.

    A router that starts cannot tell them from rows that were learned. Each says that one model was always right and
    the other always wrong, so that decisions show whether the rows are used.

    Args:
        application: Its name.
        right: Model that never had a loss.
        wrong: Model that always had one.
        count: Number of contexts.
        partitions: Of the queries.
    """
    totals = [_totals(right, 0.0), _totals(wrong, FEEDBACKS)]
    row = encode_row(SelectionRow(version=ROW_VERSION, offset=0, applied=int(FEEDBACKS), totals=totals))
    for number in range(count):
        context = f"c{number}"
        partition = (murmur2(context.encode()) & 0x7FFFFFFF) % partitions
        yield partition, encode_key(RowKey(application, context, partition)), row


def _totals(model: str, loss: float) -> ModelTotalsRecord:
    return ModelTotalsRecord(model=model, count=FEEDBACKS, loss=loss, weighted_loss=loss, weighted_count=FEEDBACKS)


if __name__ == "__main__":
    main()
