"""Seeds are fixed: what is claimed of a detector is claimed of these sequences."""

import random
import sys

import pytest
from scipy.stats import binom

from clipper_stream.drift.adwin import Adwin
from clipper_stream.errors import ModelNotLoaded

SEEDS = range(4)
WITHIN = 200
"""Losses after a jump from 0.1 to 0.5 within which it has detected it."""


def losses(kind, seed, count, mean):
    """Losses of a mean, of 0 and 1 or graded."""
    draws = random.Random(f"{seed} {mean}")
    if kind == "graded":
        return [min(1.0, max(0.0, draws.gauss(mean, 0.1))) for _ in range(count)]
    return [float(draws.random() < mean) for _ in range(count)]


def first_alarm(detector, values):
    return next((at for at, loss in enumerate(values, 1) if detector.update(loss)), None)


def test_a_jump_is_detected_within_the_stated_number_of_losses():
    for seed in SEEDS:
        values = losses("labels", seed, 300, 0.1) + losses("labels", seed, WITHIN, 0.5)
        first, again = (first_alarm(Adwin(), values) for _ in range(2))
        assert first == again > 300, seed


@pytest.mark.parametrize("sequences", [25, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "mean"), [("labels", 0.1), ("labels", 0.5), ("graded", 0.5)])
def test_false_alarms_are_as_rare_as_is_said(kind, mean, sequences):
    """In one of a hundred sequences of 5,000 losses without a change; more than the bound once in a thousand tests."""
    found = [first_alarm(Adwin(), losses(kind, seed, 5_000, mean)) for seed in range(sequences)]
    assert len(found) - found.count(None) <= binom.ppf(0.999, sequences, 0.01)


def test_without_the_library_the_error_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "river.drift", None)
    with pytest.raises(ModelNotLoaded, match=r"pip install .*\[drift\]'"):
        Adwin()
