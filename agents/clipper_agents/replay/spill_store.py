"""What memory has no room for, by key on disk: ids of decisions, decisions, and what came before its decision.

Rules of this file:
- A database is made when something is written first. It lives as long as a reading; the caller deletes the folder.
- Nothing is written ahead: a reading that crashed begins again.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from clipper_agents.streaming.databases import Database

V = TypeVar("V")


class SpillStore:
    """Bytes by key, on disk.

    Args:
        folder: Empty or missing.

    Raises:
        DatabaseCorrupt: the disk returned other bytes than were written.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._opened: Database | None = None

    def __bool__(self) -> bool:
        """Return whether anything was ever written."""
        return self._opened is not None

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the value of each key, None where there is none."""
        if self._opened is None or not keys:
            return [None] * len(keys)
        return self._opened.get_many(keys)

    def put(self, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Write keys with their values, as one batch."""
        self._database.write(items)

    def delete(self, keys: Iterable[bytes]) -> None:
        """Delete keys, as one batch."""
        self._database.write((), keys)

    def close(self) -> None:
        """Close the database, if there is one."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    @property
    def _database(self) -> Database:
        if self._opened is None:
            self._opened = Database(self._folder, logged=False)
        return self._opened


class SpillingDict(Generic[V]):
    """A dictionary with its newest values in memory and the others in a `SpillStore`.

    Args:
        folder: Folder of the store.
        encode: Encodes a value as bytes.
        decode: Decodes the bytes of a value.

    Attributes:
        recent: The values in memory; after adding to it, call `spill` from time to time.
    """

    def __init__(self, folder: Path, encode: Callable[[V], bytes], decode: Callable[[bytes], V]) -> None:
        self._store, self._encode, self._decode = SpillStore(folder), encode, decode
        self.recent: dict[str, V] = {}

    def __bool__(self) -> bool:
        """Return whether it holds, or ever held, a value."""
        return bool(self.recent) or bool(self._store)

    @property
    def on_disk(self) -> bool:
        """Whether some values are on disk."""
        return bool(self._store)

    def older(self, names: Sequence[str]) -> list[V | None]:
        """Return the values on disk, None where there is none."""
        values = self._store.get([name.encode() for name in names])
        return [None if value is None else self._decode(value) for value in values]

    def take_older(self, names: Sequence[str]) -> dict[str, V]:
        """Remove and return the values on disk, by name."""
        if not self.on_disk:
            return {}
        found = {name: value for name, value in zip(names, self.older(names), strict=True) if value is not None}
        self._store.delete(name.encode() for name in found)
        return found

    def spill(self, kept: int) -> None:
        """Move all but the newest `kept` values to disk."""
        moved = dict(islice(self.recent.items(), max(0, len(self.recent) - kept)))
        if moved:
            self._store.put((name.encode(), self._encode(value)) for name, value in moved.items())
            self.recent = dict(islice(self.recent.items(), len(moved), None))

    def close(self) -> None:
        """Close the store."""
        self._store.close()
