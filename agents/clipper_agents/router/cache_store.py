"""The prediction cache's entries on RocksDB, a database a partition. It can be rebuilt, so nothing is logged."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec
import rocksdict

from clipper_agents.streaming.databases import open_anew
from clipper_agents.streaming.rocksdb_options import options, unlogged
from clipper_stream.caching.clock import ClockCache


class MsgpackOutputs:
    """Encodes outputs in the cache as msgpack."""

    dumps = staticmethod(msgspec.msgpack.Encoder().encode)
    loads = staticmethod(msgspec.msgpack.Decoder().decode)


class RocksCacheStore:
    """A `CacheStore` without a write-ahead log: after a crash entries may be missing, never wrong."""

    def __init__(self, path: Path) -> None:
        self._database = open_anew(path, options)
        self._unlogged = unlogged()

    def get_many(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return the value of each key, by one multi-get."""
        return self._database.get(list(keys)) or []

    def write(self, puts: Sequence[tuple[bytes, bytes]], deletes: Sequence[bytes]) -> None:
        """Write all changes as one batch."""
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in puts:
            batch.put(key, value)
        for key in deletes:
            batch.delete(key)
        self._database.write(batch, self._unlogged)

    def items(self) -> Iterable[tuple[bytes, bytes]]:
        """Iterate over all entries."""
        return self._database.items()

    def close(self) -> None:
        """Close the database."""
        self._database.close()


class PartitionCaches:
    """The caches of the partitions that this process owns."""

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self._folder, self._budget_bytes = folder, budget_bytes
        self._open: dict[int, tuple[RocksCacheStore, ClockCache]] = {}

    def of(self, partition: int) -> ClockCache:
        """Return the partition's cache; the first call opens it."""
        found = self._open.get(partition)
        if found is None:
            store = RocksCacheStore(self._folder / str(partition))
            found = self._open[partition] = store, ClockCache(store, self._budget_bytes)
        return found[1]

    @property
    def size_bytes(self) -> int:
        """Bytes that all caches hold together."""
        return sum(cache.size_bytes for _, cache in self._open.values())

    def keep_only(self, partitions: Iterable[int]) -> None:
        """Close the caches of all other partitions."""
        for partition in self._open.keys() - set(partitions):
            self._open.pop(partition)[0].close()
