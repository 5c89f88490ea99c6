"""Losses that one query with its feedback says something about."""

import pytest
from builders.rollout_logs import answered, audit_of, decided, missing
from msgspec import UNSET

from clipper_agents.rollout.query_losses import apart, losses_of
from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.join import feedback_value, join
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction

CANDIDATES = {"a:1", "b:1"}
LABEL = Feedback(query_id="q", label=1)


def losses(prediction, audit=None, feedback=LABEL, kind="zero_one"):
    found = losses_of(join(prediction, audit), feedback_value(feedback), CANDIDATES, kind)
    return dict(found.models), found.answer


def test_a_shadow_and_the_answer_make_a_pair():
    prediction = decided("q", answered("a:1", 0), audited=True)
    assert losses(prediction, audit_of("q", answered("new:1", 1))) == ({"a:1": 1.0, "new:1": 0.0}, 1.0)


def test_a_shadow_that_is_late_or_fails_is_silent():
    prediction = decided("q", answered("a:1", 1), audited=True)
    audit = audit_of("q", missing("new:1"), missing("other:1", reason="error"))
    assert losses(prediction, audit) == ({"a:1": 0.0}, 0.0)
    found = losses_of(join(prediction, audit), feedback_value(LABEL), CANDIDATES, "zero_one")
    assert found.silent == {"new:1", "other:1"}


def test_a_canary_is_compared_with_what_the_policy_would_have_asked():
    prediction = decided("q", answered("new:1", 1), audited=True)
    assert losses(prediction, audit_of("q", answered("a:1", 0))) == ({"new:1": 0.0, "a:1": 1.0}, 1.0)
    assert losses(prediction, audit_of("q", missing("a:1"), answered("other:1", 1)))[1] is None


def test_a_canary_that_does_not_answer_has_lost_whatever_the_default_was():
    prediction = decided("q", missing("new:1"), audited=True, output=1)
    assert losses(prediction, audit_of("q", answered("a:1", 1))) == ({"new:1": 1.0, "a:1": 0.0}, 0.0)
    assert losses(prediction, feedback=Feedback(query_id="q", loss=0.0)) == ({"new:1": 1.0}, None)


def test_beside_a_canary_an_ensembles_answer_is_unknown():
    prediction = decided("q", answered("new:1", 1), audited=True)
    assert losses(prediction, audit_of("q", answered("a:1", 0), answered("b:1", 1)))[1] is None
    assert losses(prediction)[1] is None


def test_a_loss_or_a_reward_says_something_about_the_answer_and_whoever_gave_it():
    prediction = decided("q", answered("a:1", 0), audited=True)
    audit = audit_of("q", answered("new:1", 1))
    assert losses(prediction, audit, Feedback(query_id="q", loss=0.25)) == ({"a:1": 0.25}, 0.25)
    assert losses(prediction, audit, Feedback(query_id="q", reward=0.25)) == ({"a:1": 0.75}, 0.75)
    canary = decided("q", answered("new:1", 1), audited=True)
    assert losses(canary, audit_of("q", answered("a:1", 0)), Feedback(query_id="q", loss=0.25)) == (
        {"new:1": 0.25},
        None,
    )


def test_an_ensemble_is_compared_by_its_answer():
    prediction = decided("q", answered("a:1", 0), answered("b:1", 1), output=1, audited=True)
    assert losses(prediction, audit_of("q", answered("new:1", 1))) == ({"a:1": 1.0, "b:1": 0.0, "new:1": 0.0}, 0.0)


def test_a_default_without_outputs_has_lost_and_one_by_disagreement_is_scored():
    nobody = decided("q", missing("a:1"), missing("b:1"), output=1)
    assert losses(nobody) == ({}, 1.0)
    unsure = decided("q", answered("a:1", 0), answered("b:1", 2), output=1, default=True, reason="low_confidence")
    assert losses(unsure) == ({"a:1": 1.0, "b:1": 1.0}, 0.0)


def test_queries_of_several_rows_are_scored_row_by_row():
    def several(ref, outputs):
        one = answered(ref, None)
        one.outputs = outputs
        return one

    prediction = Prediction(
        query_id="q",
        application="digits",
        outputs=[0, 1],
        models=[several("a:1", [0, 1])],
        policy=PolicyRef(name="exp3"),
        served_propensity=1.0,
        audited=True,
    )
    label = Feedback(query_id="q", label=[1, 1])
    assert losses(prediction, audit_of("q", several("new:1", [1, None])), label) == ({"a:1": 0.5, "new:1": 0.5}, 0.5)
    assert losses(prediction, audit_of("q", answered("new:1", 1)), label) == ({"a:1": 0.5, "new:1": 1.0}, 0.5)


def test_a_default_for_one_row_can_be_as_far_from_a_trial_as_any_answer():
    """Its loss is 1, although its rows are nearly those that the trial gave."""
    asked = ModelAnswer(model="a", version="1", propensity=1.0, outputs=[1, None, 1, 1])
    prediction = decided("q", output=UNSET, outputs=[1, 0, 1, 1], reason="late")
    prediction.models = [asked]
    trial = ModelAnswer(model="new", version="1", propensity=1.0, outputs=[1, 1, 1, 1], served=False)
    decision = join(prediction, audit_of("q", trial))
    found = losses_of(decision, feedback_value(Feedback(query_id="q", label=[1] * 4)), CANDIDATES, "zero_one")
    assert (found.models["new:1"], found.answer) == (0.0, 1.0)
    assert apart(decision, "new:1", ("a:1",), "zero_one") == 1.0


def test_a_label_that_fits_nothing_is_refused():
    with pytest.raises(InvalidLabel):
        losses(decided("q", answered("a:1", 1.0)), feedback=Feedback(query_id="q", label="x"), kind="absolute")


def test_a_trial_whose_outputs_have_another_form_than_the_label_has_lost():
    """It raised InvalidLabel: the feedback was left out, and a version that gives nonsense was never aborted."""
    label = Feedback(query_id="q", label=[1.0, 0.0])
    shadow = decided("q", answered("a:1", [1.0, 0.0]), audited=True)
    nonsense = audit_of("q", answered("new:1", [1.0]))
    assert losses(shadow, nonsense, label, "absolute") == ({"a:1": 0.0, "new:1": 1.0}, 0.0)
    canary = decided("q", answered("new:1", "?"), audited=True)
    own = audit_of("q", answered("a:1", [1.0, 1.0]))
    assert losses(canary, own, label, "absolute") == ({"new:1": 1.0, "a:1": 0.5}, 0.5)


def test_of_a_version_in_prediction_and_audit_the_prediction_counts():
    """The audit's output counted here, and the prediction's for the learner."""
    prediction = decided("q", answered("a:1", 0), audited=True)
    assert losses(prediction, audit_of("q", answered("a:1", 1), answered("new:1", 1))) == (
        {"a:1": 1.0, "new:1": 0.0},
        1.0,
    )


def test_an_answer_that_a_usable_label_cannot_be_compared_with_has_the_full_loss():
    unsure = decided("q", answered("a:1", 1.0), output="?", default=True, reason="low_confidence", audited=True)
    beside = audit_of("q", answered("new:1", 0.5))
    assert losses(unsure, beside, kind="absolute") == ({"a:1": 0.0, "new:1": 0.5}, 1.0)
