"""A prediction, its audit and a feedback as one decision."""

import pytest
from builders.decision_logs import answer, audit_of, decided, missing
from msgspec import UNSET

from clipper_stream.feedback.join import disagreement, join
from clipper_stream.feedback.update import GivenLoss, Label, answer_loss
from clipper_topics.feedback import Feedback

A3 = answer("a:1", 3, 0.5)


def test_an_output_that_is_left_out_is_null_or_a_list_without_rows():
    prediction, beside = decided("q", answer("a:1", UNSET), output=1), audit_of("q", answer("b:1", 1))
    assert dict(join(prediction, beside).outputs) == {"a:1": None, "b:1": 1}
    prediction.output, prediction.outputs = UNSET, [1, 2]
    decision = join(prediction, beside)
    assert (decision.several_rows, decision.answer, dict(decision.outputs)) == (True, [1, 2], {"a:1": [], "b:1": []})


def test_feedback_that_names_another_context_disagrees():
    prediction = decided("q", A3, context="ada")
    assert disagreement(Feedback(query_id="q", label=1), prediction) is None
    assert disagreement(Feedback(query_id="q", label=1, application="digits", context="ada"), prediction) is None
    reason = disagreement(Feedback(query_id="q", label=1, context="bob"), prediction)
    assert reason == "context is 'bob', but query 'q' was about 'ada': correct it or leave it out"


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
