"""Seeds are fixed: what is claimed of a detector is claimed of these sequences."""

import random
import sys

import pytest

from clipper_stream.drift.detectors import DETECTORS, make_spec
from clipper_stream.errors import InvalidSetting, ModelNotLoaded, UnknownName

SEEDS = range(4)
WITHIN = {"adwin": 150, "page_hinkley": 150, "kswin": 100, "ddm": 300}
"""Losses after a jump from 0.1 to 0.5 within which each has detected it."""
QUIET = {"adwin": 5_000, "page_hinkley": 5_000, "kswin": 800, "ddm": 1_000}
"""Stationary losses without an alarm."""


def losses(name, seed, count, mean):
    """Losses of a mean: graded ones for the detector that compares distributions, else 0 and 1."""
    draws = random.Random(f"{seed} {mean}")
    if name == "kswin":
        return [min(1.0, max(0.0, draws.gauss(mean, 0.1))) for _ in range(count)]
    return [float(draws.random() < mean) for _ in range(count)]


def first_alarm(detector, values):
    return next((at for at, loss in enumerate(values, 1) if detector.update(loss)), None)


@pytest.mark.parametrize("name", DETECTORS)
def test_a_jump_is_detected_within_the_stated_number_of_losses(name):
    for seed in SEEDS:
        detector = make_spec(name, {}, "zero_one").make()
        assert first_alarm(detector, losses(name, seed, 300, 0.1)) is None, seed
        assert first_alarm(detector, losses(name, seed, WITHIN[name], 0.5)) is not None, seed


@pytest.mark.parametrize("name", DETECTORS)
def test_a_stationary_sequence_of_the_stated_length_has_no_alarm(name):
    for seed in SEEDS:
        detector = make_spec(name, {}, "zero_one").make()
        assert first_alarm(detector, losses(name, seed, QUIET[name], 0.1)) is None, seed


@pytest.mark.parametrize("name", DETECTORS)
def test_the_same_losses_lead_to_the_same_detections(name):
    values = losses(name, 7, 300, 0.1) + losses(name, 8, 600, 0.6)
    found = [first_alarm(make_spec(name, {}, "zero_one").make(), values) for _ in range(2)]
    assert found[0] == found[1] is not None


def test_what_lies_between_0_and_1_says_nothing_to_a_detector_of_errors():
    detector = make_spec("ddm", {}, "zero_one").make()
    assert first_alarm(detector, [0.0] * 300 + [0.9] * 1_000) is None
    with pytest.raises(InvalidSetting, match="losses of 0 and 1"):
        make_spec("ddm", {}, "absolute")


def test_an_unknown_detector_or_parameter_is_named_with_those_that_there_are():
    with pytest.raises(UnknownName, match="'nose': use one of adwin"):
        make_spec("nose", {}, "zero_one")
    with pytest.raises(InvalidSetting, match="'delay' of detector 'adwin': use one of delta"):
        make_spec("adwin", {"delay": 1}, "zero_one")


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("adwin", {"delta": 0.0}),
        ("adwin", {"delta": "x"}),
        ("adwin", {"delta": True}),
        ("page_hinkley", {"threshold": 0}),
        ("page_hinkley", {"least": 1.5}),
        ("kswin", {"window": 150}),
        ("kswin", {"alpha": 1.0}),
        ("ddm", {"deviations": float("inf")}),
    ],
)
def test_a_parameter_outside_of_its_bounds_is_refused(name, parameters):
    with pytest.raises(InvalidSetting, match=next(iter(parameters))):
        make_spec(name, parameters, "zero_one")


def test_without_the_library_the_error_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "river.drift", None)
    spec = make_spec("adwin", {}, "zero_one")
    with pytest.raises(ModelNotLoaded, match=r"pip install 'clipper-stream\[drift\]'"):
        spec.make()
