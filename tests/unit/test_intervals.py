import pytest

from clipper_stream.intervals import wilson


@pytest.mark.parametrize(
    ("wrong", "count", "ends"),
    [
        (0, 10, (0.0, 0.2775)),  # as in textbooks
        (5, 100, (0.0215, 0.1118)),
        (10, 10, (0.7225, 1.0)),
        (0, 0, (0.0, 1.0)),
    ],
)
def test_ends_are_those_of_the_formula_and_change_places_with_the_losses(wrong, count, ends):
    lower, upper = wilson(wrong, count)
    assert (lower, upper) == pytest.approx(ends, abs=1e-4)
    assert wilson(count - wrong, count) == pytest.approx((1 - upper, 1 - lower), abs=1e-9)
