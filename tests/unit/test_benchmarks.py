"""What benchmarks are made of stays usable: they are not run by the test suite."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from clipper_agents.settings import load_settings
from clipper_stream.selection.registry import make_policy

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


@pytest.mark.parametrize(("policy", "within"), [("exp3", 600), ("exp4", 500), ("epsilon_greedy", 1500)])
def test_a_new_version_is_found_best_within_a_bound(policy, within):
    """The bounds are about twice the 95th percentiles in docs/reference/rollouts.md."""
    spec = importlib.util.spec_from_file_location("benchmark_newcomers", BENCHMARKS / "rig/newcomers.py")
    newcomers = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(newcomers)
    found = [newcomers.feedbacks_to_lead(make_policy(policy), seed, 2 * within) for seed in range(8)]
    assert all(feedbacks is not None and feedbacks <= within for feedbacks in found), found
