"""Caches on disk, one a partition: rebuilt after a restart, closed with their partition."""

import damage
import pytest

from clipper_agents.router.app import PartitionCaches

KEYS = [b"k" * 24, b"l" * 24]


@pytest.fixture
def caches(tmp_path):
    made = PartitionCaches(tmp_path, budget_bytes=100_000)
    yield made
    made.keep_only([])


def test_entries_are_kept_over_a_restart_and_only_caches_of_lost_partitions_are_closed(tmp_path, caches):
    caches.of(0).put_many([(KEYS[0], b"1"), (KEYS[1], b"2")])
    kept = caches.of(1)
    assert kept.get_many(KEYS) == [None, None]
    size_bytes = caches.size_bytes
    caches.keep_only([1])
    assert caches.of(1) is kept
    caches.keep_only([])
    again = PartitionCaches(tmp_path, budget_bytes=100_000)
    assert again.of(0).get_many([*KEYS, b"unknown"]) == [b"1", b"2", None]
    assert again.size_bytes == size_bytes > 0
    again.keep_only([])


def test_a_corrupt_cache_is_empty_again(tmp_path, caches):
    caches.of(0).put_many([(KEYS[1], b"2")])
    caches.keep_only([])
    damage.cut(tmp_path / "0" / "CURRENT", 0)
    assert caches.of(0).get_many(KEYS) == [None, None]
    caches.of(0).put_many([(KEYS[0], b"1")])
    assert caches.of(0).get_many(KEYS) == [b"1", None]
