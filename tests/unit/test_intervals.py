import numpy as np
import pytest

from clipper_stream.intervals import confidence_sequence, wilson

PATHS, LENGTH = 400, 2_000
MOST_MISSED = 0.05 + 3 * (0.05 * 0.95 / PATHS) ** 0.5
"""Share of the paths that may leave an interval of 95 % ever, and three standard errors."""


@pytest.mark.parametrize(
    ("interval", "wrong", "count", "ends"),
    [
        (wilson, 0, 10, (0.0, 0.2775)),  # as in textbooks
        (wilson, 5, 100, (0.0215, 0.1118)),
        (wilson, 10, 10, (0.7225, 1.0)),
        (wilson, 0, 0, (0.0, 1.0)),
        (confidence_sequence, 0, 0, (0.0, 1.0)),  # narrows as losses come
        (confidence_sequence, 0, 1, (0.0, 0.9972)),
        (confidence_sequence, 0, 1_000, (0.0, 0.0058)),
        (confidence_sequence, 500, 5_000, (0.0862, 0.1151)),
        (confidence_sequence, 5, 5, (0.3153, 1.0)),
    ],
)
def test_ends_are_those_of_the_formula_and_change_places_with_the_losses(interval, wrong, count, ends):
    lower, upper = interval(wrong, count)
    assert (lower, upper) == pytest.approx(ends, abs=1e-4)
    assert interval(count - wrong, count) == pytest.approx((1 - upper, 1 - lower), abs=1e-9)


def independent(mean):
    """Losses of 0 and 1, and what each is on average; the mean may be one a loss."""
    return lambda random: (random.random((PATHS, LENGTH)) < mean, np.broadcast_to(mean, (PATHS, LENGTH)))


def in_runs(random):
    """Losses that follow each other: what each is on average depends on the one before it."""
    losses, means = np.zeros((PATHS, LENGTH + 1)), np.zeros((PATHS, LENGTH))
    for at in range(LENGTH):
        means[:, at] = np.where(losses[:, at], 0.6, 0.1)
        losses[:, at + 1] = random.random(PATHS) < means[:, at]
    return losses[:, 1:], means


LOSSES = {
    "rare": independent(0.02),
    "often": independent(0.4),
    "between": lambda random: (random.beta(0.5, 1.0, (PATHS, LENGTH)), np.full((PATHS, LENGTH), 1 / 3)),
    "drifting": independent(np.linspace(0.05, 0.9, LENGTH)),
    "in runs": in_runs,
}


def ever_outside(interval, kind):
    """Share of the paths whose mean lies outside of the interval at one of many looks at least."""
    losses, means = LOSSES[kind](np.random.default_rng(1))
    missed = np.zeros(PATHS, bool)
    for count in np.unique(np.geomspace(1, LENGTH, 120).astype(int)):
        ends = [interval(wrong, count) for wrong in losses[:, :count].sum(axis=1).tolist()]
        lower, upper = np.array(ends).T
        mean = means[:, :count].mean(axis=1)
        missed |= (mean < lower - 1e-12) | (mean > upper + 1e-12)
    return missed.mean()


@pytest.mark.parametrize("kind", LOSSES)
def test_a_confidence_sequence_holds_at_all_times_at_once(kind):
    assert ever_outside(confidence_sequence, kind) <= MOST_MISSED


def test_an_interval_for_one_look_does_not_hold_at_all_times():
    assert ever_outside(wilson, "often") > 2 * MOST_MISSED
