"""One run of one contender: its topics, a backlog, its process, and rate and CPU between two marks of its output."""

import asyncio
import os
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from confluent_kafka import KafkaException
from rig.backlog import Backlog, Ends, Shape, make_backlog
from rig.contenders import Contender, NotInstalled, command_of
from rig.processes import Cpus, cpu_s_by_process, end, on_cpus, pin_hosts, spent_by_role
from rig.results import load_average
from rig.systems import Place

from clipper_agents.kafka.topics import delete_topics, ensure_topics, existing_topics

LAST_WORDS = 300
RIG_LIMIT = 0.8
SPAN_AHEAD = 3
"""A span has at least so many times the queries that a system works on at once, or one burst of answers decides it."""


Command = tuple[list[str], dict[str, str]]
"""A command and its environment."""
Measure = Callable[[Contender, Place, list[int], int, Ends, Command, float], dict[str, Any]]
"""Figures of a contender, by where it runs, the broker's process, the number of queries, topics, command and limit."""


def competed(
    contender: Contender, place: Place, broker: list[int], records: int, options: Any, measure: Measure
) -> dict[str, Any]:
    """One run, ready for JSON; with a `note` and without figures where the system could not run."""
    found: dict[str, Any] = {"system": contender.name, "records": records, "load_before": load_average()}
    found |= {"rows_each": contender.shape.rows_each, "encoding": contender.shape.encoding}
    try:
        command = command_of(contender, place, install=options.install)
        with _topics(place) as ends:
            found |= measure(contender, place, broker, records, ends, command, options.limit)
    except (NotInstalled, OSError, KafkaException, TimeoutError) as error:
        found["note"] = f"did not run: {error}"
    return {**found, "load_after": load_average()}


def backlog_answered(
    contender: Contender, place: Place, broker: list[int], records: int, ends: Ends, command: Command, limit_s: float
) -> dict[str, Any]:
    """Figures of a backlog.

    It is written before the system is started: then neither the speed of the writer nor its CPU is part of what is
    measured, the system alone decides the rate, and the broker serves it alone. A system that only reads what comes
    after its start gets the backlog at once when it has answered a probe.
    """
    backlog = make_backlog(contender.shape, records)
    if not contender.reads_from_end:
        ends.fill(backlog)
    expected = len(backlog.values)
    with started(*command, place) as process:
        probes = _probed(ends, backlog, process, limit_s) if contender.reads_from_end else 0
        span = Span(process, broker, place.cpus, contender.reads_ahead, lambda: ends.predictions() - probes)
        span.low = max(LOW, contender.warm_up)
        span.watch(expected, limit_s)
        checked = ends.check(backlog, contender.reads_ahead)
        if checked["missing"] and not span.note:  # duplicates, or records that are no answers: wait for the rest
            span.watch(expected + checked["missing"], limit_s / 2)
            checked = ends.check(backlog, contender.reads_ahead)
    if span.note.startswith("ended"):
        span.note += f": {last_words(place)}"
    complete = not (checked["missing"] or checked["duplicates"] or checked["wrong"])
    complete &= checked["default_ratio"] == contender.default_ratio
    return outcome(contender, span, backlog.rows_each, {**checked, "complete": complete})


def outcome(contender: Contender, span: "Span", rows_each: int, checked: dict[str, Any]) -> dict[str, Any]:
    """The figures of a span with what was checked, and what makes them doubtful."""
    figures = span.figures(rows_each)
    if figures and figures["span_records"] < SPAN_AHEAD * contender.reads_ahead:
        figures = {"too_short": figures}
        span.note += "; the span is too short to tell: answers come in bursts as large as what is worked on at once"
    elif figures and not contender.config:
        figures["cpu_us"] = {"rival": figures["system_cpu_us"]}
    if figures.get("rig_cpu", 0.0) > RIG_LIMIT:
        span.note += "; the broker was at its limit, trust CPU more than the rate"
    return {**figures, **checked, "note": span.note.removeprefix("; ")}


@contextmanager
def _topics(place: Place) -> Iterator[Ends]:
    asyncio.run(ensure_topics(place.connection, place.catalogue))
    try:
        with closing(Ends(place.connection, place.catalogue)) as ends:
            yield ends
    finally:
        names = asyncio.run(existing_topics(place.connection))  # frameworks put words before the prefix
        asyncio.run(delete_topics(place.connection, [name for name in names if place.catalogue.prefix in name]))


@contextmanager
def started(command: list[str], environ: dict[str, str], place: Place) -> Iterator[subprocess.Popen[str]]:
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


def _probed(ends: Ends, backlog: Backlog, process: subprocess.Popen[str], limit_s: float) -> int:
    """Send a probe until one is answered, then the backlog; the number of probes answered.

    Raises:
        TimeoutError: none was within `limit_s`.
    """
    probe = Backlog(backlog.values[:1], ["probe"], backlog.labels[:1], backlog.headers, 1)
    probe.values[0] = probe.values[0].replace(backlog.ids[0].encode(), b"probe")
    give_up_s = time.monotonic() + limit_s
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


def last_words(place: Place) -> str:
    return _log(place).read_text(errors="replace")[-LAST_WORDS:].strip().replace(os.linesep, " / ")


def warm_up(place: Place, records: int) -> None:
    """Have the broker compile its hot paths before the first system."""
    backlog = make_backlog(Shape(), records)
    with _topics(place) as ends:
        for _ in range(2):
            ends.fill(backlog)
        ends.predictions()


LOW, HIGH = 0.05, 0.95
POLL_S, LOOK_S = 0.05, 1.0


@dataclass(frozen=True, slots=True)
class Look:
    """One moment: the count of predictions and the CPU seconds so far of all processes that are charged."""

    at_s: float
    count: int
    system: dict[tuple[str, int], float]
    broker_s: float
    driver_s: float


@dataclass(slots=True)
class Span:
    """Looks at the marks and in between.

    Args:
        process: Root of the system.
        broker: Process id of the broker, where it is known.
        cpus: Where hosts belong.
        reads_ahead: Queries left out at both ends where that is more than the marks leave out.
        count: Predictions so far.
        low: Share of them that the first mark leaves out.
    """

    process: subprocess.Popen[str]
    broker: list[int]
    cpus: Cpus
    reads_ahead: int
    count: Callable[[], int]
    low: float = LOW
    looks: list[Look] = field(default_factory=list)
    end: Look | None = None
    note: str = ""

    def watch(self, expected: int, limit_s: float) -> None:
        """Until so many predictions are there, the process ends, or the time is over."""
        low = max(self.low * expected, self.reads_ahead)
        high = min(HIGH * expected, expected - self.reads_ahead)
        for at_s, count in self._counts(expected, limit_s):
            if count < low:
                pin_hosts(self.process.pid, self.cpus.hosts)
            elif not self.looks or (self.looks[-1].count < high and self._due(at_s, count >= high)):
                self.looks.append(self._look(count))
            if count >= expected:
                self.end = self._look(count)

    def _due(self, at_s: float, at_mark: bool) -> bool:
        return at_mark or at_s - self.looks[-1].at_s > LOOK_S

    def _counts(self, expected: int, limit_s: float) -> Iterator[tuple[float, int]]:
        began_s = time.monotonic()
        while not self.note:
            now_s, count = time.monotonic(), self.count()
            yield now_s, count
            if count >= expected:
                return
            if self.process.poll() is not None:
                self.note = f"ended by itself with {self.process.returncode}"
            elif now_s - began_s > limit_s:
                self.note = f"stopped after {limit_s:.0f} s with {count} predictions"
            time.sleep(POLL_S)

    def _look(self, count: int) -> Look:
        used = resource.getrusage(resource.RUSAGE_SELF)
        broker_s = sum(cpu_s_by_process(self.broker).values())
        system = cpu_s_by_process([self.process.pid])
        return Look(time.monotonic(), count, system, broker_s, used.ru_utime + used.ru_stime)

    def figures(self, rows_each: int) -> dict[str, Any]:
        """Rate and CPU a row; empty when there is no span: nothing came, or all of it between two looks."""
        if len(self.looks) < 2 or self.looks[-1].count == self.looks[0].count:
            return {}
        first, last = self.looks[0], self.looks[-1]
        for role, pid in first.system.keys() - last.system.keys():
            self.note += f"; {role} {pid} ended in the run"
        span_s, records = last.at_s - first.at_s, last.count - first.count
        by_role = spent_by_role(first.system, last.system)
        rig_s = last.broker_s - first.broker_s + last.driver_s - first.driver_s
        shares = bool(self.cpus.hosts & self.cpus.rig)
        per_row = 1e6 / (records * rows_each)
        return {
            "records_per_s": round(records / span_s, 1),
            "rows_per_s": round(records * rows_each / span_s, 1),
            "cpu_us": {role: round(spent_s * per_row, 2) for role, spent_s in by_role.items()},
            "system_cpu_us": round(sum(by_role.values()) * per_row, 2),
            "broker_cpu_us": round((last.broker_s - first.broker_s) * per_row, 2),
            "rows_per_cpu_s": round(1e6 / max(0.01, sum(by_role.values()) * per_row), 1),
            "rig_cpu": round((rig_s + (by_role["host"] if shares else 0.0)) / span_s, 3),
            "system_cpu": round(sum(by_role.values()) / span_s, 3),
            "span_s": round(span_s, 2),
            "span_records": records,
            "whole_cpu_us": self._whole_cpu_us(rows_each),
        }

    def _whole_cpu_us(self, rows_each: int) -> float | None:
        """CPU a row from the first instruction to the last answer, start-up included."""
        if self.end is None:
            return None
        return round(sum(self.end.system.values()) * 1e6 / (self.end.count * rows_each), 2)
