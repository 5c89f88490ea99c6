"""One run of one contender: its topics, a backlog, its process, what came out."""

import asyncio
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from rig.backlog import Backlog, Shape, make_backlog
from rig.conditions import load_average
from rig.contenders import Contender, command_of
from rig.ends import Ends
from rig.environments import NotInstalled
from rig.processes import end, on_cpus
from rig.span import START_S, Span
from rig.systems import Place

from clipper_agents.kafka.topics import delete_topics, ensure_topics, existing_topics

LAST_WORDS = 300
SPAN_AHEAD = 3
"""A span has at least so many times the queries that a system works on at once, or one burst of answers decides it."""


def competed(contender: Contender, place: Place, broker: int, records: int, options: Any) -> dict[str, Any]:
    """One run, ready for JSON; with a `note` and without figures where the system could not run.

    The backlog is written before the system is started: then neither the speed of the writer nor its CPU is part of
    what is measured, the system alone decides the rate, and the broker serves it alone. A system that only reads what
    comes after its start gets the backlog at once when it has answered a probe.
    """
    found: dict[str, Any] = {"system": contender.name, "records": records, "load_before": load_average()}
    found |= {"rows_each": contender.shape.rows_each, "encoding": contender.shape.encoding}
    backlog = make_backlog(contender.shape, records)
    try:
        command = command_of(contender, place, install=options.install)
        with _topics(place) as ends:
            found |= _measured(contender, place, broker, backlog, ends, command, options.limit)
    except (NotInstalled, OSError, KafkaException, TimeoutError) as error:
        found["note"] = f"did not run: {error}"
    return {**found, "load_after": load_average()}


def _measured(
    contender: Contender,
    place: Place,
    broker: int,
    backlog: Backlog,
    ends: Ends,
    command: tuple[list[str], dict[str, str]],
    limit_s: float,
) -> dict[str, Any]:
    if not contender.reads_from_end:
        ends.fill(backlog)
    expected = len(backlog.values)
    with _started(*command, place) as process:
        probes = _probed(ends, backlog, process) if contender.reads_from_end else 0
        span = Span(process, broker, place.cpus, contender.reads_ahead, lambda: ends.predictions() - probes)
        span.watch(expected, limit_s)
        checked = ends.check(backlog, contender.reads_ahead)
        if checked["missing"] and not span.note:  # duplicates, or records that are no answers: wait for the rest
            span.watch(expected + checked["missing"], limit_s / 2)
            checked = ends.check(backlog, contender.reads_ahead)
    if span.note.startswith("ended"):
        span.note += f": {_last_words(place)}"
    complete = not (checked["missing"] or checked["duplicates"] or checked["wrong"])
    figures = span.figures(backlog.rows_each)
    if figures and figures["span_records"] < SPAN_AHEAD * contender.reads_ahead:
        figures = {"too_short": figures}
        span.note += "; the span is too short to tell: answers come in bursts as large as what is worked on at once"
    elif figures and not contender.config:
        figures["cpu_us"] = {"rival": figures["system_cpu_us"]}
    return {**figures, **checked, "complete": complete, "note": span.note.removeprefix("; ")}


@contextmanager
def _topics(place: Place) -> Iterator[Ends]:
    asyncio.run(ensure_topics(place.connection, place.catalogue))
    try:
        yield Ends(place.connection, place.catalogue)
    finally:
        names = asyncio.run(existing_topics(place.connection, place.catalogue.prefix))
        asyncio.run(delete_topics(place.connection, list(names)))


@contextmanager
def _started(command: list[str], environ: dict[str, str], place: Place) -> Iterator[subprocess.Popen[str]]:
    """The system's root process, in a group and a folder of its own; ended with the block."""
    folder = place.logs / f"{place.catalogue.prefix}-work"
    folder.mkdir()
    with _log(place).open("w") as log, on_cpus(place.cpus.system):
        process = subprocess.Popen(
            command, stdout=log, stderr=log, text=True, env=environ, cwd=folder, start_new_session=True
        )
    try:
        yield process
    finally:
        end(process)


def _probed(ends: Ends, backlog: Backlog, process: subprocess.Popen[str]) -> int:
    """Send a probe until one is answered, then the backlog; the number of probes answered.

    Raises:
        TimeoutError: none was.
    """
    probe = Backlog(backlog.values[:1], ["probe"], backlog.labels[:1], backlog.headers, 1)
    probe.values[0] = probe.values[0].replace(backlog.ids[0].encode(), b"probe")
    give_up_s = time.monotonic() + START_S
    sent = answered = 0
    while not answered and time.monotonic() < give_up_s and process.poll() is None:
        ends.write(probe, [0])
        sent += 1
        time.sleep(0.5)
        answered = ends.predictions()
    if not answered:
        raise TimeoutError(f"{sent} probes without an answer")
    ends.fill(backlog)
    return answered


def _log(place: Place) -> Path:
    return place.logs / f"{place.catalogue.prefix}.log"


def _last_words(place: Place) -> str:
    return _log(place).read_text(errors="replace")[-LAST_WORDS:].strip().replace(os.linesep, " / ")


def warm_up(place: Place, records: int) -> None:
    """Have the broker compile its hot paths before the first system."""
    backlog = make_backlog(Shape(), records)
    with _topics(place) as ends:
        for _ in range(2):
            ends.fill(backlog)
        ends.predictions()
