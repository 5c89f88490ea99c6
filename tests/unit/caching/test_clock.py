import pytest

from clipper_stream.caching.clock import ClockCache, DictStore
from clipper_stream.errors import InvalidSetting


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


def cache_of(names: str, budget_bytes: int, store=None) -> ClockCache:
    """Entries of two bytes each, key and value, put one by one."""
    cache = ClockCache(store or DictStore(), budget_bytes, entry_bytes=0)
    for name in names:
        cache.put_many([(name.encode(), b"v")])
    return cache


def held(cache: ClockCache, names: str) -> str:
    found = cache.get_many([name.encode() for name in names])
    return "".join(name for name, value in zip(names, found, strict=True) if value is not None)


def test_without_uses_the_oldest_entry_goes_first():
    assert held(cache_of("abcd", budget_bytes=6), "abcd") == "bcd"


def test_an_entry_that_was_used_gets_a_second_chance_and_no_third():
    cache = cache_of("abc", budget_bytes=6)
    cache.get_many([b"a"])
    cache.put_many([(b"d", b"v")])  # the hand passes a, clears its mark, evicts b
    cache.put_many([(b"e", b"v")])  # evicts c; a stands before d now
    cache.put_many([(b"f", b"v")])
    assert held(cache, "abcdef") == "def"


def test_when_every_entry_was_used_the_hand_turns_once_and_the_new_entry_stays():
    cache = cache_of("ab", budget_bytes=4)
    cache.get_many([b"a", b"b"])
    cache.put_many([(b"c", b"v")])
    assert held(cache, "abc") == "bc"


def test_keys_values_and_bookkeeping_count():
    cache = ClockCache(DictStore(), budget_bytes=1000, entry_bytes=100)
    cache.put_many([(b"key", b"value")])
    assert cache.size_bytes == 108


def test_a_changed_value_is_counted_once():
    cache = cache_of("a", budget_bytes=10)
    cache.put_many([(b"a", b"1234")])
    assert (cache.size_bytes, len(cache)) == (5, 1)


def test_of_two_values_with_one_key_the_later_counts():
    cache = cache_of("", budget_bytes=10)
    cache.put_many([(b"a", b"1"), (b"a", b"2")])
    assert cache.get_many([b"a"]) == [b"2"]


def test_a_pair_larger_than_the_budget_is_not_kept_and_takes_its_old_value_along():
    store = CountingStore()
    cache = cache_of("ab", budget_bytes=4, store=store)
    cache.put_many([(b"a", b"12345")])
    assert (held(cache, "ab"), cache.size_bytes, store.items()) == ("b", 2, [(b"b", b"v")])


def test_a_budget_of_zero_keeps_nothing():
    assert held(cache_of("ab", budget_bytes=0), "ab") == ""


def test_a_lookup_reads_the_store_once_and_only_for_what_it_holds():
    store = CountingStore()
    cache = cache_of("ab", budget_bytes=10, store=store)
    assert cache.get_many([b"a", b"x", b"b", b"a"]) == [b"v", None, b"v", b"v"]
    assert cache.get_many([b"x", b"y"]) == [None, None]
    assert len(store.reads) == 1
    assert b"x" not in store.reads[0]


def test_a_put_writes_entries_and_evictions_together_and_no_key_in_both():
    store = CountingStore()
    cache = cache_of("ab", budget_bytes=4, store=store)
    store.writes.clear()
    cache.put_many([(b"c", b"v"), (b"d", b"v"), (b"e", b"v")])
    ((puts, deletes),) = store.writes
    assert puts == [(b"d", b"v"), (b"e", b"v")]
    assert deletes[:2] == [b"a", b"b"]
    assert not {key for key, _ in puts} & set(deletes)


def test_nothing_to_put_writes_nothing():
    store = CountingStore()
    cache_of("", budget_bytes=4, store=store).put_many([])
    assert store.writes == []


def test_a_restart_finds_what_the_store_holds():
    store = DictStore()
    cache_of("ab", budget_bytes=10, store=store)
    again = ClockCache(store, budget_bytes=10, entry_bytes=0)
    assert (held(again, "ab"), again.size_bytes) == ("ab", 4)


def test_a_restart_under_a_smaller_budget_deletes_the_rest_in_one_write():
    store = CountingStore([(b"a", b"v"), (b"b", b"v"), (b"c", b"v")])
    cache = ClockCache(store, budget_bytes=3, entry_bytes=0)
    assert store.writes == [([], [b"a", b"b"])]
    assert (cache.size_bytes, len(cache)) == (2, 1)


@pytest.mark.parametrize("arguments", [dict(budget_bytes=-1), dict(budget_bytes=1, entry_bytes=-1)], ids=str)
def test_negative_sizes_are_refused(arguments):
    with pytest.raises(InvalidSetting, match="-1"):
        ClockCache(DictStore(), **arguments)


def test_a_restart_under_a_budget_below_one_entry_deletes_it():
    store = DictStore([(b"large", b"value"), (b"a", b"v")])
    ClockCache(store, budget_bytes=3, entry_bytes=0)
    assert store.items() == [(b"a", b"v")]
