"""Who is scored, with which loss and at which probability, where `replay/test_log_stories.py` does not tell it."""

import pytest

from clipper_stream.errors import InvalidLabel
from clipper_stream.feedback.update import GivenLoss, Label, LoggedDecision, fold, score
from clipper_stream.selection.policies.exp4 import Exp4
from clipper_stream.selection.state import ModelTotals, SelectionState

MODELS = ("a:1", "b:1", "c:1")
LONE = dict(outputs={"a:1": 3}, propensities={"a:1": 0.25}, served=("a:1",), answer=3)
ENSEMBLE = dict(
    outputs={"a:1": 3, "b:1": 4, "c:1": "3"}, propensities=dict.fromkeys(MODELS, 1.0), served=MODELS, answer=3
)
AUDIT = dict(
    outputs={"a:1": 3, "b:1": 4}, propensities={"a:1": 0.55, "b:1": 0.95}, served=("a:1",), served_propensity=0.1,
    answer=3,
)  # fmt: skip
SILENT = dict(outputs={}, default=True, answer=0)
ROWS = dict(outputs={"a:1": [1, 2], "b:1": [1, 3]}, answer=[1, 2], several_rows=True)


def decided(logged, **changes):
    return LoggedDecision(**(logged | changes))


# A decision and what the application said: by model the loss, and the probability with which it was to be scored.
SCORED = {
    "outputs beside a default answer": (decided(ENSEMBLE, default=True, answer=None), Label(4),
        {"a:1": (1.0, 1.0), "b:1": (0.0, 1.0), "c:1": (1.0, 1.0)}),
    "the mean over rows": (decided(ENSEMBLE, **ROWS | {"outputs": {"a:1": [1, 2], "b:1": [1, None]}}), Label([1, 2]),
        {"a:1": (0.0, 1.0), "b:1": (0.5, 1.0)}),
    "a served model that is missing, at its serving odds": (
        decided(AUDIT, **SILENT | {"outputs": {"b:1": 4}}), Label(4), {"a:1": (1.0, 0.1), "b:1": (0.0, 0.95)}),
    "not an audited model that did not answer": (decided(AUDIT, outputs={"a:1": 3}), Label(4), {"a:1": (1.0, 0.55)}),
    "not who is missing from an ensemble": (decided(ENSEMBLE, outputs={"a:1": 3}), Label(3), {"a:1": (0.0, 1.0)}),
    "by a loss who alone made the answer": (decided(AUDIT, answer=3.4), GivenLoss(0.25), {"a:1": (0.25, 0.1)}),
    "by a loss those who said what the answer was": (
        decided(ENSEMBLE), GivenLoss(0.75), {"a:1": (0.75, 1.0), "c:1": (0.75, 1.0)}),
    "by a loss nobody who said something else": (decided(ENSEMBLE, answer=3.4), GivenLoss(0.75), {}),
    "by a loss those who agree in all rows": (decided(ENSEMBLE, **ROWS), GivenLoss(0.5), {"a:1": (0.5, 1.0)}),
    "by the loss of a default nobody who answered alone": (decided(LONE, default=True, answer=9), GivenLoss(1.0), {}),
    "by the loss of a default nobody of an ensemble": (decided(ENSEMBLE, default=True), GivenLoss(1.0), {}),
    "an output of another kind, as wrong": (
        decided(AUDIT, outputs={"a:1": 3, "b:1": [0]}), Label([0]), {"a:1": (1.0, 0.55), "b:1": (0.0, 0.95)}),
}  # fmt: skip


@pytest.mark.parametrize(("decision", "truth", "expected"), SCORED.values(), ids=SCORED)
def test_those_are_scored_whom_the_truth_is_about(decision, truth, expected):
    scores = score(decision, truth, "zero_one")
    assert scores.losses == {model: loss for model, (loss, _) in expected.items()}
    assert scores.propensities == {model: propensity for model, (_, propensity) in expected.items()}


def test_folding_what_scores_nobody_forgets_nothing():
    before = SelectionState({"a:1": ModelTotals(1.0, 1.0, 1.0, 1.0)})
    assert fold(before, decided(ENSEMBLE, answer=9), GivenLoss(1.0), Exp4(half_life=1.0), "zero_one") == before


@pytest.mark.parametrize("logged", [AUDIT, ENSEMBLE | {"outputs": {"a:1": 3, "b:1": 0.5}}])
def test_a_label_of_another_kind_than_all_outputs_is_refused(logged):
    with pytest.raises(InvalidLabel, match="give the label as the models give their outputs"):
        score(decided(logged), Label("setosa"), "zero_one")


@pytest.mark.parametrize("propensities", [{}, {"a:1": 1.5}, {"a:1": 0.0}])
def test_an_output_with_no_possible_propensity_is_refused(propensities):
    with pytest.raises(InvalidLabel, match="propensity"):
        score(decided(LONE, propensities=propensities, served_propensity=0.5), Label(3), "zero_one")


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan"), True, "0.5", None])
def test_a_given_loss_or_reward_outside_its_bounds_is_refused(value):
    with pytest.raises(InvalidLabel, match="loss is"):
        GivenLoss(value)
    with pytest.raises(InvalidLabel, match="reward is"):
        GivenLoss.of_reward(value)
