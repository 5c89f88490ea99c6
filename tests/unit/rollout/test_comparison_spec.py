import msgspec
import pytest
from unit.rollout.rig import CANARY, PLAIN, SHADOW, control_of, control_record, specs_of, with_trials

from clipper_agents.control.errors import RefusedChange
from clipper_agents.rollout.comparison_spec import comparison_specs, needs_history
from clipper_agents.rollout.decisions import RolloutDecision, plan_of
from clipper_topics.control_keys import change_key
from clipper_topics.manifests import PolicySpec, RolloutPlan, RolloutRule, Trial

OTHER = Trial(model="b:1", automatic=True)
KEPT = with_trials(models=["a:1", "b:1"], keep_best=1)


def test_an_application_without_trials_or_keep_best_is_not_compared():
    control = control_of(PLAIN)
    assert comparison_specs(control) == {}
    assert (control.current("digits"), control.current("other")) == (1, 0)


@pytest.mark.parametrize(
    ("manifests", "since", "step_since", "begins_ms"),
    [
        ([PLAIN, with_trials(SHADOW), with_trials(CANARY), with_trials(CANARY, audit_ratio=0.5)], 2, 3, 2000),
        ([with_trials(SHADOW), PLAIN, with_trials(SHADOW)], 3, 3, 3000),
        *(
            ([with_trials(SHADOW), with_trials(SHADOW, **another)], 2, 2, 2000)
            for another in (
                {"models": ["a:1", "b:1"]},
                {"policy": PolicySpec(name="exp4")},
                {"loss": "squared"},
                {"loss": "absolute", "loss_scale": 10.0},
                {"default_output": 7},
                {"rollout": RolloutRule(confidence=0.99)},
                {"rollout": RolloutRule(plan=RolloutPlan(days=2.0))},
            )
        ),
        *(
            ([with_trials(SHADOW), with_trials(SHADOW, **same)], 1, 1, 1000)
            for same in ({"objective_ms": 50}, {"rollout": RolloutRule(margin=0.1)}, {"rollout": RolloutRule(least=7)})
        ),
    ],
)
def test_a_trial_is_compared_since_it_came_or_its_comparison_became_another(manifests, since, step_since, begins_ms):
    found = specs_of(*manifests)
    (trial,) = found.trials
    assert (trial.since, trial.step_since, found.begins_ms) == (since, step_since, begins_ms)
    assert found.revision == len(manifests)


def test_candidates_are_compared_since_they_are_these():
    found = specs_of(PLAIN, KEPT, with_trials(models=["a:1", "b:1"], keep_best=1, audit_ratio=0.1))
    assert (found.candidates_since, found.begins_ms, found.keep_best) == (2, 2000, 1)


def test_without_changes_on_the_topic_everything_began_with_the_present_revision():
    found = specs_of(PLAIN, with_trials(SHADOW), with_trials(SHADOW), noted=False)
    assert (found.trials[0].since, found.begins_ms) == (3, 3007)


def test_a_change_that_cannot_be_read_and_a_rule_that_is_none_stop_nobody():
    control = control_of(with_trials(SHADOW), with_trials(SHADOW, rollout=RolloutRule(steps=[0.5, 0.1])))
    assert comparison_specs(control) == {}
    control.take([control_record(change_key("digits", 9), b"{")])


@pytest.mark.parametrize(
    ("after", "needed"),
    [
        (with_trials(CANARY), False),
        (with_trials(SHADOW, Trial(model="newer:1")), False),
        (with_trials(SHADOW, keep_best=1), True),
        (with_trials(SHADOW, rollout=RolloutRule(margin=0.1)), True),
        (with_trials(SHADOW, rollout=RolloutRule(relative_margin=0.5)), True),
        (with_trials(SHADOW, rollout=RolloutRule(least=7)), False),
    ],
    ids=[
        "a step",
        "another trial",
        "its candidates are these since revision 1",
        "another margin",
        "a relative",
        "least",
    ],
)
def test_what_began_before_it_was_compared_needs_what_was_read_already(after, needed):
    before = control_of(PLAIN, with_trials(SHADOW))
    now = comparison_specs(control_of(PLAIN, with_trials(SHADOW), after))
    assert needs_history(comparison_specs(before), now, {"digits": before.current("digits")}) is needed


@pytest.mark.parametrize(
    ("manifests", "attempt"),
    [
        ([with_trials(SHADOW), with_trials(CANARY), with_trials(CANARY, audit_ratio=0.5)], 1),
        ([with_trials(SHADOW), PLAIN, with_trials(CANARY), PLAIN, with_trials(SHADOW)], 3),
        ([with_trials(SHADOW), with_trials(SHADOW, policy=PolicySpec(name="exp4"))], 2),
        ([with_trials(SHADOW, loss="absolute"), with_trials(SHADOW, loss="absolute", loss_scale=9.0)], 1),
        ([with_trials(SHADOW, loss="absolute", loss_scale=scale) for scale in (9.0, 8.0)], 2),
        ([with_trials(SHADOW), with_trials(SHADOW, loss="absolute", loss_scale=9.0)], 2),
        ([with_trials(Trial(model="newer:1")), with_trials(Trial(model="newer:1"), SHADOW)], 1),
    ],
    ids=["one", "three", "compared anew", "its scale is learned", "another scale", "another loss", "another version's"],
)
def test_each_time_that_a_version_is_put_to_the_test_is_an_attempt(manifests, attempt):
    assert specs_of(*manifests).trials[-1].attempt == attempt


@pytest.mark.parametrize(
    ("manifests", "at_once"),
    [
        ([with_trials(SHADOW)], 1),
        ([with_trials(SHADOW, Trial(model="by-hand:1"))], 1),
        (
            [
                with_trials(SHADOW, OTHER),
                with_trials(SHADOW, OTHER, Trial(model="c:1", automatic=True)),
                with_trials(SHADOW),
            ],
            3,
        ),
        ([with_trials(OTHER), with_trials(SHADOW)], 1),
    ],
    ids=["alone", "beside one by hand", "beside two for a while", "after another"],
)
def test_trials_that_were_on_at_once_are_counted(manifests, at_once):
    assert specs_of(*manifests).trials[0].at_once == at_once


@pytest.mark.parametrize(("since_s", "attempt"), [(None, 1), (1_700_000_000, 2)], ids=["no answer", "an answer"])
def test_a_trial_that_ended_before_its_first_answer_was_no_attempt(since_s, attempt):
    control = control_of(with_trials(SHADOW), PLAIN, with_trials(SHADOW))
    ended, change = (
        control.changes["digits"][2],
        {"command": "abort", "model": "new:1", "numbers": {"since_s": since_s}},
    )
    control.changes["digits"][2] = msgspec.structs.replace(ended, **change)
    assert comparison_specs(control)["digits"].trials[-1].attempt == attempt


@pytest.mark.parametrize(("scale", "margin"), [(None, 0.5), (50.0, 0.01), (0.1, 1.0)])
def test_a_margin_in_the_unit_of_the_labels_is_divided_by_the_scale_of_the_losses(scale, margin):
    found = specs_of(with_trials(SHADOW, loss="absolute", loss_scale=scale, rollout=RolloutRule(label_margin=0.5)))
    assert found.rule.margin == margin


# --- decisions --------------------------------------------------------------------------------------------------------
def changed(manifest, command, model="new:1", share=None):
    decision = RolloutDecision(
        command=command, application="digits", model=model, revision=1, share=share, why="why", numbers={"lower": 0.5}
    )
    return plan_of(decision, control_of(manifest, published=["a:1", "b:1", "new:1"]).manifests).changes


@pytest.mark.parametrize(
    ("there", "decision", "trials", "models"),
    [
        (with_trials(SHADOW), ("step", "new:1", 0.25), [("new:1", "canary", 0.25)], ["a:1"]),
        (with_trials(CANARY), ("promote",), [], ["a:1", "new:1"]),
        (with_trials(CANARY), ("abort",), [], ["a:1"]),
        (with_trials(models=["a:1", "b:1"]), ("retire", "b:1"), [], ["a:1"]),
    ],
)
def test_a_decision_becomes_the_change_that_an_operator_would_make(there, decision, trials, models):
    (edit,) = changed(there, *decision)
    assert [(one.model, one.stage, one.share) for one in edit.after.trials] == trials
    assert edit.after.models == models


def test_a_scale_that_trials_have_shown_becomes_that_of_the_application():
    there, numbers = with_trials(SHADOW, loss="absolute"), {"loss_scale": 50.0}
    decision = RolloutDecision(command="scale", application="digits", model="new:1", revision=1, numbers=numbers)
    (edit,) = plan_of(decision, control_of(there, published=["a:1", "new:1"]).manifests).changes
    assert (edit.after.loss_scale, edit.after.scaled_loss) == (50.0, "absolute:50.0")


def test_a_decision_about_what_is_on_trial_no_more_is_refused():
    with pytest.raises(RefusedChange):
        changed(PLAIN, "promote")
