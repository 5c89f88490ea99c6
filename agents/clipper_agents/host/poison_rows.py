"""Which rows were in the model when the process died, so that a row that kills it is not asked for ever.

    batch begins --> named in the journal --> batch ends --> journal empty
                            | the process dies here: the next one finds the names
    rows that were in one death are asked alone; a row that was alone in a second one is not asked again: it has failed

Rules of this file:
- The journal is a mapped file: a write costs a copy, and is there after any death of the process. Of a machine's it is
  not; then rows are asked together again. Its blocks are taken at the start: a hole would be a SIGBUS on a full disk.
- A row is known by the identity of its router, the token of its frame and its place in it: new in every frame.
"""

import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from clipper_agents.host.outputs import RowSpan
from clipper_agents.host.request_rows import RequestRows
from clipper_agents.host.watchdog import BatchWatch
from clipper_agents.streaming.storage import not_started

DEATHS = 2
"""A row with which the process died so often is not asked again."""
JOURNAL_BYTES = 256 * 1024
KEPT = 2_000
"""Runs of rows that are remembered; frames are kept for an hour, and deaths are rare."""
_LENGTH = struct.Struct("<I")


class PoisonSpan(NamedTuple):
    """Rows that were in the model at so many deaths."""

    router: bytes
    frame: int
    start: int
    stop: int
    deaths: int


class PoisonRows:
    """Rows that were in the model when the process died, on disk.

    Attributes:
        found: What the run before this one left behind.

    Raises:
        StorageRefused: the folder cannot be written.
        StorageFailed: there is no space.
    """

    def __init__(self, folder: Path) -> None:
        remembered = folder / "suspects"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._journal = _mapped(folder / "in-model")
            before = _decoded(remembered.read_bytes() if remembered.exists() else b"")
            self.found = [_counted(one, before) for one in self._left_behind()]
            known = [*before, *self.found][-KEPT:]
            if self.found:
                remembered.write_bytes(msgspec.msgpack.encode(known))
        except OSError as error:
            raise not_started(folder, error) from error
        self._by_frame: dict[tuple[bytes, int], list[PoisonSpan]] = {}
        for one in known:
            self._by_frame.setdefault((one.router, one.frame), []).append(one)
        self.clear()

    def marked(self, request: RequestRows) -> RequestRows:
        """Return the request with the rows marked that must run alone, because a process died with them."""
        spans = self._by_frame.get((request.router, request.frame)) if self._by_frame else None
        if not spans:
            return request
        rows = (row for one in spans for row in range(one.start, min(one.stop, len(request.rows))))
        return replace(request, apart=frozenset(rows))

    def refusal(self, runs: Sequence[RowSpan[Any]]) -> str | None:
        """Return why this batch must not run; None when it may."""
        if not self._by_frame or len(runs) != 1 or len(runs[0]) != 1:
            return None
        request, row = runs[0].frame.request, runs[0].start
        spans = self._by_frame.get((request.router, request.frame), ())
        deaths = max((one.deaths for one in spans if one.start <= row < one.stop), default=0)
        return (
            f"the model's process died {deaths} times with this row in it: not asked again"
            if deaths >= DEATHS
            else None
        )

    def note(self, runs: Iterable[RowSpan[Any]]) -> None:
        """Record that these rows go into the model."""
        names = [(run.frame.request.router, run.frame.request.frame, run.start, run.stop, 0) for run in runs]
        content = msgspec.msgpack.encode(names)
        while len(content) > JOURNAL_BYTES - _LENGTH.size:
            names = names[: len(names) // 2]
            content = msgspec.msgpack.encode(names)
        self._journal[_LENGTH.size : _LENGTH.size + len(content)] = content
        self._journal[: _LENGTH.size] = _LENGTH.pack(len(content))

    def clear(self) -> None:
        """Record that the model is done with the rows."""
        self._journal[: _LENGTH.size] = _LENGTH.pack(0)

    def _left_behind(self) -> list[PoisonSpan]:
        (length,) = _LENGTH.unpack(self._journal[: _LENGTH.size])
        return _decoded(self._journal[_LENGTH.size : _LENGTH.size + length])


class BatchGuard:
    """What stands around each batch of a model: the watch over its time, and the memory of rows that ended the process.

    A colocated model has no such memory: its requests do not outlive its process.
    """

    def __init__(self, watch: BatchWatch | None = None, poison_rows: PoisonRows | None = None) -> None:
        self._watch, self._poison_rows = watch, poison_rows

    def begin(self, runs: Sequence[RowSpan[Any]]) -> str | None:
        """Record that these rows go into the model, or return why they must not."""
        if self._poison_rows is not None:
            refusal = self._poison_rows.refusal(runs)
            if refusal is not None:
                return refusal
            self._poison_rows.note(runs)
        if self._watch is not None:
            self._watch.begin(sum(map(len, runs)))
        return None

    def end(self) -> None:
        """Record that the batch has returned."""
        if self._watch is not None:
            self._watch.end()
        if self._poison_rows is not None:
            self._poison_rows.clear()


def _mapped(path: Path) -> mmap.mmap:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.ftruncate(descriptor, JOURNAL_BYTES)
        os.posix_fallocate(descriptor, 0, JOURNAL_BYTES)
        return mmap.mmap(descriptor, JOURNAL_BYTES)
    finally:
        os.close(descriptor)


def _decoded(content: bytes) -> list[PoisonSpan]:
    """Decode the file; return nothing when it was half written by a machine that died."""
    try:
        return msgspec.msgpack.decode(content, type=list[PoisonSpan]) if content else []
    except msgspec.MsgspecError:
        return []


def _counted(one: PoisonSpan, before: Iterable[PoisonSpan]) -> PoisonSpan:
    """Add the earlier deaths of any of its rows."""
    same = (
        each.deaths
        for each in before
        if (each.router, each.frame) == (one.router, one.frame) and each.start < one.stop and one.start < each.stop
    )
    return one._replace(deaths=1 + max(same, default=0))
