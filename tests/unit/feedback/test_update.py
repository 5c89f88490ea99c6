"""The learning step: who is scored by what the application said, with which loss and at which probability."""

import pytest

from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.update import LoggedDecision, fold, score
from clipper_stream.feedback.values import GivenLoss, Label
from clipper_stream.selection.policies.exp3 import Exp3
from clipper_stream.selection.policies.exp4 import Exp4
from clipper_stream.selection.state import ModelTotals, SelectionState


def lone(**changes) -> LoggedDecision:
    logged = dict(outputs={"a:1": 3}, propensities={"a:1": 0.25}, served=("a:1",), answer=3)
    return LoggedDecision(**(logged | changes))


def ensemble(**changes) -> LoggedDecision:
    models = ("a:1", "b:1", "c:1")
    logged = dict(
        outputs={"a:1": 3, "b:1": 4, "c:1": "3"}, propensities=dict.fromkeys(models, 1.0), served=models, answer=3
    )
    return LoggedDecision(**(logged | changes))


def audit(**changes) -> LoggedDecision:
    logged = dict(
        outputs={"a:1": 3, "b:1": 4},
        propensities={"a:1": 0.55, "b:1": 0.95},
        served=("a:1",),
        served_propensity=0.1,
        answer=3,
    )
    return LoggedDecision(**(logged | changes))


def test_a_label_scores_the_model_that_was_asked():
    assert score(lone(), Label(3), "zero_one").losses == {"a:1": 0.0}
    assert score(lone(), Label(4), "zero_one").losses == {"a:1": 1.0}


def test_a_label_scores_every_model_of_an_ensemble_by_its_own_output():
    assert score(ensemble(), Label(3), "zero_one").losses == {"a:1": 0.0, "b:1": 1.0, "c:1": 0.0}


def test_a_label_scores_audited_models_at_the_probability_of_asking_them():
    scores = score(audit(), Label(3), "zero_one")
    assert scores.losses == {"a:1": 0.0, "b:1": 1.0}
    assert scores.propensities == {"a:1": 0.55, "b:1": 0.95}


def test_a_label_scores_outputs_even_if_the_default_was_given():
    scores = score(ensemble(default=True, answer=None), Label(4), "zero_one")
    assert scores.losses == {"a:1": 1.0, "b:1": 0.0, "c:1": 1.0}


def test_a_label_scores_the_mean_over_rows():
    logged = ensemble(outputs={"a:1": [1, 2], "b:1": [1, None]}, answer=[1, 2], several_rows=True)
    assert score(logged, Label([1, 2]), "zero_one").losses == {"a:1": 0.0, "b:1": 0.5}


def test_a_lone_model_that_did_not_answer_has_the_full_loss():
    for truth in (Label(3), GivenLoss(0.25)):
        scores = score(lone(outputs={}, default=True, answer=0), truth, "zero_one")
        assert (scores.losses, scores.propensities) == ({"a:1": 1.0}, {"a:1": 0.25})


def test_a_served_model_missing_in_the_audit_is_scored_at_its_serving_odds():
    scores = score(audit(outputs={"b:1": 4}, default=True, answer=0), Label(4), "zero_one")
    assert scores.losses == {"a:1": 1.0, "b:1": 0.0}
    assert scores.propensities == {"a:1": 0.1, "b:1": 0.95}


def test_an_audited_model_that_did_not_answer_is_not_scored():
    assert score(audit(outputs={"a:1": 3}), Label(4), "zero_one").losses == {"a:1": 1.0}


def test_a_model_missing_from_an_ensemble_is_not_scored():
    assert score(ensemble(outputs={"a:1": 3}), Label(3), "zero_one").losses == {"a:1": 0.0}


def test_a_given_loss_scores_the_model_that_alone_made_the_answer():
    scores = score(audit(), GivenLoss(0.25), "zero_one")
    assert (scores.losses, scores.propensities) == ({"a:1": 0.25}, {"a:1": 0.1})


def test_a_given_loss_of_an_ensemble_scores_those_who_said_what_the_answer_was():
    assert score(ensemble(), GivenLoss(0.75), "zero_one").losses == {"a:1": 0.75, "c:1": 0.75}


def test_a_given_loss_of_a_mean_that_no_model_gave_scores_nobody():
    assert score(ensemble(answer=3.4), GivenLoss(0.75), "absolute").losses == {}


def test_a_given_loss_of_several_rows_scores_those_who_agree_in_all():
    logged = ensemble(outputs={"a:1": [1, 2], "b:1": [1, 3]}, answer=[1, 2], several_rows=True)
    assert score(logged, GivenLoss(0.5), "zero_one").losses == {"a:1": 0.5}


@pytest.mark.parametrize("logged", [lone(default=True, answer=9), ensemble(default=True, answer=9)])
def test_a_given_loss_of_the_default_scores_nobody_who_answered(logged):
    assert score(logged, GivenLoss(1.0), "zero_one").losses == {}


def test_folding_adds_the_losses_and_leaves_the_state_before_alone():
    before = SelectionState({"a:1": ModelTotals(1.0, 0.0, 2.0, 0.0)})
    learned = fold(before, lone(), Label(4), Exp3(), "zero_one")
    assert learned.losses == {"a:1": 1.0}
    assert learned.state.of("a:1") == ModelTotals(2.0, 1.0, 6.0, 4.0)
    assert before.of("a:1").count == 1.0


def test_folding_what_scores_nobody_forgets_nothing():
    before = SelectionState({"a:1": ModelTotals(1.0, 1.0, 1.0, 1.0)})
    assert fold(before, ensemble(answer=9), GivenLoss(1.0), Exp4(half_life=1.0), "zero_one").state == before


def test_a_label_that_cannot_be_compared_is_refused():
    with pytest.raises(InvalidLabel):
        fold(SelectionState(), lone(), Label("cat"), Exp3(), "absolute")


@pytest.mark.parametrize("label", ["setosa", {"species": "setosa"}, [0]])
def test_a_label_of_another_kind_than_all_outputs_is_refused_and_scores_nobody(label):
    for logged in (lone(), audit(), ensemble(outputs={"a:1": 3, "b:1": 0.5}), lone(default=True, low_confidence=True)):
        with pytest.raises(InvalidLabel, match="of different kinds: give the label as the models give their outputs"):
            score(logged, Label(label), "zero_one")
    assert score(audit(outputs={"a:1": 3, "b:1": label}), Label(label), "zero_one").losses == {"a:1": 1.0, "b:1": 0.0}


def test_an_incomparable_output_keeps_no_other_model_from_learning():
    """A shadow that answers in words, say, would have sent all feedback of its application to the dead letters."""
    for logged in (audit(outputs={"a:1": 3.5, "b:1": "cat"}), ensemble(outputs={"a:1": 3.5, "b:1": [1], "c:1": 3.0})):
        scores = score(logged, Label(3.5), "absolute")
        assert (scores.losses["a:1"], scores.losses["b:1"]) == (0.0, 1.0)
    with pytest.raises(InvalidLabel):
        score(audit(outputs={"a:1": 3.5, "b:1": "cat"}), Label("dog"), "absolute")


def test_an_output_that_the_log_gives_no_propensity_is_refused():
    with pytest.raises(InvalidLabel, match="propensity"):
        fold(SelectionState(), lone(propensities={}, served_propensity=0.5), Label(3), Exp3(), "zero_one")


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), True, "0.5", None])
def test_a_given_loss_or_reward_outside_its_bounds_is_refused(value):
    with pytest.raises(InvalidLabel, match="loss is"):
        GivenLoss(value)
    with pytest.raises(InvalidLabel, match="reward is"):
        GivenLoss.of_reward(value)


def test_a_reward_is_the_loss_that_is_left():
    assert GivenLoss.of_reward(1) == GivenLoss(0.0)
