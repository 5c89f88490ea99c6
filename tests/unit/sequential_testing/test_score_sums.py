"""What the capitals of bets say, by an implementation of another form."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clipper_stream.sequential_testing.score_sums import BETS, Score, ScoreSums

ALPHA = 0.025


@st.composite
def scores(draw):
    low = draw(st.floats(-1.0, 1.0))
    high = draw(st.floats(low, 1.0))
    return Score(draw(st.floats(0.0, 1.0)), low, high, draw(st.booleans()))


def capital_of(some, margin):
    sums = ScoreSums(margin)
    for one in some:
        sums.add(0, one._replace(waiting=False))
    return sums.capital()


def capital_by_products(some, margin, side):
    """The mean over bets of the product of the factors; `side` is 1 for a mean below the margin, and -1 above it."""
    ends = [one.high if side == 1 else one.low for one in some]
    factors = [
        [1.0 + bet / (1.0 + margin) * side * (one.weight * margin - end) for one, end in zip(some, ends, strict=True)]
        for bet in BETS
    ]
    return sum(math.prod(row) for row in factors) / len(BETS)


@settings(max_examples=60)
@given(some=st.lists(scores(), max_size=40), margin=st.floats(0.0, 1.0))
def test_the_capital_is_the_mean_over_bets_of_the_products(some, margin):
    found = capital_of(some, margin)
    assert math.exp(found.below) == pytest.approx(capital_by_products(some, margin, 1))
    assert math.exp(found.above) == pytest.approx(capital_by_products(some, margin, -1))


@settings(max_examples=60)
@given(some=st.lists(st.tuples(st.integers(0, 5), scores(), scores()), max_size=30), settled=st.integers(0, 6))
def test_what_becomes_known_later_takes_the_place_of_what_stood_for_it(some, settled):
    """Whatever was put together in between."""
    late, at_once = ScoreSums(0.02), ScoreSums(0.02)
    for second, before, _ in some:
        late.add(second, before)
    late.settle(settled)
    for second, before, now in some:
        known = now._replace(waiting=False)
        late.change(second, before, known)
        at_once.add(second, known)
    one, other = late.capital(), at_once.capital()
    assert (one.scores, one.waiting) == (other.scores, 0) == (len(some), 0)
    assert (one.below, one.above) == pytest.approx((other.below, other.above))


def test_the_newest_seconds_are_left_out_while_much_of_them_is_waited_for():
    sums = ScoreSums(0.02)
    known, unknown = Score(1.0, -0.5, -0.5), Score(1.0, -1.0, 1.0, waiting=True)
    for second in range(10):
        for number in range(20):
            sums.add(second, unknown if second >= 8 or number == 0 else known)
    found = sums.capital()
    assert (found.upto, found.scores, found.waiting, found.left_out) == (8, 160, 8, 40)
    assert sums.capital(before=5).upto == 5
    for second in range(10):
        for _ in range(1 if second < 8 else 19):
            sums.change(second, unknown, known)
    assert sums.capital().upto == 10


@settings(max_examples=60)
@given(some=st.lists(scores(), min_size=1, max_size=60), margin=st.sampled_from([0.0, 0.02, 0.5]))
def test_an_interval_never_crosses_and_says_what_the_capitals_say(some, margin):
    found = capital_of(some, margin)
    assert -1.0 <= found.lower(ALPHA) <= found.upper(ALPHA) <= 1.0
    goal = -math.log(ALPHA)
    for capital, said in ((found.below, found.upper(ALPHA) < margin), (found.above, found.lower(ALPHA) > margin)):
        assert said == (capital >= goal) or abs(capital - goal) <= 1e-9


def test_an_interval_becomes_narrow_around_the_mean_and_wider_with_what_is_unknown():
    rng = np.random.default_rng(3)
    known, part = ScoreSums(0.02), ScoreSums(0.02)
    for number in range(4_000):
        value = float(rng.choice([-1.0, 0.0, 1.0], p=[0.2, 0.7, 0.1]))
        known.add(number, Score(1.0, value, value))
        part.add(number, Score(1.0, -1.0, 1.0) if number % 20 == 0 else Score(1.0, value, value))
    narrow, wide = known.capital(), part.capital()
    assert narrow.lower(ALPHA) < narrow.mean < narrow.upper(ALPHA) < narrow.lower(ALPHA) + 0.1
    assert narrow.unknown == 0.0
    assert wide.unknown == pytest.approx(0.05)
    assert wide.upper(ALPHA) - wide.lower(ALPHA) > 2 * wide.unknown
    assert narrow.standard_error == pytest.approx(math.sqrt(0.3 / 4_000), rel=0.1)


def test_before_the_first_score_nothing_is_known():
    found = ScoreSums(0.02).capital()
    assert (found.mean, found.scores, found.lower(ALPHA), found.upper(ALPHA)) == (None, 0, -1.0, 1.0)
    assert (found.below, found.above) == pytest.approx((0.0, 0.0))
    assert (found.unknown, found.standard_error) == (0.0, math.inf)


@given(st.lists(scores(), min_size=1, max_size=20), st.randoms())
def test_a_sum_from_which_all_was_taken_away_has_a_standard_error(some, order):
    sums = ScoreSums(0.02)
    for one in some:
        sums.change(0, None, one)
    order.shuffle(some)
    for one in some:
        sums.change(0, one, Score(one.weight, 0.0, 0.0))
    found = sums.capital()
    assert found.standard_error >= 0.0
    assert found.mean is None or abs(found.mean * found.totals[0]) < 1e-9
