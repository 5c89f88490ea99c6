import numpy as np
from builders.known_truth import log_of
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.evaluation.log.arrays import logged
from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.time_order import merged


@given(
    times=st.lists(st.lists(st.integers(0, 30), max_size=12).map(sorted), min_size=1, max_size=4),
    size=st.integers(1, 5),
)
def test_any_partitions_become_one_log_in_the_order_of_time(times, size):
    parts = []
    for partition, mine in enumerate(times):
        n = len(mine)
        whole = logged(np.ones((n, 1)), np.zeros((n, 1)), at_ms=mine, partition=[partition] * n)
        parts.append([whole.take(slice(start, start + size)) for start in range(0, n, size)])
    together = DecisionColumns.concatenated(merged(parts))
    expected = sorted((ms, partition, place) for partition, mine in enumerate(times) for place, ms in enumerate(mine))
    found = list(zip(together.at_ms, together.partition, together.offset, strict=True)) if len(together) else []
    assert found == expected


def test_a_clock_that_went_back_does_not_change_the_order_of_a_partition():
    one = logged([[1.0]] * 3, [[0.0]] * 3, at_ms=[5, 2, 9])
    other = logged([[1.0]] * 2, [[0.0]] * 2, at_ms=[4, 6], partition=[1, 1])
    together = DecisionColumns.concatenated(merged([[one], [other]]))
    assert list(zip(together.partition, together.offset, strict=True)) == [(1, 0), (0, 0), (0, 1), (1, 1), (0, 2)]


def test_chunks_of_other_models_and_contexts_are_merged():
    first, _ = log_of(100, contexts=2)
    second, _ = log_of(100, shares=(0.5, 0.5), means=(0.1, 0.2), seed=3)
    assert len(DecisionColumns.concatenated(merged([[first], [second]]))) == 200
