"""A prediction, its audit and a feedback as one decision."""

import pytest
from builders.decision_logs import answer, audit_of, decided, missing
from msgspec import UNSET

from clipper_stream.feedback.join import disagreement, feedback_value, is_policy_choice, join
from clipper_stream.feedback.update import GivenLoss, Label, answer_loss
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import NAMED, PolicyRef

A3 = answer("a:1", 3, 0.5)


def test_a_decision_has_all_that_were_asked_and_only_the_served_ones_are_served():
    prediction = decided("q", A3, missing("b:1", 0.25), audited=True)
    decision = join(prediction, audit_of("q", answer("c:1", 4, 0.1), missing("d:1", 0.2)))
    assert (dict(decision.outputs), decision.answer) == ({"a:1": 3, "c:1": 4}, 3)
    assert dict(decision.propensities) == {"a:1": 0.5, "b:1": 0.25, "c:1": 0.1, "d:1": 0.2}
    assert (decision.served, decision.unanswered) == (("a:1", "b:1"), {"b:1", "d:1"})
    assert join(prediction).propensities.keys() == {"a:1", "b:1"}


def test_of_a_model_in_prediction_and_audit_the_prediction_counts():
    twice = join(decided("q", A3), audit_of("q", answer("a:1", 1, 0.25), missing("b:1")))
    assert (dict(twice.outputs), dict(twice.propensities)) == ({"a:1": 3}, {"a:1": 0.5, "b:1": 1.0})
    silent = join(decided("q", missing("a:1")), audit_of("q", A3))
    assert (dict(silent.outputs), silent.unanswered) == ({}, {"a:1"})


def test_an_output_that_is_left_out_is_null_or_a_list_without_rows():
    prediction, beside = decided("q", answer("a:1", UNSET), output=1), audit_of("q", answer("b:1", 1))
    assert dict(join(prediction, beside).outputs) == {"a:1": None, "b:1": 1}
    prediction.output, prediction.outputs = UNSET, [1, 2]
    decision = join(prediction, beside)
    assert (decision.several_rows, decision.answer, dict(decision.outputs)) == (True, [1, 2], {"a:1": [], "b:1": []})


@pytest.mark.parametrize(
    ("said", "value"),
    [({"label": None}, Label(None)), ({"loss": 1}, GivenLoss(1.0)), ({"reward": 0.75}, GivenLoss(0.25))],
)
def test_a_feedback_gives_a_label_or_a_loss(said, value):
    assert feedback_value(Feedback(query_id="q", **said)) == value


def test_feedback_that_names_another_context_disagrees():
    prediction = decided("q", A3, context="ada")
    assert disagreement(Feedback(query_id="q", label=1), prediction) is None
    assert disagreement(Feedback(query_id="q", label=1, application="digits", context="ada"), prediction) is None
    reason = disagreement(Feedback(query_id="q", label=1, context="bob"), prediction)
    assert reason == "context is 'bob', but query 'q' was about 'ada': correct it or leave it out"


@pytest.mark.parametrize(("policy", "chosen"), [(None, False), (NAMED, False), ("exp3", True)])
def test_no_policy_chose_the_models_that_a_query_names(policy, chosen):
    assert is_policy_choice(decided("q", A3, policy=policy and PolicyRef(name=policy))) is chosen


UNSURE = dict(default=True, reason="low_confidence")


@pytest.mark.parametrize(
    ("prediction", "value", "kind", "loss"),
    [
        (decided("q", answer("a:1", 0.5)), Label(1.0), "absolute", 0.5),
        (decided("q", answer("a:1", 0.5)), GivenLoss(0.25), "zero_one", 0.25),
        (decided("q", missing("a:1"), output=1.0, default=True, reason="late"), Label(1.0), "zero_one", 1.0),
        (decided("q", answer("a:1", 0), output=1.0, **UNSURE), Label(1.0), "zero_one", 0.0),
        (decided("q", answer("a:1", 1.0), output="unsure", **UNSURE), Label(1.0), "zero_one", 1.0),
        (decided("q", answer("a:1", 1.0), output="unsure", **UNSURE), Label(1.0), "absolute", 1.0),
    ],
    ids=["a label", "a loss", "nobody answered", "unsure", "of another kind", "no number"],
)
def test_the_loss_of_the_answer_is_about_what_the_application_got(prediction, value, kind, loss):
    assert answer_loss(join(prediction), value, kind) == loss
