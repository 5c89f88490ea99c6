import pytest

from clipper_stream.intervals import wilson


@pytest.mark.parametrize(
    ("wrong", "count", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 100, 0.0215, 0.1118), (10, 10, 0.7225, 1.0), (0, 0, 0.0, 1.0)],
)
def test_wilson_gives_the_textbook_interval(wrong, count, low, high):
    assert wilson(wrong, count) == pytest.approx((low, high), abs=1e-4)
