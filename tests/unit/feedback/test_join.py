"""A prediction, its audit and a feedback as one decision."""

import pytest
from builders.rollout_logs import answered, audit_of, decided, missing
from msgspec import UNSET

from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.join import disagreement, feedback_value, is_policy_choice, join
from clipper_stream.feedback.update import answer_loss, score
from clipper_stream.feedback.values import GivenLoss, Label
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import NAMED, PolicyRef


def test_a_decision_has_all_that_were_asked_and_only_the_served_ones_are_served():
    prediction = decided("q", answered("a:1", 3, propensity=0.5), missing("b:1", propensity=0.25), audited=True)
    beside = audit_of("q", answered("c:1", 4, propensity=0.1), missing("d:1", propensity=0.2))
    decision = join(prediction, beside)
    assert (dict(decision.outputs), decision.answer) == ({"a:1": 3, "c:1": 4}, 3)
    assert dict(decision.propensities) == {"a:1": 0.5, "b:1": 0.25, "c:1": 0.1, "d:1": 0.2}
    assert (decision.served, decision.unanswered) == (("a:1", "b:1"), {"b:1", "d:1"})
    assert join(prediction).propensities.keys() == {"a:1", "b:1"}


def test_of_a_model_in_prediction_and_audit_the_prediction_counts():
    twice = join(decided("q", answered("a:1", 0)), audit_of("q", answered("a:1", 1, propensity=0.5), missing("b:1")))
    assert (dict(twice.outputs), dict(twice.propensities)) == ({"a:1": 0}, {"a:1": 1.0, "b:1": 1.0})
    silent = join(decided("q", missing("a:1")), audit_of("q", answered("a:1", 1)))
    assert (dict(silent.outputs), silent.unanswered) == ({}, {"a:1"})


def test_an_output_that_is_left_out_is_null_or_a_list_without_rows():
    prediction, beside = decided("q", answered("a:1", UNSET), output=1), audit_of("q", answered("b:1", 1))
    assert dict(join(prediction, beside).outputs) == {"a:1": None, "b:1": 1}
    prediction.output, prediction.outputs = UNSET, [1, 2]
    decision = join(prediction, beside)
    assert (decision.several_rows, decision.answer, dict(decision.outputs)) == (True, [1, 2], {"a:1": [], "b:1": []})


def test_a_feedback_gives_a_label_or_a_loss():
    assert feedback_value(Feedback(query_id="q", label=None)) == Label(None)
    assert feedback_value(Feedback(query_id="q", loss=1)) == GivenLoss(1.0)
    assert feedback_value(Feedback(query_id="q", reward=0.75)) == GivenLoss(0.25)


def test_feedback_that_names_another_context_disagrees():
    prediction = decided("q", answered("a:1", 1), context="ada")
    assert disagreement(Feedback(query_id="q", label=1), prediction) is None
    assert disagreement(Feedback(query_id="q", label=1, application="digits", context="ada"), prediction) is None
    reason = disagreement(Feedback(query_id="q", label=1, context="bob"), prediction)
    assert reason == "context is 'bob', but query 'q' was about 'ada': correct it or leave it out"


@pytest.mark.parametrize(("policy", "chosen"), [(None, False), (NAMED, False), ("exp3", True)])
def test_no_policy_chose_the_models_that_a_query_names(policy, chosen):
    prediction = decided("q", answered("a:1", 1))
    prediction.policy = policy and PolicyRef(name=policy)
    assert is_policy_choice(prediction) is chosen


def test_the_loss_of_the_answer_is_about_what_the_application_got():
    def loss(prediction, feedback, kind="zero_one"):
        return answer_loss(join(prediction), feedback, kind)

    given, label = GivenLoss(0.25), Label(1.0)
    assert loss(decided("q", answered("a:1", 0.5)), label, "absolute") == 0.5
    assert loss(decided("q", answered("a:1", 0.5)), given) == 0.25
    assert loss(decided("q", missing("a:1"), output=1.0), label) == 1.0, "nobody answered"
    unsure = decided("q", answered("a:1", 0), output=1.0, default=True, reason="low_confidence")
    assert loss(unsure, label) == 0.0
    unlike = decided("q", answered("a:1", 1.0), output="unsure", default=True, reason="low_confidence")
    assert (loss(unlike, label), loss(unlike, label, "absolute")) == (1.0, 1.0)


def test_a_probability_that_is_none_scores_nobody():
    with pytest.raises(InvalidLabel, match=r"propensity 1\.5 of a:1"):
        score(join(decided("q", answered("a:1", 1, propensity=1.5))), Label(1), "zero_one")
