"""What benchmarks are made of stays usable: they are not run by the test suite."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clipper_agents.settings import load_settings

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.parametrize(("name", "colocated"), [("colocated.toml", True), ("separate.toml", False)])
def test_a_configuration_of_the_benchmarks_is_valid_and_places_its_model(name, colocated):
    settings = load_settings(BENCHMARKS / "configs" / name, {})
    assert settings.model("digits:1").colocated is colocated
    assert {application.name for application in settings.applications} == {"digits", "digits-50ms", "digits-backlog"}


def test_the_model_of_the_benchmarks_gives_a_label_a_row():
    spec = importlib.util.spec_from_file_location("benchmark_models", BENCHMARKS / "models.py")
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    labels = models.digits(np.random.default_rng(0).random((1_000, 64), dtype=np.float32))
    assert labels.shape == (1_000,)
    assert set(labels.tolist()) <= set(range(10))
