"""The prediction cache's entries, a database a partition, not logged: after a crash some are missing, none is wrong."""

from collections.abc import Iterable
from pathlib import Path

import msgspec

from clipper_agents.streaming.databases import Database, open_anew
from clipper_stream.caching.clock import ClockCache


class MsgpackOutputs:
    """Encodes outputs in the cache as msgpack."""

    dumps = staticmethod(msgspec.msgpack.Encoder().encode)
    loads = staticmethod(msgspec.msgpack.Decoder().decode)


class PartitionCaches:
    """The caches of the partitions that this process owns."""

    def __init__(self, folder: Path, budget_bytes: int) -> None:
        self._folder, self._budget_bytes = folder, budget_bytes
        self._open: dict[int, tuple[Database, ClockCache]] = {}

    def of(self, partition: int) -> ClockCache:
        """Return the partition's cache; the first call opens it."""
        found = self._open.get(partition)
        if found is None:
            store = open_anew(self._folder / str(partition), logged=False)
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
