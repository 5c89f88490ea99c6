import dataclasses

import numpy as np
from builders.columns import logged
from builders.known_truth import log_of
from hypothesis import given
from hypothesis import strategies as st

from clipper_stream.evaluation.log.columns import DecisionColumns
from clipper_stream.evaluation.log.parquet import FileFacts, writing
from clipper_stream.evaluation.log.time_order import merged, read_in_time_order

FACTS = FileFacts(application="digits", loss_kind="zero_one")


def of_partition(columns, number):
    mine = columns.take(np.arange(len(columns)) % 3 == number)
    return dataclasses.replace(mine, partition=np.full(len(mine), number, np.int32))


def read_back(path, parts, *wanted):
    with writing(path, FACTS) as writer:
        for part in parts:
            writer.write(part)
    return DecisionColumns.concatenated(read_in_time_order(path, *wanted))


def test_a_file_of_partitions_is_read_in_the_order_of_time_however_it_was_cut(tmp_path):
    whole, _ = log_of(900, contexts=3)
    partitions = [of_partition(whole, number) for number in (2, 0, 1)]
    cut = [mine.take(slice(start, start + 71)) for mine in partitions for start in range(0, len(mine), 71)]
    for name, parts in (("cut", cut), ("mixed", [DecisionColumns.concatenated(partitions)])):
        found = read_back(tmp_path / f"{name}.parquet", parts)
        assert found.offset.tolist() == whole.offset.tolist()
        assert np.array_equal(found.of_models(whole.models).loss, whole.loss, equal_nan=True)


def test_only_what_is_wanted_is_read(tmp_path):
    whole, _ = log_of(50)
    found = read_back(tmp_path / "log.parquet", [whole], {"loss"})
    assert np.isnan(found.answer_loss).all()
    assert found.at_ms.tolist() == whole.at_ms.tolist()


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
