"""What the cache asks of its store; its entries are those of `ClockMachine`."""

import pytest
from builders.cache_store import DictStore

from clipper_stream.caching.clock import ENTRY_BYTES, ClockCache
from clipper_stream.errors import InvalidSetting

ENTRY = 2 + ENTRY_BYTES


class CountingStore:
    """A DictStore that remembers how it was called."""

    def __init__(self, entries=()):
        self.inner, self.reads, self.writes = DictStore(entries), [], []

    def get_many(self, keys):
        self.reads.append(list(keys))
        return self.inner.get_many(keys)

    def write(self, puts, deletes):
        self.writes.append((list(puts), list(deletes)))
        self.inner.write(puts, deletes)

    def items(self):
        return self.inner.items()


def cache_of(names: str, most: int, store=None) -> ClockCache:
    """A cache with room for so many entries of two bytes, key and value, that are put one by one."""
    cache = ClockCache(store or DictStore(), most * ENTRY)
    for name in names:
        cache.put_many([(name.encode(), b"v")])
    return cache


def test_a_pair_larger_than_the_budget_is_not_kept_and_takes_its_old_value_along():
    cache = cache_of("ab", most=2, store=(store := CountingStore()))
    cache.put_many([(b"a", bytes(2 * ENTRY))])
    assert (cache.get_many([b"a", b"b"]), cache.size_bytes, store.items()) == ([None, b"v"], ENTRY, [(b"b", b"v")])


def test_a_lookup_reads_the_store_once_and_only_for_what_it_holds():
    store = CountingStore()
    cache = cache_of("ab", most=5, store=store)
    assert cache.get_many([b"a", b"x", b"b", b"a"]) == [b"v", None, b"v", b"v"]
    assert cache.get_many([b"x", b"y"]) == [None, None]
    assert len(store.reads) == 1
    assert b"x" not in store.reads[0]


def test_a_put_writes_entries_and_evictions_together_and_no_key_in_both():
    store = CountingStore()
    cache = cache_of("ab", most=2, store=store)
    store.writes.clear()
    cache.put_many([(b"c", b"v"), (b"d", b"v"), (b"e", b"v")])
    ((puts, deletes),) = store.writes
    assert puts == [(b"d", b"v"), (b"e", b"v")]
    assert deletes[:2] == [b"a", b"b"]
    assert not {key for key, _ in puts} & set(deletes)


def test_nothing_to_put_writes_nothing():
    cache_of("", most=2, store=(store := CountingStore())).put_many([])
    assert store.writes == []


def test_a_restart_under_a_smaller_budget_deletes_the_rest_in_one_write():
    store = CountingStore([(b"a", b"v"), (b"b", b"v"), (b"c", b"v")])
    cache = ClockCache(store, ENTRY + ENTRY // 2)
    assert store.writes == [([], [b"a", b"b"])]
    assert (cache.size_bytes, len(cache)) == (ENTRY, 1)


def test_a_negative_budget_is_refused():
    with pytest.raises(InvalidSetting, match="-1"):
        ClockCache(DictStore(), -1)
