import random
from dataclasses import dataclass
from types import SimpleNamespace

import numpy as np

from clipper_stream.drift.adwin import Adwin
from clipper_stream.drift.loss_watch import KEPT, LossWatch, most_likely_split


@dataclass(frozen=True)
class AtEach:
    """Detects at each so many losses."""

    count: int = 10

    def make(self):
        left = iter(range(self.count - 1, -1, -1))
        return SimpleNamespace(update=lambda loss: next(left) == 0)


def test_means_before_and_after_are_those_of_the_two_levels():
    draws, watch = random.Random(3), LossWatch(Adwin)
    values = [float(draws.random() < mean) for mean in [0.1] * 1_000 + [0.6] * 500]
    change = next(found for value in values if (found := watch.observe(value)))
    assert abs(change.loss_before - 0.1) < 4 * (0.09 / 1_000) ** 0.5
    assert abs(change.loss_after - 0.6) < 4 * (0.24 / change.after) ** 0.5
    assert abs(change.losses - change.after - 1_000) <= 20, "dated to where it happened"


def test_after_a_detection_everything_begins_anew():
    watch = LossWatch(AtEach().make)
    first = [watch.observe(float(at >= 5)) for at in range(10)][-1]
    second = [watch.observe(0.5) for _ in range(10)][-1]
    assert (first.loss_before, first.loss_after, first.after) == (0.0, 1.0, 5)
    assert (second.losses, second.loss_before, second.loss_after) == (10, 0.5, 0.5)


def test_memory_is_bounded_and_older_losses_still_count_in_the_mean_before():
    watch = LossWatch(AtEach(count=5 * KEPT).make)
    change = [watch.observe(float(at >= 5 * KEPT - 10)) for at in range(5 * KEPT)][-1]
    assert (change.losses, change.after, change.loss_before, change.loss_after) == (5 * KEPT, 10, 0.0, 1.0)


def test_the_split_is_the_one_of_least_squares():
    draws = np.random.default_rng(5)
    for _ in range(20):
        values = draws.random(30)

        def squares(at, values=values):
            return sum(((part - part.mean()) ** 2).sum() for part in (values[:at], values[at:]) if len(part))

        assert most_likely_split(values, 0, 0.0) == min(range(1, 30), key=squares)


def test_a_single_loss_has_no_before():
    change = LossWatch(AtEach(count=1).make).observe(0.25)
    assert (change.losses, change.loss_before, change.loss_after) == (1, 0.25, 0.25)


def test_what_returns_every_day_is_no_change_and_a_rise_is_told_against_the_same_hours():
    draws, watch, means = random.Random(5), LossWatch(Adwin), [0.1 + 0.02 * hour for hour in range(24)]
    for _ in range(5):
        for hour in range(24):
            assert [watch.observe(float(draws.random() < means[hour]), hour) for _ in range(200)] == [None] * 200
    hours = [hour for hour in range(24) for _ in range(200)]
    change = next(found for hour in hours if (found := watch.observe(float(draws.random() < means[hour] + 0.3), hour)))
    assert change.losses - change.after >= 24_000 - 100
    assert abs(change.loss_before - 0.1) < 0.03, "as on earlier days at midnight; the mean of all is 0.33"
    assert abs(change.loss_after - 0.4) < 4 * (0.24 / change.after) ** 0.5
