import json
from pathlib import Path

import numpy as np
import pytest
from builders.estimators import choices

from clipper_stream.errors import UnknownName
from clipper_stream.evaluation.estimators.registry import ESTIMATORS, make_estimators

from .obp_figures import arrays

FIGURES = json.loads((Path(__file__).parent / "obp_figures.json").read_text())
CASES = [pytest.param(case, name, id=f"{case['seed']}-{name}") for case in FIGURES["cases"] for name in case["values"]]


def value(name, some):
    (estimator,) = make_estimators([name])
    return estimator.sums(some).value


def test_all_estimators_are_made_without_naming_any():
    assert [estimator.name for estimator in make_estimators()] == list(ESTIMATORS)


def test_an_unknown_estimator_is_refused():
    with pytest.raises(UnknownName, match=r"'ipw': use some of on_policy, ips"):
        make_estimators(["ipw"])


@pytest.mark.parametrize(("case", "name"), CASES)
def test_every_estimator_agrees_with_the_open_bandit_pipeline(case, name):
    logged, target, predicted, chosen, loss = arrays(**case)
    some = choices(logged, target, chosen, loss, predicted)
    assert value(name, some) == pytest.approx(case["values"][name], abs=1e-9)


def test_ips_agrees_with_vowpal_wabbit_within_the_precision_of_its_numbers():
    """Its `--cb_type ips --eval` adds the weighted costs of decisions in which both choose the same, in float32.

    Its doubly robust costs are of a regression that learns on the way, and it refuses `dm` as biased.
    """
    vowpal_wabbit = pytest.importorskip("vowpalwabbit")
    rng = np.random.default_rng(6)
    n, probabilities = 1_000, np.array([0.5, 0.25, 0.25])
    chosen, wanted, loss = rng.choice(3, n, p=probabilities), rng.integers(0, 3, n), rng.integers(0, 9, n) / 8
    workspace = vowpal_wabbit.Workspace("--cb 3 --eval --cb_type ips --quiet")
    for want, had, cost in zip(wanted, chosen, loss, strict=True):
        workspace.learn(f"{want + 1} {had + 1}:{cost}:{probabilities[had]} | x")
    theirs = workspace.get_sum_loss() / n
    workspace.finish()
    some = choices(np.tile(probabilities, (n, 1)), np.eye(3)[wanted], chosen, loss)
    assert value("ips", some) == pytest.approx(theirs, abs=1e-6)
