"""Caches on disk, one a partition: rebuilt after a restart, closed with their partition."""

import damage
import pytest

from clipper_agents.router.pipeline import PartitionCache, partition_caches
from clipper_stream.query.batch import OPEN

KEYS = [b"k" * 24, b"l" * 24]


@pytest.fixture
def caches(tmp_path):
    made = partition_caches(tmp_path, budget_bytes=100_000)
    yield made
    made.keep_only([])


def test_outputs_are_kept_over_a_restart_and_only_caches_of_lost_partitions_are_closed(tmp_path, caches):
    caches[0].put_many([(KEYS[0], 1), (KEYS[1], ["two"])])
    kept = caches[1]
    assert (kept.entries.hits(KEYS), kept.get_many(KEYS)) == ([], [OPEN, OPEN])
    size_bytes = caches[0].entries.size_bytes
    caches.keep_only([1])
    assert caches[1] is kept
    caches.keep_only([])
    again = partition_caches(tmp_path, budget_bytes=100_000)
    assert again[0].entries.hits([*KEYS, b"unknown"]) == KEYS
    assert again[0].get_many([*KEYS, b"unknown"]) == [1, ["two"], OPEN]
    assert again[0].entries.size_bytes == size_bytes > 0
    again.keep_only([])


def test_the_database_has_the_outputs_of_the_entries_and_no_others(tmp_path):
    cache = PartitionCache(tmp_path / "cache", budget_bytes=250)  # room for one
    for number in range(3):
        cache.put_many([(b"%d" % number, number)])
    assert cache.get_many([b"0", b"1", b"2"]) == [OPEN, OPEN, 2]
    cache.close()
    smaller = PartitionCache(tmp_path / "cache", budget_bytes=0)
    assert (len(smaller.entries), smaller.get_many([b"2"])) == (0, [OPEN])
    smaller.put_many([(b"3", 3)])
    assert smaller.get_many([b"3"]) == [OPEN]
    smaller.close()


def test_a_corrupt_cache_is_empty_again(tmp_path, caches):
    caches[0].put_many([(KEYS[1], 2)])
    caches.keep_only([])
    damage.cut(tmp_path / "0" / "CURRENT", 0)
    assert caches[0].get_many(KEYS) == [OPEN, OPEN]
    caches[0].put_many([(KEYS[0], 1)])
    assert caches[0].get_many(KEYS) == [1, OPEN]
