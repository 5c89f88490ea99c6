"""The laws that every registered batch limit obeys."""

import math
import pickle
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.batching.limits import LIMITS, Fixed, make_limit
from clipper_stream.errors import InvalidSetting, UnknownName

TARGET_S = 0.02
kinds = pytest.mark.parametrize("kind", sorted(LIMITS))
latencies_s = st.floats(min_value=0.0, max_value=0.1) | st.sampled_from([0.0, 0.018, TARGET_S, 1e6])
shares = st.floats(min_value=0.0, max_value=1.0) | st.just(1.0)
histories = st.lists(st.tuples(shares, latencies_s), max_size=120)
max_rows = st.integers(min_value=1, max_value=3000)


def rows_of(limit, share):
    """A batch of this share of the limit in force."""
    return max(1, round(share * limit.rows))


def live(limit, history):
    for share, latency_s in history:
        limit.observe(rows_of(limit, share), latency_s)
    return limit


@kinds
@given(history=histories, max_rows=max_rows)
def test_the_limit_is_always_between_one_row_and_max_rows(kind, history, max_rows):
    limit = make_limit(kind, TARGET_S, max_rows)
    for share, latency_s in history:
        assert 1 <= limit.rows <= max_rows
        limit.observe(rows_of(limit, share), latency_s)
    assert 1 <= limit.rows <= max_rows


@kinds
@given(history=histories, share=shares, over_s=st.floats(min_value=0.0, max_value=10.0))
def test_a_batch_over_target_never_raises_the_limit(kind, history, share, over_s):
    limit = live(make_limit(kind, TARGET_S, 1000), history)
    before = limit.rows
    in_force_s = getattr(limit, "target_s", TARGET_S)  # aimd's is longer while one row alone misses the target
    limit.observe(rows_of(limit, share), in_force_s + over_s)
    assert limit.rows <= before


@kinds
@given(history=histories, share=st.floats(min_value=0.0, max_value=0.99), latency_s=st.floats(0.0, 0.0199))
def test_a_fast_batch_of_fewer_rows_than_the_limit_never_changes_it(kind, history, share, latency_s):
    limit = live(make_limit(kind, TARGET_S, 1000), history)
    before = limit.rows
    thin = min(rows_of(limit, share), before - 1)
    if thin >= 1:
        limit.observe(thin, latency_s)
    assert limit.rows == before


@kinds
@given(history=histories, later=histories)
def test_a_limit_goes_on_after_pickling_as_one_with_the_same_batches(kind, history, later):
    copy = pickle.loads(pickle.dumps(live(make_limit(kind, TARGET_S, 1000), history)))
    assert live(copy, later).rows == live(make_limit(kind, TARGET_S, 1000), history + later).rows


@kinds
def test_memory_does_not_grow_with_the_stream(kind):
    rng = random.Random(0)
    limit = make_limit(kind, TARGET_S, 1000)
    history = [(rng.random(), rng.uniform(0.0, 0.03)) for _ in range(10_000)]
    live(limit, history[:1000])
    before = len(pickle.dumps(limit))
    live(limit, history)
    assert len(pickle.dumps(limit)) <= before + 32  # numbers of more digits, nothing else


@kinds
@pytest.mark.parametrize(
    ("target_s", "max_rows"),
    [(0.0, 10), (-0.02, 10), (math.nan, 10), (math.inf, 10), (0.02, 0), (0.02, -1)],
)
def test_settings_out_of_bounds_are_refused(kind, target_s, max_rows):
    with pytest.raises(InvalidSetting):
        make_limit(kind, target_s, max_rows)


def test_every_kind_of_the_manifest_exists_and_no_other():
    with pytest.raises(UnknownName, match=r"'tcp'.*aimd, fixed$"):
        make_limit("tcp", TARGET_S, 10)
    assert make_limit("fixed", TARGET_S, 32).rows == 32
    with pytest.raises(InvalidSetting, match="rows is 0"):
        Fixed(0)
