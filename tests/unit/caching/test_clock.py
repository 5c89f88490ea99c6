"""Which values are written and deleted; which entries stay is what `ClockMachine` compares."""

import pytest
from builders.cache_store import DictCache

from clipper_stream.caching.clock import ClockCache
from clipper_stream.errors import InvalidSetting


def cache_of(names: str, budget_bytes: int) -> DictCache:
    """Entries of two bytes each, key and value, put one by one."""
    cache = DictCache(budget_bytes, entry_bytes=0)
    for name in names:
        cache.put({name.encode(): b"v"})
    return cache


def test_a_value_larger_than_the_budget_is_not_kept_and_takes_its_old_value_along():
    cache = cache_of("ab", budget_bytes=4)
    cache.put({b"a": b"12345"})
    assert (cache.get([b"a", b"b"]), cache.entries.size_bytes, cache.values) == ([None, b"v"], 2, {b"b": b"v"})


def test_hits_are_the_keys_that_have_an_entry_in_their_order():
    cache = cache_of("ab", budget_bytes=10).entries
    assert (cache.hits([b"b", b"x", b"a", b"b"]), cache.hits([b"x"])) == ([b"b", b"a", b"b"], [])


def test_entries_that_make_room_for_others_of_the_same_call_are_not_written():
    cache = cache_of("ab", budget_bytes=4)
    cache.put({b"c": b"v", b"d": b"v", b"e": b"v"})
    assert (cache.deleted, [*cache.values]) == ([b"a", b"b", b"c"], [b"d", b"e"])


def test_a_restart_under_a_smaller_budget_deletes_the_rest():
    cache = ClockCache(budget_bytes=3, entry_bytes=0)
    assert cache.put({b"a": 1, b"b": 1, b"c": 1, b"large": 9}) == ([b"c"], [b"a", b"b", b"large"])
    assert (cache.size_bytes, len(cache)) == (2, 1)


@pytest.mark.parametrize("arguments", [dict(budget_bytes=-1), dict(budget_bytes=1, entry_bytes=-1)], ids=str)
def test_negative_sizes_are_refused(arguments):
    with pytest.raises(InvalidSetting, match="-1"):
        ClockCache(**arguments)
