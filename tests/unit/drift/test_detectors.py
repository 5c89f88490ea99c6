"""Seeds are fixed: what is claimed of a detector is claimed of these sequences."""

import random
import sys

import pytest

from clipper_stream.drift.detectors import DETECTORS, make_spec
from clipper_stream.errors import InvalidSetting, ModelNotLoaded, UnknownName

SEEDS = range(4)
WITHIN = {"adwin": 150, "page_hinkley": 200}
"""Losses after a jump from 0.1 to 0.5 within which each has detected it."""
SEQUENCES = 100
"""Of 5,000 losses without a change, of which one in a hundred may have a false alarm."""


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
        detector = make_spec(name, {}).make()
        assert first_alarm(detector, losses("labels", seed, 300, 0.1)) is None, seed
        assert first_alarm(detector, losses("labels", seed, WITHIN[name], 0.5)) is not None, seed


@pytest.mark.parametrize(("kind", "mean"), [("labels", 0.1), ("labels", 0.5), ("graded", 0.5)])
@pytest.mark.parametrize("name", DETECTORS)
def test_false_alarms_are_as_rare_as_is_said(name, kind, mean):
    """A detector that is wrong in one of a hundred sequences has six of them once in two thousand tests."""
    sequences = (losses(kind, seed, 5_000, mean) for seed in range(SEQUENCES))
    assert sum(first_alarm(make_spec(name, {}).make(), values) is not None for values in sequences) <= 5


@pytest.mark.parametrize("name", DETECTORS)
def test_the_same_losses_lead_to_the_same_detections(name):
    values = losses("labels", 7, 300, 0.1) + losses("labels", 8, 600, 0.6)
    found = [first_alarm(make_spec(name, {}).make(), values) for _ in range(2)]
    assert found[0] == found[1] is not None


def test_an_unknown_detector_or_parameter_is_named_with_those_that_there_are():
    with pytest.raises(UnknownName, match="'nose': use one of adwin"):
        make_spec("nose", {})
    with pytest.raises(InvalidSetting, match="'delay' of detector 'adwin': use one of delta"):
        make_spec("adwin", {"delay": 1})


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("adwin", {"delta": 0.0}),
        ("adwin", {"delta": "x"}),
        ("adwin", {"delta": True}),
        ("page_hinkley", {"threshold": 0}),
        ("page_hinkley", {"least": 1.5}),
        ("page_hinkley", {"delta": float("inf")}),
    ],
)
def test_a_parameter_outside_of_its_bounds_is_refused(name, parameters):
    with pytest.raises(InvalidSetting, match=next(iter(parameters))):
        make_spec(name, parameters)


def test_without_the_library_the_error_says_how_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "river.drift", None)
    spec = make_spec("adwin", {})
    with pytest.raises(ModelNotLoaded, match=r"pip install 'clipper-stream\[drift\]'"):
        spec.make()
