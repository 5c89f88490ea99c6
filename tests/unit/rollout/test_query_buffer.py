import pytest
from builders.rollout_logs import answered, audit_of, decided, missing
from msgspec import UNSET

from clipper_agents.rollout.query_buffer import QueryBuffer
from clipper_agents.rollout.query_losses import apart, losses_of
from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.join import feedback_value, join
from clipper_topics.audit import Audit
from clipper_topics.feedback import Feedback
from clipper_topics.prediction import Prediction


@pytest.fixture
def buffer():
    return QueryBuffer(horizon_s=1.0, most_queries=3)


def truth(query_id="0-1", **fields):
    return Feedback(query_id=query_id, label=1, **fields)


A, B = decided("0-1", answered("a:1", 1)), decided("0-1", answered("b:1", 2))
PREDICTION = decided("0-1", answered("a:1", 1), audited=True)
AUDIT = audit_of("0-1", answered("b:1", 1))


OTHERS = [truth(application="other"), truth(context="other"), truth("0-2")]


@pytest.mark.parametrize(
    "records",
    [[PREDICTION, AUDIT, truth()], [AUDIT, PREDICTION, truth()], [PREDICTION, truth(), AUDIT], [A, *OTHERS, truth()]],
)
def test_a_query_is_complete_with_prediction_audit_if_there_is_to_be_one_and_feedback_about_it(buffer, records):
    take = {Prediction: buffer.prediction, Audit: buffer.audit, Feedback: buffer.feedback}
    *before, joined = [take[type(one)](0, one, at_ms) for at_ms, one in enumerate(records)]
    assert before == [None] * len(before)
    assert (joined.prediction in records, joined.feedback) == (True, truth())
    assert joined.audit == (AUDIT if AUDIT in records else None)


def test_the_first_prediction_and_the_first_feedback_count(buffer):
    buffer.prediction(0, A, 10)
    buffer.prediction(0, B, 11)
    joined = buffer.feedback(0, truth(), 20)
    assert joined.prediction.models[0].model == "a"
    buffer.close(joined)
    assert buffer.feedback(0, truth(), 21) is None
    buffer.prediction(0, B, 22)
    buffer.audit(0, AUDIT, 22)
    assert buffer.feedback(0, truth(), 23) is None
    assert (joined.prediction, joined.audit) == (None, None), "nothing of it is needed any more"


def test_feedback_that_cannot_be_used_leaves_its_place_to_the_next(buffer):
    buffer.prediction(0, A, 10)
    other = buffer.feedback(1, truth(application="digits"), 20)
    assert other is None, "the same id in another partition is another query"
    buffer.reopen(buffer.feedback(0, truth(), 20))
    assert buffer.feedback(0, truth(), 21) is not None


@pytest.mark.parametrize("named", [True, False])
def test_two_applications_under_one_id_have_two_queries(buffer, named):
    buffer.prediction(0, A, 10)
    buffer.prediction(0, decided("0-1", answered("b:1", 2), application="other"), 11)
    buffer.audit(0, audit_of("0-1", answered("c:1", 1), application="other"), 12)
    mine = buffer.feedback(0, truth(application="digits") if named else truth(), 20)
    others = buffer.feedback(0, truth(application="other"), 21)
    assert [one.prediction.models[0].model for one in (mine, others)] == ["a", "b"]
    assert (mine.audit, others.audit.application) == (None, "other")


def test_feedback_without_an_application_is_about_the_first_decision_followed_or_not(buffer):
    buffer.other(0, "0-1", 9)
    buffer.prediction(0, A, 10)
    buffer.other(0, "0-1", 11)
    assert buffer.feedback(0, truth(), 20) is None
    assert buffer.feedback(0, truth(application="digits"), 21) is not None
    buffer.forget(1010)
    buffer.prediction(0, A, 1011)
    assert buffer.feedback(0, truth(), 1012) is not None, "behind the horizon an id may be used again"


def test_behind_the_horizon_a_query_is_forgotten_and_its_waiting_feedback_counted(buffer):
    buffer.prediction(0, PREDICTION, 10)
    buffer.feedback(0, truth(), 20)
    buffer.prediction(0, decided("0-2", answered("a:1", 1)), 30)
    assert buffer.feedback(0, truth("0-2"), 1031) is None
    assert len(buffer) == 0
    assert buffer.dropped == {"no_audit": 1}


def test_of_too_many_queries_the_oldest_is_dropped_and_counted(buffer):
    for number in range(5):
        buffer.prediction(0, decided(f"0-{number}", answered("a:1", 1)), number)
    assert len(buffer) == 3
    assert buffer.dropped == {"full": 2}
    assert buffer.feedback(0, truth("0-1"), 9) is None
    assert buffer.feedback(0, truth("0-2"), 9) is not None


CANDIDATES = {"a:1", "b:1"}


def said(**outputs):
    """Answers of versions 1; `...`: it is late."""
    return [
        missing(f"{name}:1") if output is ... else answered(f"{name}:1", output) for name, output in outputs.items()
    ]


def rows(ref, *outputs):
    one = answered(ref, UNSET)
    one.outputs = list(outputs)
    return one


def losses(served, beside=(), fields=None, kind="zero_one", **told):
    prediction = decided("q", *served, **{"audited": bool(beside)} | (fields or {}))
    decision = join(prediction, audit_of("q", *beside) if beside else None)
    feedback = feedback_value(Feedback(query_id="q", **told or {"label": 1}))
    return decision, losses_of(decision, feedback, CANDIDATES, kind)


UNSURE = {"default": True, "reason": "low_confidence"}
"""A default that the models gave because they agree too little."""


@pytest.mark.parametrize(
    ("served", "beside", "fields", "told", "models", "answer"),
    [
        (said(a=0), said(new=1), {}, {}, {"a:1": 1.0, "new:1": 0.0}, 1.0),
        (said(a=1), [missing("new:1"), missing("b:1", reason="error")], {}, {}, {"a:1": 0.0}, 0.0),
        (said(new=1), said(a=0), {}, {}, {"new:1": 0.0, "a:1": 1.0}, 1.0),
        (said(new=1), said(a=..., other=1), {}, {}, {"new:1": 0.0, "other:1": 0.0}, None),
        (said(new=...), said(a=1), {"output": 1}, {}, {"new:1": 1.0, "a:1": 0.0}, 0.0),
        (said(new=...), (), {"output": 1, "audited": True}, {"loss": 0.0}, {"new:1": 1.0}, None),
        (said(new=1), said(a=0, b=1), {}, {}, {"new:1": 0.0, "a:1": 1.0, "b:1": 0.0}, None),
        (said(new=1), (), {}, {}, {"new:1": 0.0}, None),
        (said(a=0), said(new=1), {}, {"loss": 0.25}, {"a:1": 0.25}, 0.25),
        (said(a=0), said(new=1), {}, {"reward": 0.25}, {"a:1": 0.75}, 0.75),
        (said(new=1), said(a=0), {}, {"loss": 0.25}, {"new:1": 0.25}, None),
        (said(a=0, b=1), said(new=1), {"output": 1}, {}, {"a:1": 1.0, "b:1": 0.0, "new:1": 0.0}, 0.0),
        (said(a=..., b=...), (), {"output": 1}, {}, {}, 1.0),
        (said(a=0, b=2), (), {"output": 1, **UNSURE}, {}, {"a:1": 1.0, "b:1": 1.0}, 0.0),
        (said(a=0), said(a=1, new=1), {}, {}, {"a:1": 1.0, "new:1": 0.0}, 1.0),
    ],
)
def test_a_query_tells_the_losses_of_its_versions_and_of_its_answer(served, beside, fields, told, models, answer):
    """A trial is compared with who served, and a canary with whom the policy would have asked: alone, or nobody knows.

    Who was to serve and did not answer has lost whatever the default was, who is late in an audit is silent. Without a
    label only the answer is known, and who gave it; of a version in both records the prediction counts, as it learns.
    """
    _, found = losses(served, beside, fields, **told)
    assert (dict(found.models), found.answer) == (models, answer)


def test_numbers_whose_loss_stands_at_the_bound_are_counted_for_each_version_and_the_answer():
    beside, fields = [rows("new:1", 10, 40)], {"output": UNSET, "outputs": [2, 19]}
    _, found = losses([rows("a:1", 2, 19)], beside, fields, kind="absolute:10", label=[0, 10])
    assert (dict(found.at_bound), found.answer_at_bound, found.largest) == ({"a:1": 0.0, "new:1": 1.0}, 0.0, 30.0)
    assert losses(said(a=9, new=0), kind="zero_one")[1].at_bound == {}


def test_a_shadow_that_is_late_or_fails_is_silent():
    _, found = losses(said(a=1), [missing("new:1"), missing("other:1", reason="error")])
    assert found.silent == {"new:1", "other:1"}


@pytest.mark.parametrize(
    ("trial", "models"),
    [
        (rows("new:1", 1, None), {"a:1": 0.5, "new:1": 0.5}),
        (answered("new:1", 1), {"a:1": 0.5, "new:1": 1.0}),
    ],
    ids=["a row without an output", "one output for two rows"],
)
def test_queries_of_several_rows_are_scored_row_by_row(trial, models):
    _, found = losses([rows("a:1", 0, 1)], [trial], {"output": UNSET, "outputs": [0, 1]}, label=[1, 1])
    assert (dict(found.models), found.answer) == (models, 0.5)


def test_a_default_for_one_row_can_be_as_far_from_a_trial_as_any_answer():
    """Its loss is 1, although its rows are nearly those that the trial gave."""
    fields = {"output": UNSET, "outputs": [1, 0, 1, 1], "default": True, "reason": "late"}
    decision, found = losses([rows("a:1", 1, None, 1, 1)], [rows("new:1", 1, 1, 1, 1)], fields, label=[1] * 4)
    assert (found.models["new:1"], found.answer) == (0.0, 1.0)
    assert apart(decision, "new:1", ("a:1",), "zero_one") == 1.0


@pytest.mark.parametrize(
    ("served", "beside", "fields", "label", "models", "answer"),
    [
        (said(a=[1.0, 0.0]), said(new=[1.0]), {}, [1.0, 0.0], {"a:1": 0.0, "new:1": 1.0}, 0.0),
        (said(new="?"), said(a=[1.0, 1.0]), {}, [1.0, 0.0], {"new:1": 1.0, "a:1": 0.5}, 0.5),
        (said(a=1.0), said(new=0.5), {"output": "?", **UNSURE}, 1, {"a:1": 0.0, "new:1": 0.5}, 1.0),
    ],
)
def test_an_output_of_another_form_than_a_usable_label_has_lost(served, beside, fields, label, models, answer):
    """It raised InvalidLabel: the feedback was left out, and a version that gives nonsense was never aborted."""
    _, found = losses(served, beside, fields, "absolute", label=label)
    assert (dict(found.models), found.answer) == (models, answer)


def test_a_label_that_fits_nothing_is_refused():
    with pytest.raises(InvalidLabel):
        losses(said(a=1.0), kind="absolute", label="x")
