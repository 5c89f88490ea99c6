"""The prediction cache of each partition: its entries in memory, its outputs in a RocksDB database.

The cache can be rebuilt, so there is no write-ahead log: after a crash outputs may be missing, never wrong.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clipper_agents.streaming.databases import open_anew
from clipper_stream.caching.cache import ClockCache
from clipper_stream.query.batch import OPEN

encode_value, decode_value = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode


class PartitionCache:
    """The cache of one partition.

    Attributes:
        entries: Which outputs are in the database.
    """

    def __init__(self, path: Path, budget_bytes: int) -> None:
        self._database = open_anew(path, logged=False)
        self.entries = ClockCache(budget_bytes)
        _, deleted = self.entries.put({key: len(value) for key, value in self._database.items()})
        self._write({}, deleted)

    def get_many(self, keys: Sequence[bytes]) -> list[Any]:
        """Return the output of each key, by one multi-get; OPEN where there is none."""
        return [OPEN if value is None else decode_value(value) for value in self._database.get_many(keys)]

    def put_many(self, outputs: Iterable[tuple[bytes, Any]]) -> None:
        """Keep outputs, and delete those that have to make room, in one write."""
        values = {key: encode_value(output) for key, output in outputs}
        written, deleted = self.entries.put({key: len(value) for key, value in values.items()})
        self._write({key: values[key] for key in written}, deleted)

    def close(self) -> None:
        self._database.close()

    def _write(self, values: Mapping[bytes, bytes], deleted: Sequence[bytes]) -> None:
        if values or deleted:
            self._database.write(values.items(), deleted)


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
