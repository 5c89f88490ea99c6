"""What does the console cost its gateway, how old are its figures, and how large do memory and history grow?

    python benchmarks/console_view.py --json results/console_view.json      # about five minutes
    python benchmarks/console_view.py --quick

200 applications of 10 versions, `exp3`, a host each.

- A gateway on a Kafka to which 5,000 records a second are written: predictions with two versions asked, a feedback and
  totals for each. CPU is that of the whole gateway with `no console`; with one at which `nobody looks`; and with `ten
  pages` open, of which each gets what changed once a second: the overview, the models, eight different applications.
  The first page is the slowest of twenty overviews that a browser asks for, until it has the last byte.
- `followed`: the view alone in a process, with the same ten pages. The age is that of the end of the last second that
  the figures have, when pages get them: the worst of all.
- `two days`: points with all values of all versions, lognormal noise, which compresses worst, in all rings; then an
  hour of simulated updates: 360 points an application, made by the view of 300 predictions and as many feedbacks a
  second. The largest size of the folder, looked at each 10 s; resident memory after each minute: its growth is that of
  the last half hour, as a share. `known` is the least share of a ring's steps that can still be read.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import Producer
from rig.console_jobs import compared, declared, flowing
from rig.processes import on_cpus, running
from rig.results import Measures, Summary, Target
from rig.session import Session, parsed, report, said, session, system_options

from clipper_agents.broker.properties import free_port
from clipper_agents.kafka.topics import ensure_topics
from clipper_topics.catalogue import Catalogue

HERE = Path(__file__).resolve().parent
CPU, FIRST, AGE, SIZE, GROWTH = "CPU, % of a core", "first page, ms", "age, s", "largest MiB on disk", "RSS growth, %"
MORE = "CPU, % more than without console"
MEASURES: Measures = {
    CPU: lambda run: run.get("cpu_percent"),
    MORE: lambda run: run.get("more_percent"),
    FIRST: lambda run: run.get("first_page_ms"),
    AGE: lambda run: run.get("age_s"),
    SIZE: lambda run: run.get("largest_mib"),
    "known, %": lambda run: run.get("known_percent"),
    "RSS, MiB": lambda run: run["rss_mib"][-1] if "rss_mib" in run else None,
    GROWTH: lambda run: growth_percent(run["rss_mib"]) if "rss_mib" in run else None,
}
QUICK = {"applications": 10, "seconds": 1.0, "firsts": 2, "per_s": 200, "hour_s": 130, "steps": 0.02}
INSTANCE = "one"
"""Of the gateways, one after the other; the history is in a folder of that name."""
PACE_S, FLUSH_S, MOST_QUEUED = 0.02, 30.0, 20_000
"""A broker that does not keep up gets fewer records, and the result says how many."""


def main() -> None:
    options = arguments()
    with session(options) as here:
        runs = [said({"system": name, **measured}) for name, measured in jobs(options, here)]
    report(options, "the console's view", runs, MEASURES, targets)


def jobs(options: argparse.Namespace, here: Session) -> Any:
    catalogue = here.place("console").catalogue
    asyncio.run(ensure_topics(here.connection, catalogue))
    size = {"applications": options.applications, "versions": options.versions}
    producer = Producer({"bootstrap.servers": here.connection.bootstrap, "linger.ms": 5})
    for topic, key, value in (*declared(**size), *compared(**size)):
        producer.produce(getattr(catalogue, topic), value, key, partition=0, on_delivery=_checked)
        producer.poll(0)
    producer.flush()
    history = here.folder / "history"
    job: dict[str, Any] = {
        "job": "follow",
        "bootstrap": here.connection.bootstrap,
        "prefix": catalogue.prefix,
        "partitions": catalogue.partitions,
        "folder": str(history / INSTANCE),
        "seconds": options.seconds,
    }
    yield "followed", beside_records(producer, catalogue, options, here, job)
    without = None
    for name, pages in (("no console", None), ("nobody looks", 0), ("ten pages", 10)):
        with gateway(here, catalogue, history, console=pages is not None) as (pid, url):
            job = {
                "job": "look",
                "url": url,
                "pid": pid,
                "seconds": options.seconds,
                "firsts": options.firsts,
                "pages": pages,
            }
            found = beside_records(producer, catalogue, options, here, job)
        if pages is None:
            without = found.get("cpu_percent")
        elif without is not None and "cpu_percent" in found:
            found["more_percent"] = round(found["cpu_percent"] - without, 3)
        yield name, found
    job = {"job": "keep", "folder": str(here.folder / "days"), "seconds": options.hour_s, "per_s": 300, **size}
    with _started({**job, "steps": options.steps}, here) as process:
        yield "two days", result(process)


@contextmanager
def gateway(here: Session, catalogue: Catalogue, history: Path, *, console: bool) -> Iterator[tuple[int, str]]:
    """A gateway of these topics; its process id and URL."""
    port = free_port()
    settings = {
        "kafka.prefix": catalogue.prefix,
        "gateway.port": port,
        "gateway.grpc_port": 0,
        "gateway.console": str(console).lower(),
        "gateway.console_dir": history,
    }
    assignments = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    program = [sys.executable, "-m", "clipper_agents.cli.main", "gateway", "--instance", INSTANCE]
    command = [*program, "--bootstrap", here.connection.bootstrap, *assignments]
    with running(command, here.folder / "gateway.log", os.environ, here.cpus.system) as process:
        yield process.pid, f"http://127.0.0.1:{port}"


def beside_records(
    producer: Producer, catalogue: Catalogue, options: argparse.Namespace, here: Session, job: dict[str, Any]
) -> dict[str, Any]:
    """The result of a job, beside which records are written, and how many a second those were."""
    with _started(job, here) as process:
        sent = write(producer, catalogue, options, process)
        return {**result(process), "sent_per_s": sent}


def write(
    producer: Producer, catalogue: Catalogue, options: argparse.Namespace, process: "subprocess.Popen[str]"
) -> float:
    """Write records at their rate until the process ends; how many a second there were."""
    records = flowing(options.applications, options.versions, 20_000)
    began_s, sent = time.monotonic(), 0
    while process.poll() is None:
        due = int((time.monotonic() - began_s) * options.per_s)
        while sent < due and len(producer) < MOST_QUEUED:
            topic, key, value = records[sent % len(records)]
            partition = 0 if topic == "selection" else sent // 3 % catalogue.partitions
            producer.produce(getattr(catalogue, topic), value, key, partition=partition, on_delivery=_checked)
            sent += 1
        producer.poll(0)
        time.sleep(PACE_S)
    producer.flush(FLUSH_S)
    return round(sent / (time.monotonic() - began_s), 1)


def _checked(error: Any, _: Any) -> None:
    if error is not None:
        raise RuntimeError(f"a record was not written: {error}")


def _started(job: dict[str, Any], here: Session) -> "subprocess.Popen[str]":
    """The job in a process of its own, on the system's CPUs."""
    with on_cpus(here.cpus.system):
        return subprocess.Popen(
            [sys.executable, "-m", "rig.console_jobs", json.dumps(job)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=HERE,
        )  # fmt: skip


def result(process: "subprocess.Popen[str]") -> dict[str, Any]:
    out, err = process.communicate()
    if process.returncode:
        return {"failed": err.strip().splitlines()[-1]}
    found: dict[str, Any] = json.loads(out)
    return found


def growth_percent(samples: list[float]) -> float:
    """From the middle to the end of the samples, each the mean of a tenth of them."""
    part = max(1, len(samples) // 10)
    middle, last = samples[len(samples) // 2 :][:part], samples[-part:]
    return round(100 * (sum(last) / len(last) / (sum(middle) / len(middle)) - 1), 2)


def targets(found: Summary) -> list[Target]:
    rows: list[tuple[str, str, str, Any, float]] = [
        ("CPU of the console, ten pages, %", "ten pages", MORE, "<=", 3.0),
        ("first page, ms", "ten pages", FIRST, "<=", 300.0),
        ("age of figures, s", "followed", AGE, "<=", 1.0),
        ("history of two days, MiB", "two days", SIZE, "<=", 50.0),
        ("growth of memory over the last half, %", "two days", GROWTH, "<=", 2.0),
    ]
    return [
        Target.of("console", what, (found, row, measure), sense, bound) for what, row, measure, sense, bound in rows
    ]


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--applications", type=int, default=200)
    parser.add_argument("--versions", type=int, default=10, help="of each application")
    parser.add_argument("--per-s", type=int, default=5_000, help="records that are written a second")
    parser.add_argument("--seconds", type=float, default=12.0, help="of following, without the start")
    parser.add_argument("--firsts", type=int, default=20, help="first pages that are asked for")
    parser.add_argument("--hour-s", type=int, default=3_600, help="simulated seconds")
    parser.add_argument("--steps", type=float, default=1.0, help="share of each ring that is filled before")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
