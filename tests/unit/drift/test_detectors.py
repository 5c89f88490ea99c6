"""Seeds are fixed: what is claimed of a detector is claimed of these sequences."""

import random
import sys

import pytest
from scipy.stats import binom

from clipper_stream.drift.detectors import DETECTORS, make_spec
from clipper_stream.errors import InvalidSetting, ModelNotLoaded, UnknownName

SEEDS = range(4)
WITHIN = {"adwin": 200, "page_hinkley": 200}
"""Losses after a jump from 0.1 to 0.5 within which each has detected it."""


def losses(kind, seed, count, mean):
    """Losses of a mean, of 0 and 1 or graded."""
    draws = random.Random(f"{seed} {mean}")
    if kind == "graded":
        return [min(1.0, max(0.0, draws.gauss(mean, 0.1))) for _ in range(count)]
    return [float(draws.random() < mean) for _ in range(count)]


def first_alarm(detector, values):
    return next((at for at, loss in enumerate(values, 1) if detector.update(loss)), None)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_jump_is_detected_within_the_stated_number_of_losses(name):
    for seed in SEEDS:
        values = losses("labels", seed, 300, 0.1) + losses("labels", seed, WITHIN[name], 0.5)
        first, again = (first_alarm(make_spec(name, {}).make(), values) for _ in range(2))
        assert first == again > 300, seed


@pytest.mark.parametrize("sequences", [25, pytest.param(100, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("kind", "mean"), [("labels", 0.1), ("labels", 0.5), ("graded", 0.5)])
@pytest.mark.parametrize("name", DETECTORS)
def test_false_alarms_are_as_rare_as_is_said(name, kind, mean, sequences):
    """In one of a hundred sequences of 5,000 losses without a change; more than the bound once in a thousand tests."""
    found = [first_alarm(make_spec(name, {}).make(), losses(kind, seed, 5_000, mean)) for seed in range(sequences)]
    assert len(found) - found.count(None) <= binom.ppf(0.999, sequences, 0.01)


@pytest.mark.parametrize(
    ("name", "parameters", "error", "said"),
    [
        ("nose", {}, UnknownName, "'nose': use one of adwin"),
        ("adwin", {"delay": 1}, InvalidSetting, "'delay' of detector 'adwin': did you mean delta. use one of delta"),
        ("adwin", {"delta": 0.0}, InvalidSetting, "delta"),
        ("adwin", {"delta": "x"}, InvalidSetting, "delta"),
        ("adwin", {"delta": True}, InvalidSetting, "delta"),
        ("page_hinkley", {"threshold": 0}, InvalidSetting, "threshold"),
        ("page_hinkley", {"least": 1.5}, InvalidSetting, "least"),
        ("page_hinkley", {"delta": float("inf")}, InvalidSetting, "delta"),
    ],
)
def test_an_unknown_detector_or_parameter_and_one_outside_of_its_bounds_are_refused(name, parameters, error, said):
    with pytest.raises(error, match=said):
        make_spec(name, parameters)


def test_without_the_library_the_error_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "river.drift", None)
    with pytest.raises(ModelNotLoaded, match=r"pip install .*\[drift\]'"):
        make_spec("adwin", {}).make()
