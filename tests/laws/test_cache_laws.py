"""The laws that every prediction cache obeys, whatever it evicts."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper_stream.caching.clock import ClockCache, DictStore
from clipper_stream.errors import InvalidSetting

CACHES = {"clock": ClockCache}
no_deadline = settings(deadline=None)  # the machine may be busy; nothing here measures time
caches = pytest.mark.parametrize("make", CACHES.values(), ids=CACHES.keys())

keys = st.binary(min_size=1, max_size=3)
calls = st.lists(st.lists(keys, max_size=6) | st.lists(st.tuples(keys, st.binary(max_size=8)), max_size=6), max_size=40)
budgets = st.integers(min_value=0, max_value=80)


def live(cache, history):
    """Gets for lists of keys, puts for lists of pairs; yields after each what the calls so far said is true."""
    truth = {}
    for call in history:
        if call and isinstance(call[0], tuple):
            cache.put_many(call)
            truth.update(call)
        else:
            cache.get_many(call)
        yield truth


@caches
@no_deadline
@given(history=calls, budget_bytes=budgets)
def test_the_store_never_holds_more_than_the_budget(make, history, budget_bytes):
    store = DictStore()
    cache = make(store, budget_bytes, entry_bytes=2)
    for _ in live(cache, history):
        held = sum(len(key) + len(value) + 2 for key, value in store.items())
        assert held == cache.size_bytes <= budget_bytes


@caches
@no_deadline
@given(history=calls, budget_bytes=budgets)
def test_an_answer_is_the_value_put_last_or_none(make, history, budget_bytes):
    cache = make(DictStore(), budget_bytes, entry_bytes=2)
    for truth in live(cache, history):
        asked = [*truth, b"never put"]
        for key, value in zip(asked, cache.get_many(asked), strict=True):
            assert value is None or value == truth[key]


@caches
@no_deadline
@given(history=calls)
def test_nothing_is_forgotten_below_the_budget(make, history):
    cache = make(DictStore(), 10**6)
    for truth in live(cache, history):
        assert cache.get_many(list(truth)) == list(truth.values())


@caches
@no_deadline
@given(history=calls, budget_bytes=budgets)
def test_the_same_calls_leave_the_same_entries(make, history, budget_bytes):
    first, second = DictStore(), DictStore()
    for store in (first, second):
        list(live(make(store, budget_bytes, entry_bytes=2), history))
    assert first.items() == second.items()


@caches
@no_deadline
@given(history=calls, budget_bytes=budgets)
def test_a_restart_loses_nothing(make, history, budget_bytes):
    store = DictStore()
    cache = make(store, budget_bytes, entry_bytes=2)
    list(live(cache, history))
    again = make(store, budget_bytes, entry_bytes=2)
    asked = [key for key, _ in store.items()]
    assert (again.size_bytes, len(again)) == (cache.size_bytes, len(cache))
    assert again.get_many(asked) == cache.get_many(asked)


@caches
def test_what_is_asked_for_often_stays(make):
    rng = random.Random(0)
    cache = make(DictStore(), budget_bytes=100 * 10, entry_bytes=0)
    hot = [b"hot%05d" % number for number in range(20)]
    hits = asked = 0
    for number in range(2000):
        wanted = rng.sample(hot, 5)
        found = cache.get_many(wanted)
        missed = [key for key, value in zip(wanted, found, strict=True) if value is None]
        cache.put_many([(key, b"vv") for key in [*missed, b"cold%04d" % number]])
        hits, asked = hits + 5 - len(missed), asked + 5
    assert hits >= asked - 2 * len(hot)  # first time each, and at most once more


@caches
def test_a_negative_budget_is_refused(make):
    with pytest.raises(InvalidSetting):
        make(DictStore(), -1)
