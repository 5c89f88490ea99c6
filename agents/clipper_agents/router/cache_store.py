"""The prediction cache of each partition: its entries in memory, its outputs in a RocksDB database.

The cache can be rebuilt, so there is no write-ahead log: after a crash outputs may be missing, never wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import rocksdict

from clipper_agents.streaming.databases import open_anew
from clipper_agents.streaming.rocksdb_options import options, unlogged
from clipper_stream.caching.clock import ClockCache
from clipper_stream.query.batch import OPEN

encode_value, decode_value = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


class PartitionCache:
    """The cache of one partition.

    Attributes:
        entries: Which outputs are in the database.
    """

    def __init__(self, path: Path, budget_bytes: int) -> None:
        self._database, self._unlogged = open_anew(path, options), unlogged()
        self.entries = ClockCache(budget_bytes)
        _, deleted = self.entries.put({key: len(value) for key, value in self._database.items()})
        self._write({}, deleted)

    def get_many(self, keys: Sequence[bytes]) -> list[Any]:
        """Return the output of each key, by one multi-get; OPEN where there is none."""
        values = self._database.get(list(keys)) or []
        return [OPEN if value is None else decode_value(value) for value in values]

    def put_many(self, outputs: Iterable[tuple[bytes, Any]]) -> None:
        """Keep outputs, and delete those that have to make room, in one write."""
        values = {key: encode_value(output) for key, output in outputs}
        written, deleted = self.entries.put({key: len(value) for key, value in values.items()})
        self._write({key: values[key] for key in written}, deleted)

    def close(self) -> None:
        self._database.close()

    def _write(self, values: Mapping[bytes, bytes], deleted: Iterable[bytes]) -> None:
        batch = rocksdict.WriteBatch(raw_mode=True)
        for key, value in values.items():
            batch.put(key, value)
        for key in deleted:
            batch.delete(key)
        if not batch.is_empty():
            self._database.write(batch, self._unlogged)


class PartitionCaches:
    """The caches of the partitions that this process owns."""

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self._folder, self._budget_bytes = folder, budget_bytes
        self._open: dict[int, PartitionCache] = {}

    def of(self, partition: int) -> PartitionCache:
        """Return the partition's cache; the first call opens it."""
        cache = self._open.get(partition)
        if cache is None:
            cache = self._open[partition] = PartitionCache(self._folder / str(partition), self._budget_bytes)
        return cache

    @property
    def size_bytes(self) -> int:
        return sum(cache.entries.size_bytes for cache in self._open.values())

    def keep_only(self, partitions: Iterable[int]) -> None:
        for partition in self._open.keys() - set(partitions):
            self._open.pop(partition).close()
