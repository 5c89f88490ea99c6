"""Which rows were in the model when the process died, so that a row that kills it is not asked for ever.

    batch begins --> named in the journal --> batch ends --> journal empty
                            | the process dies here: the next one finds the names
    rows that were in one death are asked alone; a row that was alone in a second one is not asked again: it has failed

The journal is a mapped file: a write costs a copy, and survives any death of the process, but not the machine's; then
rows are asked together again. Its blocks are taken at the start: a hole would be a SIGBUS on a full disk. A row is
known by its router, the token of its frame and its place in it.
"""

import mmap
import os
import struct
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

from clipper_agents.host.batching import RequestRows, RowSpan
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
        found: Those of the run before this one.
        by_frame: All that are known, by router and frame.

    Raises `StorageRefused` where the folder cannot be written, and `StorageFailed` where there is no space.
    """

    def __init__(self, folder: Path) -> None:
        remembered = folder / "suspects"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._journal = _mapped(folder / "in-model")
            before = _decoded(remembered.read_bytes() if remembered.exists() else b"")
            (length,) = _LENGTH.unpack(self._journal[: _LENGTH.size])
            found = _decoded(self._journal[_LENGTH.size : _LENGTH.size + length])
            self.found = [_counted(span, before) for span in found]
            known = [*before, *self.found][-KEPT:]
            if self.found:
                remembered.write_bytes(msgspec.msgpack.encode(known))
        except OSError as error:
            raise not_started(folder, error) from error
        self.by_frame: dict[tuple[bytes, int], list[PoisonSpan]] = {}
        for span in known:
            self.by_frame.setdefault((span.router, span.frame), []).append(span)
        self.end()

    def mark(self, request: RequestRows) -> None:
        """Mark the rows of a request that must run alone, because a process died with them."""
        spans = self.by_frame.get((request.router, request.frame), ())
        rows = (row for span in spans for row in range(span.start, min(span.stop, len(request.rows))))
        request.apart = frozenset(rows)

    def begin(self, batch: Sequence[RowSpan]) -> str | None:
        refusal = self._refusal(batch)
        if refusal is None:
            names = [(request.router, request.frame, start, stop, 0) for request, start, stop in batch]
            content = msgspec.msgpack.encode(names)
            while len(content) > JOURNAL_BYTES - _LENGTH.size:
                names = names[: len(names) // 2]
                content = msgspec.msgpack.encode(names)
            self._journal[_LENGTH.size : _LENGTH.size + len(content)] = content
            self._journal[: _LENGTH.size] = _LENGTH.pack(len(content))
        return refusal

    def end(self) -> None:
        self._journal[: _LENGTH.size] = _LENGTH.pack(0)

    def _refusal(self, batch: Sequence[RowSpan]) -> str | None:
        if not self.by_frame or len(batch) != 1 or batch[0].size != 1:
            return None
        request, row, _ = batch[0]
        spans = self.by_frame.get((request.router, request.frame), ())
        deaths = max((span.deaths for span in spans if span.start <= row < span.stop), default=0)
        text = f"the model's process died {deaths} times with this row in it: not asked again"
        return text if deaths >= DEATHS else None


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
    same = (
        each.deaths
        for each in before
        if (each.router, each.frame) == (one.router, one.frame) and each.start < one.stop and one.start < each.stop
    )
    return one._replace(deaths=1 + max(same, default=0))
