"""Which decision a query's id means: the first one, as for the learner. The newest ids in memory, the others on disk.

Rules of this file:
- An id is never forgotten while a partition is read: a second prediction about it is a repetition, however late.
- The id of a decision that is not wanted (another application's, or before the span) is known as such, so that
  feedback about it is not taken for feedback about nothing.
"""

import struct
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import rocksdict

from clipper_agents.streaming.rocksdb_options import options, unlogged

NOT_WANTED = -1
"""Stands for a decision that is not read."""
_ROW = struct.Struct("<q")


class QueryIds:
    """Numbers of decisions by their queries' ids.

    Args:
        folder: For what memory has no room for; made when it is needed.
        most_in_memory: Ids in memory.

    Attributes:
        recent: Those in memory. Whoever adds to it calls `tidy` now and then.

    Raises:
        DatabaseCorrupt: the disk gave back something else than was written.
    """

    def __init__(self, folder: Path, most_in_memory: int) -> None:
        self._folder, self._most = folder, most_in_memory
        self.recent: dict[str, int] = {}
        self._older: rocksdict.Rdict | None = None
        self._unlogged = unlogged()

    @property
    def on_disk(self) -> bool:
        """Whether some are not in memory."""
        return self._older is not None

    def find_older(self, ids: Sequence[str]) -> list[int | None]:
        """The numbers of ids that are not in memory; None of those that were never read."""
        if self._older is None or not ids:
            return [None] * len(ids)
        found: list[Any] = self._older.get([one.encode() for one in ids])  # type: ignore[assignment]  # a list's
        return [None if value is None else _ROW.unpack(value)[0] for value in found]

    def tidy(self) -> None:
        """Put the older half on disk when there are too many."""
        if len(self.recent) <= self._most:
            return
        if self._older is None:
            self._older = rocksdict.Rdict(str(self._folder), options())
        moved = dict(islice(self.recent.items(), len(self.recent) - self._most // 2))
        batch = rocksdict.WriteBatch(raw_mode=True)
        for query_id, row in moved.items():
            batch.put(query_id.encode(), _ROW.pack(row))
        self._older.write(batch, self._unlogged)
        self.recent = dict(islice(self.recent.items(), len(moved), None))

    def close(self) -> None:
        """Close the database, if there is one."""
        if self._older is not None:
            self._older.close()
            self._older = None
