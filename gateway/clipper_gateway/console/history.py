"""Figures of two days in a database of bounded size: three rings of points, the coarser ones means of the finer ones.

    10 s for 30 min --mean of 6--> 1 min for 6 h --mean of 10--> 10 min for 48 h

Rules of this file:
- A ring drops its oldest points when it has too many bytes: of more versions than fit, the history is shorter.
- Nothing here is the truth: what cannot be read is removed and begun anew. A disk that takes no more points ends the
  keeping of them, with a `reason`, until it takes some again.
- A figure has two bytes, three significant digits, and is at most 4 million.
"""

import logging
import math
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import NamedTuple, Self, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from clipper_agents.streaming.bounded_database import open_bounded
from clipper_agents.streaming.databases import Database, DatabaseCorrupt
from clipper_agents.streaming.storage import StorageRefused, claim
from clipper_stream.errors import ClipperError

logger = logging.getLogger(__name__)
T = TypeVar("T")
Figures = npt.NDArray[np.float32]
Clock = Callable[[], float]
Point = Mapping[str, float]
Points = Mapping[str, Point]

VERSION_VALUES = (
    *("weight", "share", "loss", "loss_lower", "loss_upper", "difference", "difference_lower", "difference_upper"),
    *("p50_ms", "p99_ms", "batch_limit", "batch_p99_ms", "cache_hit_ratio"),
)
TABLE_BYTES = 44 << 20
"""Of all rings: with the logs of writes that are in no table yet, at most 50 MiB."""
MOST_FOLDERS, WAIT_FOR_OTHER_S, RETRY_S = 9, 2.0, 60.0
DROPPED_BITS, MOST, UNIT = 2, 65408.0, 64.0
"""Of ten behind a half-precision number's point, to save a quarter of the space; the largest; divisor of figures."""


class Ring(NamedTuple):
    """A point each `step_s` seconds, of which so many are kept: it reaches back `span_s`."""

    step_s: int
    points: int
    span_s: int


RINGS = FINEST, *_ = (Ring(10, 180, 30 * 60), Ring(60, 360, 6 * 3_600), Ring(600, 288, 48 * 3_600))


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationSeries:
    """Figures of one application over time, one a step; None where nothing is known.

    Attributes:
        step_s: Seconds from one time to the next.
        times_s: Beginnings of the steps, seconds since the epoch.
        values: Of the application, by name.
        versions: Of each version, by name.
    """

    step_s: int
    times_s: list[int] = field(default_factory=list)
    values: dict[str, list[float | None]] = field(default_factory=dict)
    versions: dict[str, dict[str, list[float | None]]] = field(default_factory=dict)


class _Point(msgspec.Struct, array_like=True, frozen=True):
    """Figures of each name, then `VERSION_VALUES` of each version: the low bytes of all, and the high ones."""

    names: tuple[str, ...]
    versions: tuple[str, ...]
    figures: bytes


class SeriesHistory:
    """Points of each application in rings of three resolutions; threads may use it.

    Args:
        folder: Where they are; one beside it while another process uses that.
        clock: Says the time, seconds since the epoch.

    Attributes:
        reason: Why nothing is kept any more; empty while it is.
    """

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder, self._clock, self.reason = folder, clock, ""
        self._rings: dict[Ring, Database] = {}
        self._folded: dict[str, int] = {}
        self._claim: int | None = None
        self._retry_s, self._lock = 0.0, Lock()

    @classmethod
    def open(cls, folder: Path, clock: Clock) -> Self:
        """The history in this folder; what cannot be opened is removed and begun anew."""
        found = cls(folder, clock)
        found._guarded(lambda: None)
        return found

    def add(self, application: str, at_s: float, values: Point, versions: Points, ring: Ring | None = None) -> None:
        """Take in a point of now, and let the coarser rings take in what is complete.

        With a `ring`, the point is one of the past, which counts where there is none.
        """
        of_versions = [one.get(name, np.nan) for one in versions.values() for name in VERSION_VALUES]
        point = _encoded([*values], [*versions], np.array([*values.values(), *of_versions], np.float32))

        def put() -> None:
            key = _key(application, int(at_s) // (ring or FINEST).step_s)
            if ring is None or self._rings[ring].get(key) is None:
                self._rings[ring or FINEST].write([(key, point)])
            if ring is not None:
                self._folded.pop(application, None)
            elif at_s % RINGS[1].step_s < FINEST.step_s:
                self._fold(application, int(at_s))

        self._guarded(put)

    def has(self, ring: Ring, application: str, at_s: float) -> bool:
        """Whether there is a point of this time."""
        key = _key(application, int(at_s) // ring.step_s)
        return self._guarded(lambda: self._rings[ring].get(key)) is not None

    def series(self, application: str, since_s: float, until_s: float) -> ApplicationSeries:
        """Figures between two times, of the finest ring that reaches back so far."""
        now_s = self._clock()
        ring = next((one for one in RINGS if now_s - since_s <= one.span_s), RINGS[-1])
        last = int(min(until_s, now_s)) // ring.step_s
        buckets = range(max(int(since_s) // ring.step_s, last - ring.points + 1), last + 1)
        names, versions, table = _table(self._guarded(lambda: self._with_last(ring, application, buckets)) or [])
        rounded: npt.NDArray[np.object_] = np.round(table.astype(float), 5).astype(object)
        rounded[~np.isfinite(table)] = None
        columns = rounded.T.tolist()
        usual = np.array([not name.startswith("default:") for name in _columns(names, versions)], bool)
        useful = (np.isfinite(table) & ((table != 0.0) | usual)).any(axis=0)
        firsts = range(len(names), len(columns), len(VERSION_VALUES))
        return ApplicationSeries(
            step_s=ring.step_s,
            times_s=[bucket * ring.step_s for bucket in buckets],
            values={name: columns[at] for at, name in enumerate(names) if useful[at]},
            versions={
                ref: {name: columns[at] for at, name in enumerate(VERSION_VALUES, first) if useful[at]}
                for first, ref in zip(firsts, versions, strict=True)
            },
        )

    def close(self) -> None:
        """Close the database; nothing is kept any more."""
        with self._lock:
            self._close()
            self._retry_s = math.inf

    # --- points -----------------------------------------------------------------------------------------------------
    def _fold(self, application: str, at_s: int) -> None:
        """Give the coarser rings what they lack of the finer ones."""
        for finer, ring in pairwise(RINGS):
            since_s = max(self._folded.get(application, 0), at_s - finer.span_s + ring.step_s)
            buckets = range(since_s // ring.step_s, at_s // ring.step_s)
            known = self._rings[ring].get_many([_key(application, bucket) for bucket in buckets])
            for bucket in (bucket for bucket, there in zip(buckets, known, strict=True) if there is None):
                if (point := self._mean(finer, ring, application, bucket)) is not None:
                    self._rings[ring].write([(_key(application, bucket), point)])
        self._folded[application] = at_s

    def _mean(self, finer: Ring, ring: Ring, application: str, bucket: int) -> bytes | None:
        parts = ring.step_s // finer.step_s
        points = self._read(finer, application, range(bucket * parts, (bucket + 1) * parts))
        if not any(points):
            return None
        names, versions, table = _table(points)
        with np.errstate(invalid="ignore"):
            return _encoded(names, versions, np.nansum(table, axis=0) / np.isfinite(table).sum(axis=0))

    def _with_last(self, ring: Ring, application: str, buckets: range) -> list[_Point | None]:
        found = self._read(ring, application, buckets)
        if ring != FINEST and found and found[-1] is None:
            found[-1] = _decoded(self._mean(RINGS[RINGS.index(ring) - 1], ring, application, buckets[-1]))
        return found

    def _read(self, ring: Ring, application: str, buckets: Sequence[int]) -> list[_Point | None]:
        return [*map(_decoded, self._rings[ring].get_many([_key(application, bucket) for bucket in buckets]))]

    # --- the databases ----------------------------------------------------------------------------------------------
    def _guarded(self, call: Callable[[], T]) -> T | None:
        """What a call returns; None where the disk does not let it happen, which is told as the `reason`."""
        with self._lock:
            for _ in range(2):
                try:
                    if not self._rings and self._clock() >= self._retry_s:
                        self._open()
                    return call() if self._rings else None
                except DatabaseCorrupt:  # it was set aside, and is begun anew
                    self._close()
                except ClipperError as error:
                    self._close()
                    self.reason, self._retry_s = f"the console keeps no history: {error}", self._clock() + RETRY_S
                    logger.warning("%s", self.reason)
            return None

    def _close(self) -> None:
        for database in self._rings.values():
            database.close()
        self._rings, self._folded = {}, {}
        if self._claim is not None:
            os.close(self._claim)
            self._claim = None

    def _open(self) -> None:
        folder, number = self._folder, 1
        while self._claim is None:
            try:
                self._claim = claim(folder, WAIT_FOR_OTHER_S)
            except StorageRefused as error:
                if (number := number + 1) > MOST_FOLDERS:
                    raise
                logger.warning("the history of the console goes to another folder: %s", error)
                folder = self._folder.with_name(f"{self._folder.name}-{number}")
        for ring in RINGS:
            table_bytes = TABLE_BYTES * ring.points // sum(one.points for one in RINGS)
            self._rings[ring] = open_bounded(folder / str(ring.step_s), table_bytes)
        self.reason, self._retry_s = "", 0.0


# --- bytes ----------------------------------------------------------------------------------------------------------
_decoder, _encode = msgspec.msgpack.Decoder(_Point), msgspec.msgpack.Encoder().encode


def _key(application: str, bucket: int) -> bytes:
    return b"%b\0%b" % (application.encode(), bucket.to_bytes(5, "big"))


def _encoded(names: Sequence[str], versions: Sequence[str], figures: Figures) -> bytes:
    halves = np.clip(figures / UNIT, -MOST, MOST).astype(np.float16).view(np.uint16)
    halves = (halves + (1 << DROPPED_BITS >> 1)) >> DROPPED_BITS << DROPPED_BITS
    return _encode(_Point(tuple(names), tuple(versions), halves.view(np.uint8).reshape(-1, 2).T.tobytes()))


def _decoded(value: bytes | None) -> _Point | None:
    with suppress(msgspec.MsgspecError):
        return None if value is None else _decoder.decode(value)
    return None


def _columns(names: Sequence[str], versions: Sequence[str]) -> list[str]:
    return [*names, *(f"{ref} {name}" for ref in versions for name in VERSION_VALUES)]


def _table(points: Sequence[_Point | None]) -> tuple[list[str], list[str], Figures]:
    """Names and versions of all points, and their figures, a row a point; NaN where there is none."""
    layouts = dict.fromkeys((point.names, point.versions) for point in points if point is not None)
    names = [*dict.fromkeys(name for layout in layouts for name in layout[0])]
    versions = [*dict.fromkeys(ref for layout in layouts for ref in layout[1])]
    place = {name: at for at, name in enumerate(_columns(names, versions))}
    places = {layout: [place[name] for name in _columns(*layout)] for layout in layouts}
    table = np.full((len(points), len(place)), np.nan, np.float32)
    for row, point in zip(table, points, strict=True):
        if point is not None:
            halves = np.frombuffer(point.figures, np.uint8).reshape(2, -1).T.copy().view(np.float16)
            row[places[point.names, point.versions]] = halves[:, 0] * np.float32(UNIT)
    return names, versions, table
