"""What is compared since when, from the control topic alone."""

import msgspec
from builders.rollout_logs import CANARY, PLAIN, SHADOW, control_of, control_record, with_trials

from clipper_agents.rollout.comparison_spec import comparison_specs, needs_history
from clipper_topics.control_keys import change_key
from clipper_topics.manifests import PolicySpec, RolloutRule, Trial


def test_an_application_without_trials_or_keep_best_is_not_compared():
    control = control_of(PLAIN)
    assert comparison_specs(control) == {}
    assert (control.current("digits"), control.current("other")) == (1, 0)


def test_a_trial_began_when_it_came_and_its_step_when_stage_and_share_became_these():
    found = comparison_specs(
        control_of(PLAIN, with_trials(SHADOW), with_trials(CANARY), with_trials(CANARY, audit_ratio=0.5))
    )
    (trial,) = found["digits"].trials
    assert (trial.since, trial.step_since) == (2, 3)
    assert found["digits"].begins_ms == 2000
    assert found["digits"].revision == 4


def test_a_trial_that_ended_and_came_again_began_again():
    (trial,) = comparison_specs(control_of(with_trials(SHADOW), PLAIN, with_trials(SHADOW)))["digits"].trials
    assert trial.since == 3


def test_other_candidates_another_policy_or_another_loss_make_another_comparison():
    for change in (
        {"models": ["a:1", "b:1"]},
        {"policy": PolicySpec(name="exp4")},
        {"loss": "squared"},
        {"default_output": 7},
        {"rollout": RolloutRule(confidence=0.99)},
    ):
        (trial,) = comparison_specs(control_of(with_trials(SHADOW), with_trials(SHADOW, **change)))["digits"].trials
        assert trial.since == 2, change


def test_a_change_of_anything_else_changes_nothing_about_a_comparison():
    for change in ({"objective_ms": 50}, {"rollout": RolloutRule(margin=0.1)}, {"rollout": RolloutRule(least=7)}):
        (trial,) = comparison_specs(control_of(with_trials(SHADOW), with_trials(SHADOW, **change)))["digits"].trials
        assert trial.since == 1, change


def test_candidates_are_compared_since_they_are_these():
    kept = msgspec.structs.replace(PLAIN, models=["a:1", "b:1"], keep_best=1)
    found = comparison_specs(control_of(PLAIN, kept, msgspec.structs.replace(kept, audit_ratio=0.1)))["digits"]
    assert (found.candidates_since, found.begins_ms, found.keep_best) == (2, 2000, 1)


def test_without_changes_on_the_topic_everything_began_with_the_present_revision():
    found = comparison_specs(control_of(PLAIN, with_trials(SHADOW), with_trials(SHADOW), noted=False))["digits"]
    assert (found.trials[0].since, found.begins_ms) == (3, 3007)


def test_a_change_that_cannot_be_read_and_a_rule_that_is_none_stop_nobody():
    control = control_of(with_trials(SHADOW), with_trials(SHADOW, rollout=RolloutRule(steps=[0.5, 0.1])))
    assert comparison_specs(control) == {}
    control.take([control_record(change_key("digits", 9), b"{")])


def test_what_began_before_it_was_compared_needs_what_was_read_already():
    before = control_of(PLAIN, with_trials(SHADOW))
    stepped = control_of(PLAIN, with_trials(SHADOW), with_trials(CANARY))
    assert not needs_history(comparison_specs(before), comparison_specs(stepped), {"digits": before.current("digits")})
    another = control_of(PLAIN, with_trials(SHADOW), with_trials(SHADOW, Trial(model="newer:1")))
    assert not needs_history(comparison_specs(before), comparison_specs(another), {"digits": before.current("digits")})
    kept = control_of(PLAIN, with_trials(SHADOW), with_trials(SHADOW, keep_best=1))
    assert needs_history(comparison_specs(before), comparison_specs(kept), {"digits": before.current("digits")}), (
        "its candidates are these since revision 1"
    )
