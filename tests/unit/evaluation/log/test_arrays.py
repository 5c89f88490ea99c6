import numpy as np
import pytest

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.log.arrays import logged
from clipper_stream.evaluation.log.known_losses import known_losses

NAN = float("nan")


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(InvalidSetting, match=r"\(1, 2\) and loss \(1, 1\)"):
        logged([[1.0, 1.0]], [[0.0]])


def test_an_array_that_is_no_column_is_refused():
    with pytest.raises(InvalidSetting, match="'colour'"):
        logged([[1.0]], [[0.0]], colour=[1])


def test_a_column_is_added_once():
    columns = logged([[1.0]], [[0.0]])
    with pytest.raises(InvalidSetting, match="'m0:1' is there"):
        columns.with_model("m0:1", np.zeros(1), np.ones(1))


def test_a_column_has_a_value_for_each_decision():
    with pytest.raises(InvalidSetting, match="1 decisions"):
        logged([[1.0]], [[0.0]]).with_model("new:1", np.zeros(2), np.ones(2))


def test_the_decisions_that_are_given_stay_as_they_are():
    columns = logged([[1.0]], [[0.0]], outputs=[["a"]], labels=["b"])
    columns.with_model("new:1", np.zeros(1), np.ones(1), np.zeros(1, np.int32))
    assert columns.models == ("m0:1",)
    assert columns.loss.tolist() == [[0.0]]


def test_a_label_scores_by_asking_probability_a_given_loss_by_serving():
    columns = logged([[0.625, 0.625]] * 2, [[0.0, 1.0]] * 2, served_propensity=0.5, label=[0, -1])
    assert known_losses(columns).weight.tolist() == [[1.6, 1.6], [2.0, 0.0]]


def test_a_model_that_alone_did_not_answer_is_scored_with_the_probability_of_serving():
    columns = logged([[0.625, 0.625]], [[1.0, 0.0]], served_propensity=0.5, answered=[[False, True]])
    assert known_losses(columns).weight.tolist() == [[2.0, 1.6]]


def test_a_query_that_named_its_models_is_no_evidence_about_a_policy():
    columns = logged([[1.0, 0.0]] * 2, [[1.0, NAN]] * 2, policies=("named", "exp3"), policy=[0, 1])
    assert known_losses(columns).weight.tolist() == [[0.0, 0.0], [1.0, 0.0]]


def test_without_feedback_nothing_is_known():
    columns = logged([[0.5, 0.0], [0.5, 0.0]], [[1.0, NAN], [NAN, NAN]], feedback_offset=[-1, 3])
    assert not known_losses(columns).weight.any()
