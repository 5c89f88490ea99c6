"""Audits: all candidates are asked for the log, and one is served."""

import pytest
from builders.bandits import check_unbiased

from clipper_stream.feedback.values import GivenLoss, Label
from clipper_stream.selection.distribution import ActionDistribution, all_of, audited, forced_decision, one_of

ERROR = {"a:1": 0.1, "b:1": 0.3, "c:1": 0.6}
CHANCES = {"a:1": 0.9, "b:1": 0.08, "c:1": 0.02}


def policy_choice() -> ActionDistribution:
    return one_of(CHANCES, CHANCES.values())


def test_without_audit_nothing_changes():
    assert audited(policy_choice(), 0.0).decisions == policy_choice().decisions


def test_an_ensemble_is_audited_already():
    ensemble = all_of(CHANCES)
    assert {d.propensities for d in audited(ensemble, 0.3).decisions} == {(1.0, 1.0, 1.0)}


def test_an_audit_serves_whom_the_policy_chose_and_asks_the_others_for_the_log():
    decisions = audited(policy_choice(), 1.0).decisions
    assert [d.served for d in decisions] == [("a:1",), ("b:1",), ("c:1",)]
    assert all(d.models == ("a:1", "b:1", "c:1") for d in decisions)
    assert decisions[1].split()[1].models == ("a:1", "c:1")


def test_a_model_that_the_policy_never_serves_is_asked_as_often_as_audits_happen():
    never = one_of({"a:1": 1.0, "b:1": 0.0}, (1.0, 0.0))
    audit = next(d for d in audited(never, 0.25).decisions if len(d.models) == 2)
    assert audit.propensities == (1.0, 0.25)


def test_a_query_that_names_its_models_has_no_chance_in_it():
    decision = forced_decision(["b:1", "a:1"])
    assert (decision.models, decision.propensities, decision.served_propensity) == (("b:1", "a:1"), (1.0, 1.0), 1.0)


@pytest.mark.parametrize("ratio", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("truth", [Label, GivenLoss])
def test_losses_over_propensities_estimate_every_models_loss_without_bias(ratio, truth):
    check_unbiased(audited(policy_choice(), ratio), ERROR, truth)
