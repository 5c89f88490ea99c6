import numpy as np
import pytest

from clipper_stream.evaluation.log.arrays import logged
from clipper_stream.evaluation.log.ensembles import ANY_CONTEXT, Answering, combined_losses, with_ensemble

ALIKE = {"m0:1": 1.0, "m1:1": 1.0, "m2:1": 1.0}
NAN = float("nan")


def asked(outputs, labels, **columns):
    rows, models = len(outputs), len(outputs[0])
    propensity = columns.pop("propensity", np.ones((rows, models)))
    return logged(propensity, np.zeros((rows, models)), outputs=outputs, labels=labels, **columns)


def losses(columns, weights=ALIKE, **answering):
    by_context = weights if 0 in weights else {ANY_CONTEXT: weights}
    return combined_losses(columns, columns.models, by_context, Answering(**answering)).tolist()


def test_the_majority_answers():
    columns = asked([["a", "a", "b"], ["a", "b", "b"]], ["a", "a"])
    assert losses(columns) == [0.0, 1.0]


def test_weights_decide_against_the_majority():
    columns = asked([["a", "b", "b"]], ["a"])
    assert losses(columns, {"m0:1": 3.0, "m1:1": 1.0, "m2:1": 1.0}) == [0.0]


def test_weights_may_differ_by_context():
    columns = asked([["a", "b", "b"]] * 2, ["a", "a"], contexts=("x", "y"), context=[0, 1])
    heavy = {"m0:1": 3.0, "m1:1": 1.0, "m2:1": 1.0}
    assert losses(columns, {0: heavy, 1: ALIKE}) == [0.0, 1.0]


def test_numbers_are_averaged():
    columns = asked([[1.0, 0.0, 0.5]], [0.75])
    assert losses(columns, combiner="mean", loss="absolute") == [0.25]


def test_models_that_agree_too_little_leave_the_default():
    columns = asked([["a", "b", "c"], ["a", "a", "c"]], ["a", "a"])
    assert losses(columns, confidence_threshold=0.5, default_output="none") == [1.0, 0.0]
    assert losses(columns, confidence_threshold=0.9, default_output="a") == [0.0, 0.0]


def test_a_late_member_lowers_the_confidence_and_the_others_answer():
    columns = asked([["a", "a", None]], ["a"])
    assert losses(columns) == [0.0]
    assert losses(columns, confidence_threshold=0.7, default_output="none") == [1.0]


def test_nobody_answered_is_a_loss_of_one():
    columns = asked([[None, None, None]], ["a"])
    assert losses(columns, default_output="a") == [1.0]


def test_where_a_member_was_not_asked_nothing_is_known():
    columns = asked([["a", "a", "a"]], ["a"], propensity=[[1.0, 1.0, 0.0]])
    assert losses(columns) == pytest.approx([NAN], nan_ok=True)


def test_where_there_is_no_label_nothing_is_known():
    columns = asked([["a", "a", "a"]], ["a"], label=[-1])
    assert losses(columns) == pytest.approx([NAN], nan_ok=True)


def test_an_output_that_was_not_written_down_is_not_taken_for_a_late_one():
    columns = asked([["a", "a", "a"]], ["a"], output=[[0, 0, -1]], answered=[[True, True, True]])
    assert losses(columns) == pytest.approx([NAN], nan_ok=True)


@pytest.mark.parametrize("loss", ["zero_one", "absolute"])
def test_an_answer_that_a_label_cannot_be_compared_with_has_the_full_loss(loss):
    columns = asked([[1.0, 2.0, 3.0]], [2.0])
    assert losses(columns, loss=loss, confidence_threshold=0.9, default_output="unsure") == [1.0]


def test_outputs_that_cannot_be_combined_are_no_answer():
    columns = asked([["a", "b", "c"]], ["a"])
    assert losses(columns, combiner="mean") == [1.0]


def test_equal_rows_far_apart_have_equal_losses():
    rng = np.random.default_rng(5)
    outputs = rng.integers(0, 4, (500, 3)).tolist()
    labels = rng.integers(0, 4, 500).tolist()
    columns = asked(outputs, labels)
    answering = Answering()
    one_by_one = [
        answering.loss_of(dict(zip(columns.models, row, strict=True)), ALIKE, 3, label)
        for row, label in zip(outputs, labels, strict=True)
    ]
    assert losses(columns) == one_by_one


def test_as_many_values_as_do_not_fit_one_number_are_told_apart():
    columns = asked([[f"{row}-{model}" for model in range(3)] for row in range(4)], ["0-0", "1-0", "x", "x"])
    values = tuple(columns.values)
    wide = np.asarray(columns.output, np.int32)
    from clipper_stream.evaluation.log.columns import distinct_rows

    far = np.column_stack([wide] * 20).astype(np.int32) + len(values)
    different, place = distinct_rows(np.vstack([far, far]))
    assert len(different) == 4
    assert np.array_equal(different[place], np.vstack([far, far]))


def test_a_query_of_several_rows_is_answered_row_by_row():
    """As by a router: a row that one member left out is answered by the others."""
    outputs = [
        [["a", "b"], ["a", "c"], ["x", "b"]],
        [["a", None], ["a", "c"], ["x", "c"]],
        [["a", None], [], ["b", None]],
    ]
    labels = [["a", "b"], ["a", "x"], ["a", "b"]]
    columns = asked(outputs, labels, several_rows=[True] * 3)
    assert losses(columns) == [0.0, 0.5, 1.0]
    assert losses(columns, confidence_threshold=0.7, default_output="b") == [0.5, 1.0, 1.0]
    numbers = asked([[[1.0, 3.0], [3.0, 5.0]]], [[2.0, 4.0]], several_rows=[True])
    assert losses(numbers, {"m0:1": 1.0, "m1:1": 1.0}, combiner="mean", loss="squared") == [0.0]


def test_an_ensemble_is_a_column_with_the_probability_of_asking_all():
    columns = asked(
        [["a", "b"], ["a", None]],
        ["b", "a"],
        propensity=[[0.625, 0.625], [0.625, 0.0]],
        served=[[True, False]] * 2,
        served_propensity=0.5,
    )
    wider = with_ensemble(columns, "both", columns.models, {ANY_CONTEXT: {"m0:1": 1.0, "m1:1": 2.0}}, Answering())
    assert wider.models == (*columns.models, "both")
    assert wider.propensity[:, -1].tolist() == [0.25, 0.0]
    assert wider.loss[:, -1].tolist() == pytest.approx([0.0, NAN], nan_ok=True)
    assert wider.answered[:, -1].tolist() == [True, False]
