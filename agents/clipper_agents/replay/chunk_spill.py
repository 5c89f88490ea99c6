"""Chunks that wait for feedback, and what has come about them: in memory up to a number, the rest on disk.

Rules of this file:
- Chunks leave in the order in which they came, each whole.
- The chunk that is oldest is the next to leave, so it is the newest one that goes to disk when there is no room.
- What came about a chunk comes back in the order in which it came, wherever it was kept.
"""

from collections import OrderedDict
from pathlib import Path

from clipper_agents.replay.chunk import Chunk
from clipper_agents.replay.patches import AuditPatch, FeedbackTuple, decode_patches, encode_patches


class ChunkPatches:
    """Audits and feedback about the decisions of one chunk.

    Args:
        path: File for patches that do not fit into memory.
    """

    def __init__(self, path: Path) -> None:
        self._path, self._on_disk = path, False
        self.audits: list[AuditPatch] = []
        self.feedback: list[FeedbackTuple] = []

    def __len__(self) -> int:
        return len(self.audits) + len(self.feedback)

    def put_away(self) -> None:
        """Move the patches in memory to the file."""
        if len(self):
            content = encode_patches(self.audits, self.feedback)
            with self._path.open("ab") as file:
                file.write(len(content).to_bytes(8, "little") + content)
            self._on_disk = True
            self.audits, self.feedback = [], []

    def all(self) -> tuple[list[AuditPatch], list[FeedbackTuple]]:
        """Return all patches in the order in which they came, and remove the file."""
        if not self._on_disk:
            return self.audits, self.feedback
        audits: list[AuditPatch] = []
        feedback: list[FeedbackTuple] = []
        with self._path.open("rb") as file:
            while size := file.read(8):
                more_audits, more_feedback = decode_patches(file.read(int.from_bytes(size, "little")))
                audits += more_audits
                feedback += more_feedback
        self._path.unlink()
        return audits + self.audits, feedback + self.feedback


class WaitingChunks:
    """The chunks of one partition about which records may still come.

    Args:
        folder: Existing folder for what does not fit into memory.
        chunk_rows: Decisions in each chunk but the last.
        most_in_memory: Decisions in memory, and as many patches.
    """

    def __init__(self, folder: Path, chunk_rows: int, most_in_memory: int) -> None:
        self._folder, self._chunk_rows, self._most = folder, chunk_rows, most_in_memory
        self._chunks: OrderedDict[int, Chunk | None] = OrderedDict()
        self._last_ms: dict[int, int] = {}
        self._patches: dict[int, ChunkPatches] = {}
        self._rows_in_memory = self._patches_in_memory = 0
        self._left = 0

    def add(self, chunk: Chunk) -> None:
        """Append the chunk of the next decisions."""
        number = chunk.first_row // self._chunk_rows
        self._last_ms[number] = chunk.last_ms
        if self._chunks and self._rows_in_memory + len(chunk) > self._most:
            chunk.save(self._path(number))
            self._chunks[number] = None
        else:
            self._chunks[number] = chunk
            self._rows_in_memory += len(chunk)

    def patches(self, row: int) -> ChunkPatches | None:
        """Return the patches of a decision's chunk, to append to; None when the chunk has left."""
        number = row // self._chunk_rows
        if number < self._left:
            return None
        found = self._patches.get(number)
        if found is None:
            found = self._patches[number] = ChunkPatches(self._folder / f"{number}.patches")
        return found

    def tidy(self, more: int) -> None:
        """Count patches as added, and move all of them to disk when there are too many."""
        self._patches_in_memory += more
        if self._patches_in_memory > self._most:
            for patches in self._patches.values():
                patches.put_away()
            self._patches_in_memory = 0

    def leave(self, before_ms: float) -> tuple[Chunk, ChunkPatches] | None:
        """Remove and return the oldest chunk if all its decisions are older than a time in milliseconds."""
        if not self._chunks:
            return None
        number, chunk = next(iter(self._chunks.items()))
        if self._last_ms[number] >= before_ms:
            return None
        del self._chunks[number], self._last_ms[number]
        if chunk is None:
            chunk = Chunk.load(self._path(number))
            self._path(number).unlink()
        else:
            self._rows_in_memory -= len(chunk)
        patches = self.patches(chunk.first_row)
        assert patches is not None  # the chunk has not left yet
        del self._patches[number]
        self._left = number + 1
        self._patches_in_memory = max(0, self._patches_in_memory - len(patches))
        return chunk, patches

    def _path(self, number: int) -> Path:
        return self._folder / f"{number}.npz"
