"""Section 4.3.1 of Clipper, case by case."""

import pytest

from clipper_stream.batching.aimd import Aimd
from clipper_stream.errors import InvalidSetting

FAST_S, DEAD_BAND_S, LATE_S = 0.0179, 0.0181, 0.020


def aimd(start_rows: int = 100) -> Aimd:
    return Aimd(target_s=0.02, max_rows=1000, start_rows=start_rows)


@pytest.mark.parametrize(
    ("latency_s", "expected"), [(FAST_S, 102), (DEAD_BAND_S, 100), (LATE_S, 90), (1.0, 90)], ids=str
)
def test_a_full_batch_moves_the_limit_by_its_latency(latency_s, expected):
    limit = aimd()
    limit.observe(100, latency_s)
    assert limit.rows == expected


def test_the_limit_starts_at_one_row():
    assert Aimd(target_s=0.02, max_rows=10).rows == 1


def test_back_off_ends_at_one_row():
    limit = aimd(start_rows=2)
    for _ in range(5):
        limit.observe(limit.rows, LATE_S)
    assert limit.rows == 1


def test_growth_ends_at_max_rows():
    limit = aimd(start_rows=999)
    limit.observe(999, FAST_S)
    assert limit.rows == 1000


def test_ten_thousand_fast_single_rows_leave_the_limit_where_it_is():
    limit = aimd()
    for _ in range(10_000):
        limit.observe(1, FAST_S)
    assert limit.rows == 100


def test_one_pause_on_a_single_row_does_not_lower_the_limit():
    limit = aimd()
    for latency_s in (FAST_S, 0.5, FAST_S, 0.5, FAST_S):
        limit.observe(1, latency_s)
    assert limit.rows == 100


def test_late_thin_batches_in_a_row_take_ten_percent_each():
    limit = aimd()
    for _ in range(3):
        limit.observe(50, LATE_S)
    assert limit.rows == 81


def test_a_batch_sent_under_an_older_larger_limit_does_not_raise_a_lowered_one_when_late():
    limit = aimd(start_rows=10)
    limit.observe(100, LATE_S)
    assert limit.rows == 10


@pytest.mark.parametrize("arguments", [dict(start_rows=0), dict(start_rows=1001), dict(start_rows=-3)], ids=str)
def test_a_start_outside_its_bound_is_refused_with_the_value(arguments):
    with pytest.raises(InvalidSetting, match=str(arguments["start_rows"])):
        aimd(**arguments)
