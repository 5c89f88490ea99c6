"""Figures of two days in SQLite, in three resolutions: the coarser points are means of the finer ones.

    10 s for 30 min --mean of 6--> 1 min for 6 h --mean of 10--> 10 min for 48 h

Rules of this file:
- Nothing here is the truth: a file that cannot be read is removed and begun anew. A disk that takes no more points ends
  the keeping of them, with a `reason`, until it takes some again.
- A figure is kept with three digits; one that is not known is not kept.
"""

import logging
import math
import sqlite3
import zlib
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TypeVar

import msgspec

from clipper_agents.status.model import ApplicationStatus, Latency, ModelStatus
from clipper_topics.prediction import REASONS

logger = logging.getLogger(__name__)
T = TypeVar("T")
Point = dict[str, dict[str, float]]
"""Known figures by name, of each version by `name:version`, and under "" of the application."""

SPANS_S = {10: 30 * 60, 60: 6 * 3_600, 600: 48 * 3_600}
"""How far back points go, by the seconds of their step."""
FINEST_S = min(SPANS_S)
RETRY_S = 60.0
_SCHEMA = """
    PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA wal_autocheckpoint=100;
    CREATE TABLE IF NOT EXISTS points (
        step_s INTEGER, application TEXT, at_s INTEGER, figures BLOB, PRIMARY KEY (step_s, application, at_s)
    ) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS points_by_age ON points (step_s, at_s);
"""
_SELECT = """
    SELECT at_s, figures FROM points
    WHERE step_s = ? AND application = ? AND at_s BETWEEN ? AND ? ORDER BY at_s
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationSeries:
    """Figures of one application over time, by name, one for each beginning of a step; None where nothing is known."""

    step_s: int
    times_s: list[int]
    values: dict[str, list[float | None]]
    versions: dict[str, dict[str, list[float | None]]]


class SeriesHistory:
    """Points of each application in a file that several threads and gateways may use; `reason`: why none is kept."""

    def __init__(self, folder: Path, clock: Callable[[], float]) -> None:
        self._folder, self._clock, self.reason = folder, clock, ""
        self._database: sqlite3.Connection | None = None
        self._folded: dict[tuple[str, int], int] = {}
        """The newest whole step that coarser points were made of, by application and their step."""
        self._retry_s, self._lock = 0.0, Lock()
        self._guarded(lambda _: None)

    def add(self, at_s: float, points: Mapping[str, Point]) -> None:
        """Take in a point of each of these applications, and means of what has become whole by that."""
        at_s = int(at_s) - int(at_s) % FINEST_S

        def put(database: sqlite3.Connection) -> None:
            with database:
                for application, point in points.items():
                    self._put(database, FINEST_S, application, at_s, point)
                    for finer_s, step_s in pairwise(SPANS_S):
                        self._fold(database, finer_s, step_s, application, at_s - at_s % step_s - step_s)
                for step_s, span_s in SPANS_S.items():
                    database.execute("DELETE FROM points WHERE step_s = ? AND at_s < ?", (step_s, at_s - span_s))

        self._guarded(put)

    def series(self, application: str, since_s: float) -> ApplicationSeries:
        """Figures since a time, of the finest resolution that reaches back so far."""
        now_s = self._clock()
        step_s = next((step_s for step_s, span_s in SPANS_S.items() if now_s - since_s <= span_s), max(SPANS_S))
        first, last = (int(at_s) - int(at_s) % step_s for at_s in (since_s, now_s))
        times_s = range(max(first, last - SPANS_S[step_s] + step_s), last + step_s, step_s)
        found = self._guarded(lambda database: self._points(database, step_s, application, times_s[0], last)) or {}
        if step_s != FINEST_S and last not in found:  # the last one, of what there is
            parts = self._guarded(lambda database: self._points(database, FINEST_S, application, last, last + step_s))
            found |= {last: _mean([*parts.values()])} if parts else {}
        columns: dict[str, dict[str, list[float | None]]]
        columns = defaultdict(lambda: defaultdict(lambda: [None] * len(times_s)))
        for at, at_s in enumerate(times_s):
            for version, figures in found.get(at_s, {}).items():
                for name, value in figures.items():
                    columns[version][name][at] = value
        values = {name: one for name, one in columns.pop("", {}).items() if any(one) or not name.startswith("default:")}
        versions = {version: dict(figures) for version, figures in columns.items()}
        return ApplicationSeries(step_s=step_s, times_s=[*times_s], values=values, versions=versions)

    def close(self) -> None:
        with self._lock:
            self._close()
            self._retry_s = float("inf")

    def _put(self, database: sqlite3.Connection, step_s: int, application: str, at_s: int, point: Point) -> None:
        known = {
            version: {name: float(f"{value:.3g}") for name, value in figures.items() if math.isfinite(value)}
            for version, figures in point.items()
        }
        row = (step_s, application, at_s, zlib.compress(msgspec.json.encode(known), 1))
        database.execute("INSERT OR REPLACE INTO points VALUES (?, ?, ?, ?)", row)

    def _points(
        self, database: sqlite3.Connection, step_s: int, application: str, first: int, last: int
    ) -> dict[int, Point]:
        rows = database.execute(_SELECT, (step_s, application, first, last))
        return {at_s: msgspec.json.decode(zlib.decompress(packed), type=Point) for at_s, packed in rows}

    def _fold(self, database: sqlite3.Connection, finer_s: int, step_s: int, application: str, at_s: int) -> None:
        if self._folded.get((application, step_s), 0) >= at_s:
            return
        self._folded[application, step_s] = at_s
        if parts := self._points(database, finer_s, application, at_s, at_s + step_s - 1):
            self._put(database, step_s, application, at_s, _mean([*parts.values()]))

    def _guarded(self, call: Callable[[sqlite3.Connection], T]) -> T | None:
        """What a call returns; None where the disk does not let it happen, and `reason` says why."""
        with self._lock:
            for _ in range(2):
                try:
                    if self._database is None and self._clock() >= self._retry_s:
                        self._database, self.reason = self._opened(), ""
                    return None if self._database is None else call(self._database)
                except (OSError, sqlite3.OperationalError) as error:
                    self._close()
                    self.reason, self._retry_s = f"the console keeps no history: {error}", self._clock() + RETRY_S
                    logger.warning("%s", self.reason)
                    return None
                except (sqlite3.DatabaseError, zlib.error, ValueError):  # it is begun anew
                    self._close()
                    for path in self._folder.glob("history.sqlite*"):
                        with suppress(OSError):
                            path.unlink()
            return None

    def _opened(self) -> sqlite3.Connection:
        self._folder.mkdir(parents=True, exist_ok=True)
        database = sqlite3.connect(self._folder / "history.sqlite", check_same_thread=False)
        database.executescript(_SCHEMA)
        return database

    def _close(self) -> None:
        if self._database is not None:
            with suppress(sqlite3.Error):
                self._database.close()
        self._database, self._folded = None, {}


def point_of(status: ApplicationStatus) -> Point:
    """The figures of an application, and of each version that it names, of which a curve is drawn."""
    of_all = {"queries_per_s": status.queries_per_s, "feedback_per_s": status.feedback_per_s}
    of_all |= {f"{stage}_ms": one.p50_ms for stage, one in status.stages.items()}
    if status.queries:
        of_all |= {f"default:{reason}": status.defaults.get(reason, 0) / status.queries for reason in REASONS}
    point = {"": of_all | _latency(status.latency)}
    for one in (each for each in status.versions if each.stage != "retired"):
        model = one.declared or ModelStatus(ref=one.model)
        alone = {"weight": one.weight, "share": one.share, "cache_hit_ratio": one.cache_hit_ratio}
        alone |= {"batch_limit": model.batch_limit, "batch_p99_ms": model.batches.p99_ms if model.batches else None}
        known = {name: value for name, value in alone.items() if value is not None}
        loss, of = one.loss, one.compared
        intervals = {} if loss is None else _interval("loss", loss.mean, loss.lower, loss.upper)
        if of is not None and of.difference is not None:
            intervals |= _interval("difference", of.difference, of.lower, of.upper)
        point[one.model] = known | _latency(one.latency) | intervals
    return point


def _latency(found: Latency | None) -> dict[str, float]:
    return {} if found is None else {"p50_ms": found.p50_ms, "p99_ms": found.p99_ms}


def _interval(name: str, value: float, lower: float, upper: float) -> dict[str, float]:
    return {name: value, f"{name}_lower": lower, f"{name}_upper": upper}


def _mean(points: list[Point]) -> Point:
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for point in points:
        for version, figures in point.items():
            for name, value in figures.items():
                found[version][name].append(value)
    return {
        version: {name: sum(values) / len(values) for name, values in figures.items()}
        for version, figures in found.items()
    }
