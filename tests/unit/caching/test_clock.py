"""Which values are written and deleted; which entries stay is what `ClockMachine` compares."""

from builders.cache_store import DictCache


def cache_of(names: str, budget_bytes: int) -> DictCache:
    """Entries of two bytes each, key and value, put one by one."""
    cache = DictCache(budget_bytes, entry_bytes=0)
    for name in names:
        cache.put({name.encode(): b"v"})
    return cache


def test_hits_are_the_keys_that_have_an_entry_in_their_order():
    cache = cache_of("ab", budget_bytes=10).entries
    assert (cache.hits([b"b", b"x", b"a", b"b"]), cache.hits([b"x"])) == ([b"b", b"a", b"b"], [])
