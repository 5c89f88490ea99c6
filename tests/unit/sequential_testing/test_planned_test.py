"""Boundaries of a test with ten looks, and what a plan says beforehand."""

from math import ceil, sqrt

import numpy as np
import pytest

from clipper_stream.sequential_testing.planned_test import TrialPlan, boundaries, outlook, spent

TENTHS = tuple(part / 10 for part in range(1, 11))


FIFTHS = (0.2, 0.4, 0.6, 0.8, 1.0)


@pytest.mark.parametrize(
    ("alpha", "fractions", "expected"),
    [
        (0.025, FIFTHS, (4.8769, 3.3569, 2.6803, 2.2898, 2.0310)),
        (0.05, FIFTHS, (4.2292, 2.8881, 2.2981, 1.9618, 1.7397)),
        (0.05, (0.3, 0.45, 0.6, 0.9, 1.0), (3.3930, 2.7098, 2.3152, 1.8096, 1.7724)),
    ],
    ids=["printed, 0.025", "printed, 0.05", "seqabpy 0.3.1"],
)
def test_boundaries_are_those_that_others_print_or_compute(alpha, fractions, expected):
    """DeMets and Lan, "Interim analysis: the alpha spending function approach", Statistics in Medicine 13, 1994."""
    found = boundaries(alpha, fractions, tuple(40.0 * fraction for fraction in fractions))
    assert [one / sqrt(40.0 * fraction) for one, fraction in zip(found, fractions, strict=True)] == pytest.approx(
        expected, abs=2e-4
    )


def reached(steps, bounds):
    """The probability that a walk of -1 and 1 reaches a bound after so many steps: exact, by its distribution."""
    chances, crossed, done = np.array([1.0]), [], 0
    for step, bound in zip(steps, bounds, strict=True):
        for _ in range(step - done):
            chances = np.convolve(chances, (0.5, 0.0, 0.5))
        done = step
        over = np.arange(-step, step + 1) >= bound
        crossed.append(chances[over].sum())
        chances = np.where(over, 0.0, chances)
    return np.array(crossed)


@pytest.mark.parametrize("alpha", [0.0475, 0.012])
@pytest.mark.parametrize(
    "shares",
    [
        TENTHS,
        (0.01, 0.02, 0.05, 0.2, 0.3, 0.31, 0.35, 0.6, 0.95, 1.0),
        tuple(sqrt(part) for part in TENTHS),
        (0.3, 1.0),
    ],
    ids=["even", "uneven", "less and less", "two looks"],
)
def test_a_random_walk_reaches_a_boundary_as_often_as_may_be_spent(alpha, shares):
    """Whatever the variance was between looks, which are spent by their number."""
    steps = [ceil(4_000 * share) for share in shares]
    fractions = TENTHS[-len(shares) :]
    found = reached(steps, boundaries(alpha, fractions, tuple(map(float, steps))))
    may = np.array([spent(alpha, fraction) for fraction in fractions])
    assert (np.cumsum(found) <= may + 0.1 * alpha).all()
    assert found.sum() == pytest.approx(alpha, rel=0.12), "the walk is on a lattice: it passes what lies in between"


def test_looks_without_news_are_never_reached_too_often():
    steps = (1_000, 1_010, 1_020, 1_030, 4_000)
    bounds = boundaries(0.05, (0.5, 0.6, 0.7, 0.8, 1.0), tuple(map(float, steps)))
    assert reached(steps, bounds).sum() <= 0.05
    assert boundaries(0.05, (0.01, 0.02, 1.0), (1.0, 1.0, 2.0))[0] == pytest.approx(10.0), "nothing may be spent yet"


def test_a_plan_is_over_after_its_feedbacks_or_its_days_whichever_comes_first():
    plan = TrialPlan(feedbacks=1_000, days=2)
    assert [plan.fraction(*passed) for passed in ((500, 0.0), (0, 86_400.0), (900, 86_400.0), (9_000, 1e9))] == [
        *(0.5, 0.5, 0.9, 1.0)
    ]


@pytest.mark.parametrize(
    ("plan", "traffic", "says"),
    [
        (TrialPlan(feedbacks=20_000), (2.0, 0.21 / 0.09, 0.1), "more than the plan has, enough with a share of 31."),
        (TrialPlan(feedbacks=9_000), (2.0, 0.21 / 0.09, 0.1), "more than the plan has, whatever the share"),
        (TrialPlan(feedbacks=60_000), (2.0, 0.21 / 0.09, 0.1), "needs 48,075 feedbacks, 6.7 hours"),
        (TrialPlan(days=7), (0.002, 0.13), "ends within 7 days; power 0.8 for a difference of 0.02 needs 2,679"),
        (TrialPlan(days=7), (0.0, 0.13), "no feedback comes now"),
    ],
)
def test_a_plan_says_how_long_it_takes_and_which_share_is_needed(plan, traffic, says):
    assert says in outlook(plan, 0.025, 0.02, *traffic)


def test_the_share_that_a_plan_names_is_enough():
    plan = TrialPlan(feedbacks=20_000)
    named = float(outlook(plan, 0.025, 0.02, 1.0, 0.21 / 0.09, 0.1).rpartition(" ")[2].rstrip("%")) / 100
    assert "more than" not in outlook(plan, 0.025, 0.02, 1.0, 0.21 / (1.001 * named * (1 - named)), named)
