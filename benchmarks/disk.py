"""How many bytes does a query take on Kafka's disk, and on its router's?

    python benchmarks/disk.py --page benchmarks/results/disk.md      # a minute
    python benchmarks/disk.py --quick

One router and one host (`configs/separate.toml`) with an embedded Kafka: JSON queries of 64 random numbers for one
model, none twice, and a feedback for each. Kafka's bytes are the growth of the segments (`*.log`) of each topic in one
copy, over the queries. At 200 queries a second each has a batch of its own, as a rule; at saturation many share one.
The router's bytes are those of its files after its end, over all queries.
"""

import argparse
import asyncio
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

from rig.processes import Cpus
from rig.results import Run, Summary, show, single
from rig.session import finish, page_options, parsed, said, write_page
from rig.systems import INPUT, Place, served, tables_of

from clipper_agents.broker import EmbeddedBroker
from clipper_loadgen import LoadPlan, run_load
from clipper_topics.catalogue import Catalogue
from clipper_topics.manifests import InputSpec

PREFIX, RATE = "disk", 200.0
WEEK, HOUR, COMPACTED = "seven days", "an hour", "compacted"
KEPT = {
    "queries": WEEK, "predictions": WEEK, "feedback": WEEK, "requests": HOUR, "outputs": HOUR,
    "router-selection-changelog": COMPACTED,
}  # fmt: skip
"""Topics that grow with the queries, by what follows the prefix, and how long their records are kept."""
QUICK = {"queries": 400}


def main() -> None:
    options = arguments()
    with (
        tempfile.TemporaryDirectory(prefix="clipper-benchmark-") as name,
        EmbeddedBroker(Path(name) / "kafka") as broker,
    ):
        place = Place(broker.connection, Catalogue(prefix=PREFIX), Cpus.split(pin=False), Path(name))
        runs = measured(place, options.queries)
    found: Summary = {topic: {run["load"]: single(run["bytes"].get(topic)) for run in runs[:-1]} for topic in KEPT}
    found["sum"] = {run["load"]: single(sum(run["bytes"].values())) for run in runs[:-1]}
    show("bytes a query on Kafka's disk, in one copy", found, runs)
    print(f"on the router's: {runs[-1]['bytes']}")
    if options.page:
        write_page(
            options.page, "Disk", "", f"{options.queries:,} queries of each load.", __doc__, page(found, runs[-1])
        )
    finish(options, runs, found, [])


def measured(place: Place, queries: int) -> list[Run]:
    """Runs of both loads, and last the router's files."""
    plans = {
        "200/s": LoadPlan("digits", rate_per_s=RATE, duration_s=queries / RATE, **common(1)),
        "saturation": LoadPlan("digits-backlog", mode="saturation", queries=queries, outstanding=2_000, **common(2)),
    }
    runs: list[Run] = []
    with served(place, "separate.toml"):
        for load, plan in plans.items():
            before = topic_bytes(place.logs)
            report = asyncio.run(run_load(plan, place.connection, place.catalogue))
            grown = topic_bytes(place.logs) - before
            told = {"queries": report.queries, "missing": report.missing, "default_ratio": report.default_ratio}
            bytes_a_query = {topic: round(grown[topic] / report.queries, 1) for topic in KEPT}
            runs.append(said({"system": PREFIX, "load": load, **told, "bytes": bytes_a_query}))
    sent = sum(run["queries"] for run in runs)
    files = {name: round(size / sent, 1) for name, size in router_bytes(tables_of(place) / "router").items()}
    return [*runs, said({"system": PREFIX, "load": "router", "bytes": files})]


def common(seed: int) -> dict[str, Any]:
    return {"dataset": InputSpec(**INPUT), "feedback_delay_s": 0.05, "seed": seed}


def topic_bytes(folder: Path) -> Counter[str]:
    """Bytes in the logs of each topic, versions of models together."""
    found: Counter[str] = Counter()
    for segment in (folder / "kafka/data").glob(f"{PREFIX}.*/*.log"):
        topic = segment.parent.name.removeprefix(f"{PREFIX}.").rpartition("-")[0]
        found["requests" if topic.startswith("requests.") else topic] += segment.stat().st_size
    return found


def router_bytes(folder: Path) -> Counter[str]:
    """Bytes of the decisions, and of all else that a router keeps."""
    found: Counter[str] = Counter()
    for path in folder.rglob("*"):
        if path.is_file():
            found["decisions" if "decisions" in path.parts else "cache and rows"] += path.stat().st_size
    return found


def page(found: Summary, router: Run) -> list[str]:
    loads = [*found["sum"]]
    lines = [f"| topic | kept for | {' | '.join(f'bytes a query, {load}' for load in loads)} |", "|---|---|---|---|"]
    for topic, one in found.items():
        figures = " | ".join(f"{one[load]['median']:,.0f}" for load in loads)
        lines.append(f"| {topic} | {KEPT.get(topic, '')} | {figures} |")
    kept = ", ".join(f"{size:,.0f} of {name}" for name, size in router["bytes"].items())
    return [*lines, "", f"On the router's disk a query took {kept}, in bytes."]


def arguments() -> argparse.Namespace:
    parser = page_options(__doc__)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write conditions, runs and summary here")
    parser.add_argument("--queries", type=int, default=10_000, help="of each load")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
