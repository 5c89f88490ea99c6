"""What every benchmark has around it: options, a broker, a folder for logs, and an end that leaves nothing behind."""

import argparse
import asyncio
import csv
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiokafka.errors import KafkaError
from confluent_kafka import KafkaException
from rig.processes import Cpus, NotServing, on_cpus
from rig.results import Measures, Run, Summary, Target, conditions, show, show_targets, summary
from rig.systems import Place

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.kafka.topics import delete_topics, existing_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

PARTITIONS = 4


@dataclass(frozen=True, slots=True)
class Session:
    """A broker, and where things run.

    Attributes:
        connection: The broker.
        broker: Its process id, where the broker is our own.
        cpus: Who runs on which CPU.
        folder: Of logs and tables.
        prefix: Of all topics, on a broker that others use too.
    """

    connection: KafkaConnection
    broker: list[int]
    cpus: Cpus
    folder: Path
    prefix: str = ""

    def place(self, prefix: str, partitions: int = PARTITIONS) -> Place:
        """Topics for one system alone."""
        catalogue = Catalogue(prefix=self.prefix + prefix, partitions=partitions)
        return Place(self.connection, catalogue, self.cpus, self.folder)


@contextmanager
def session(options: argparse.Namespace, cpus: Cpus | None = None) -> Iterator[Session]:
    """A broker and a folder for the time of the block; SIGTERM ends the block, and so everything in it.

    Args:
        options: With `pin`, `logs` and `bootstrap`.
        cpus: Who runs on which CPU; absent: broker and benchmark apart from the system.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    cpus = cpus or Cpus.split(pin=options.pin)
    with _folder(options.logs) as folder, on_cpus(cpus.rig):
        if options.bootstrap is None:
            with EmbeddedBroker(for_long=True) as broker:
                assert broker.pid is not None
                yield Session(broker.connection, [broker.pid], cpus, folder)
            return
        connection, prefix = KafkaConnection(options.bootstrap), f"b{os.getpid()}"
        try:
            yield Session(connection, [], cpus, folder, f"{prefix}.")
        finally:
            asyncio.run(delete_topics(connection, list(asyncio.run(existing_topics(connection, prefix)))))


@contextmanager
def _folder(kept: Path | None) -> Iterator[Path]:
    """Where logs and tables go; removed afterwards unless it was asked for."""
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="clipper-benchmark-") as temporary:
            yield Path(temporary)


def rotated(names: Sequence[str], by: int) -> list[str]:
    """The names in their order, beginning with another one in each round."""
    first = by % len(names)
    return [*names[first:], *names[:first]]


def in_rounds(
    names: Sequence[str], rounds: int, measure: Callable[[str, int], Iterable[Run]], *, stride: int = 1
) -> list[Run]:
    """The runs of every system in each round, which begins with another system each time.

    Args:
        names: Of the systems.
        rounds: How many.
        measure: Runs of a system, by its name and the number of the round.
        stride: By how many systems a round begins later than the one before.
    """
    return [
        run
        for number in range(rounds)
        for name in rotated(names, stride * number)
        for run in told({"round": number, "system": name}, measure(name, number))
    ]


def told(about: Run, runs: Iterable[Run]) -> Iterator[Run]:
    """The runs, printed for whoever waits; the last one has `failed` instead of figures where the system failed."""
    try:
        for run in runs:
            yield said({**about, **run})
    except (NotServing, OSError, KafkaError, KafkaException) as error:
        yield said({**about, "failed": f"{type(error).__name__}: {error}"})


def quick_options(question: str | None) -> argparse.ArgumentParser:
    """A parser with the option that every benchmark has; `parsed` reads it."""
    parser = argparse.ArgumentParser(description=question, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a smoke run of some seconds: its numbers say nothing")
    return parser


def page_options(question: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a benchmark whose result is a page."""
    parser = quick_options(question)
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page of the figures, and its plot beside")
    return parser


def write_table(page: Path, rows: Iterable[Sequence[object]]) -> None:
    """Write the figures that are too many for a page beside it, as CSV; the first row names the columns."""
    with page.with_suffix(".csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def write_page(path: Path, title: str, options: str, made: str, question: str | None, lines: Sequence[str]) -> None:
    """Write a generated page: its title, the command that made it, what was asked, and the figures.

    Args:
        path: The page.
        title: Its title.
        options: Further words of the command.
        made: How much was simulated, by what.
        question: The benchmark's docstring, whose third paragraph and all after it say what is measured.
        lines: The figures.
    """
    script = Path(sys.argv[0]).name
    command = f"python benchmarks/{script} --page benchmarks/results/{path.name}{options}"
    asked = "\n\n".join((question or "").rstrip("\n").split("\n\n")[2:])
    path.write_text("\n".join([f"# {title}\n\n<!-- Generated: {command} -->\n", made, asked, "", *lines]) + "\n")


def result_options(question: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a benchmark that ends with `finish`."""
    parser = quick_options(question)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write conditions, runs, summary and targets here")
    return parser


def system_options(question: str | None) -> argparse.ArgumentParser:
    """A parser with the options of a benchmark that runs systems on a broker."""
    parser = result_options(question)
    parser.add_argument("--no-pin", dest="pin", action="store_false", help="let everything run on every CPU")
    parser.add_argument("--logs", type=Path, metavar="FOLDER", help="keep logs and tables of the processes here")
    parser.add_argument("--bootstrap", metavar="HOST:PORT", help="a broker that runs already; its CPU is not measured")
    return parser


def parsed(parser: argparse.ArgumentParser, quick: Mapping[str, Any]) -> argparse.Namespace:
    """The options; with `--quick` those in `quick` have other defaults."""
    if parser.parse_args().quick:
        parser.set_defaults(**quick)
    return parser.parse_args()


def said(run: Run) -> Run:
    """The run, printed for whoever waits."""
    print(json.dumps(run), file=sys.stderr, flush=True)
    return run


def report(
    options: argparse.Namespace,
    title: str,
    runs: list[Run],
    measures: Measures,
    targets: Callable[[Summary], list[Target]],
    compared: Mapping[str, str] | None = None,
    **further: Any,
) -> None:
    """Show the summary of the runs, in which rows may be compared with others, and `finish`."""
    found = summary(runs, measures, compared)
    show(title, found, runs)
    finish(options, runs, found, targets(found), **further)


def finish(
    options: argparse.Namespace,
    runs: list[Run],
    found: Mapping[str, Any],
    targets: list[Target],
    cpus: Cpus | None = None,
    **further: Any,
) -> None:
    """Show the targets, and write everything where it was asked for, with `further` conditions."""
    if targets:
        show_targets(targets)
    if options.json is None:
        return
    settings = {name: value for name, value in vars(options).items() if not isinstance(value, Path)}
    cpus = cpus or Cpus.split(pin=getattr(options, "pin", True))
    result = {
        "conditions": {**conditions(cpus, **settings), **further},
        "runs": runs,
        "summary": found,
        "targets": [target.as_dict() for target in targets],
    }
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(result, indent=2) + "\n")
