import pytest
from builders.estimators import some_choices

from clipper_stream.errors import InvalidSetting, UnknownName
from clipper_stream.evaluation.estimators.registry import ESTIMATORS, make_estimators


def value(name, some, largest=None):
    (estimator,) = make_estimators([name], decisions=len(some), largest=largest)
    return estimator.sums(some).value


def test_all_estimators_are_made_without_naming_any():
    assert [estimator.name for estimator in make_estimators(decisions=10)] == list(ESTIMATORS)


def test_an_unknown_estimator_and_a_bound_below_one_are_refused():
    with pytest.raises(UnknownName, match=r"'ipw': use some of on_policy, ips"):
        make_estimators(["ipw"], decisions=10)
    with pytest.raises(InvalidSetting, match="at least 1"):
        make_estimators(["clipped_ips"], decisions=10, largest=0.5)
    with pytest.raises(InvalidSetting, match="at least 1"):
        make_estimators(["switch_dr"], decisions=10, largest=float("nan"))


def test_bounds_that_nothing_reaches_change_nothing_and_tight_ones_do():
    some = some_choices(2)
    assert value("clipped_ips", some, largest=1e9) == pytest.approx(value("ips", some), abs=1e-12)
    assert value("switch_dr", some, largest=1e9) == pytest.approx(value("dr", some), abs=1e-12)
    assert value("clipped_ips", some, largest=1.0) < value("ips", some)
    assert value("switch_dr", some, largest=1.0) != pytest.approx(value("dr", some), abs=1e-6)
