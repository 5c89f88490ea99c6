import json
from pathlib import Path

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
