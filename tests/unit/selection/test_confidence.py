"""Is the loss that is expected before labels near the one that they show, and refused where it is not?"""

from functools import reduce

import numpy as np
import pytest

from clipper_stream.selection.confidence import BINS, calibrated, confidence_bin, expected_loss
from clipper_stream.selection.state import ModelTotals


def answers(count, seed, shift=0.0, wrong=lambda confidence: 1.0 - confidence):
    """Confidences, which a shift lowers, and losses: each is wrong as often as `wrong` says."""
    rng = np.random.default_rng(seed)
    confidences = np.clip(rng.beta(6.0, 1.0, count) - shift * rng.random(count), 0.0, 1.0)
    return confidences, (rng.random(count) < wrong(confidences)).astype(float)


def learned(confidences, losses, before=()):
    return reduce(lambda sums, one: calibrated(sums, *one), zip(confidences, losses, strict=True), before)


def expected(sums, confidences):
    return expected_loss(sums, np.bincount([*map(confidence_bin, confidences)], minlength=BINS).tolist())


MISLEADING = {
    "calibrated": lambda confidence: 1.0 - confidence,
    "far too sure": lambda confidence: np.sqrt(1.0 - confidence),
    "says nothing": lambda confidence: 0.2 + 0.0 * confidence,
}


@pytest.mark.slow
@pytest.mark.parametrize("wrong", MISLEADING.values(), ids=MISLEADING)
def test_the_interval_covers_the_loss_of_later_answers_whatever_confidence_means(wrong):
    covered = 0
    for seed in range(200):
        sums = learned(*answers(1_000, seed, wrong=wrong))
        confidences, losses = answers(300, 1_000 + seed, shift=0.4, wrong=wrong)
        found = expected(sums, confidences)
        if found.mean is not None:
            covered += found.lower <= losses.mean() <= found.upper
    assert covered >= 170


@pytest.mark.parametrize(
    ("becomes", "least", "most"),
    [pytest.param("calibrated", 0, 30, marks=pytest.mark.slow), ("far too sure", 180, 200)],
)
def test_it_is_refused_where_the_labels_that_came_show_another_loss_than_was_expected(becomes, least, most):
    refused = 0
    for seed in range(200):
        sums = learned(*answers(1_000, seed))
        later = answers(400, 2_000 + seed, wrong=MISLEADING[becomes])
        found = expected(learned(*later, before=sums), later[0])
        refused += bool(found.refused)
    assert least <= refused <= most


def test_nothing_is_said_without_answers_labels_or_sums_of_this_form():
    sums = learned(*answers(150, 1))
    assert expected_loss(sums, [0.0] * BINS) is expected_loss((), [1.0] * BINS) is None
    assert expected_loss(sums[:-1], [1.0] * BINS) is None
    few = expected_loss(sums, [1.0] * BINS)
    assert (few.mean, few.refused) == (None, "43 labels were compared with what was expected of them, of 100")


def test_sums_of_partitions_add_up_and_do_not_age_with_the_policy():
    one, other = (learned(*answers(300, seed)) for seed in (1, 2))
    both = ModelTotals(calibration=one) + ModelTotals(calibration=other)
    assert both.calibration == tuple(np.add(one, other))
    assert both.scaled(0.5).calibration == both.calibration
