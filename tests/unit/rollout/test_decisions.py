"""A decision becomes the change that an operator would make."""

import pytest
from builders.rollout_logs import CANARY, PLAIN, SHADOW, control_of, with_trials

from clipper_agents.control.errors import RefusedChange
from clipper_agents.rollout.decisions import RolloutDecision, plan_of
from clipper_topics.manifests import ModelManifest


def decision(command, model="new:1", share=None):
    return RolloutDecision(
        command=command, application="digits", model=model, revision=1, share=share, why="why", numbers={"lower": 0.5}
    )


def published(manifest):
    control = control_of(manifest)
    for ref in ("a:1", "b:1", "new:1"):
        name, _, version = ref.partition(":")
        control.manifests.models[ref] = ModelManifest(name=name, version=version, uri="models:svm")
    return control.manifests


def after(command, manifest, **changes):
    (edit,) = plan_of(decision(command, **changes), published(manifest)).edits
    return [(one.model, one.stage, one.share) for one in edit.after.trials], edit.after.models


def test_each_command_is_the_change_of_its_name():
    assert after("step", with_trials(SHADOW), share=0.25) == ([("new:1", "canary", 0.25)], ["a:1"])
    assert after("promote", with_trials(CANARY)) == ([], ["a:1", "new:1"])
    assert after("abort", with_trials(CANARY)) == ([], ["a:1"])
    assert after("retire", with_trials(models=["a:1", "b:1"]), model="b:1") == ([], ["a:1"])


def test_a_decision_about_what_is_on_trial_no_more_is_refused():
    with pytest.raises(RefusedChange):
        plan_of(decision("promote"), published(PLAIN))
