import json

import numpy as np
import pytest
from builders.columns import logged

from clipper_stream.errors import InvalidSetting, ModelUnavailable
from clipper_stream.evaluation.log.new_model import ModelAnswers, PlacedAnswers, answers_of, with_new_model
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runtimes.python_function import FunctionModel

NAN = float("nan")
PAIR = RowSpec("int64", (2,))


def one(row):
    return json.dumps({"input": row})


def said(*output, several=False):
    return ModelAnswers(output=output, several_rows=[several] * len(output), error=[None] * len(output))


@pytest.mark.parametrize(
    ("spec", "rows", "most_rows", "outputs", "batches"),
    [
        pytest.param(
            PAIR, [[number, 1] for number in range(5)], 2, ["1", "2", "3", "4", "5"], [(2, 2), (2, 2), (1, 2)],
            id="batches are no larger than said",
        ),
        pytest.param(PAIR, ["x", [1, 2]], 10, [None, "3"], [(1, 2)], id="a row that does not fit is not asked"),
        pytest.param(
            RowSpec("int64"), [[1], [2], [1, 2], [3]], 10, ["1", "2", "3", "3"], [(2, 1), (1, 2), (1, 1)],
            id="rows of different lengths are not mixed",
        ),
    ],
)  # fmt: skip
def test_rows_are_asked_in_batches(spec, rows, most_rows, outputs, batches):
    shapes = []
    model = FunctionModel(lambda asked: (shapes.append(asked.shape), asked.sum(axis=1))[1])
    answers = answers_of(model, spec, [one(row) for row in rows], most_rows)
    assert answers.output == outputs
    assert shapes == batches
    assert [(error or "").partition(":")[0] for error in answers.error] == [
        "" if said else "InvalidInput" for said in outputs
    ]


def test_a_row_on_which_the_model_fails_costs_that_row():
    def reciprocal(rows):
        if (rows == 0).any():
            raise ZeroDivisionError("a zero")
        return (1.0 / rows).sum(axis=1)

    answers = answers_of(FunctionModel(reciprocal), PAIR, [one([1, 1]), one([0, 1]), one([2, 2])], 10)
    assert answers.output == ["2.0", None, "1.0"]
    assert answers.error[1] == "ZeroDivisionError: a zero"
    assert answers.failed == 1


def test_a_query_of_several_rows_has_a_list_and_a_null_for_a_row_that_failed():
    model = FunctionModel(lambda rows: rows.sum(axis=1))
    queries = [json.dumps({"inputs": [[1, 1], "x", [2, 2]]}), one([3, 3])]
    answers = answers_of(model, PAIR, queries, 10)
    assert answers.output == ["[2, null, 4]", "6"]
    assert answers.several_rows == [True, False]
    assert answers.failed == 1


def test_texts_are_asked_as_lists():
    answers = answers_of(FunctionModel(lambda rows: [len(row) for row in rows]), RowSpec("text"), [one("abc")], 10)
    assert answers.output == ["3"]


def test_a_server_that_is_not_there_says_nothing_about_the_model():
    def nobody(rows):
        raise ModelUnavailable("connection refused")

    with pytest.raises(ModelUnavailable, match="connection refused"):
        answers_of(FunctionModel(nobody), PAIR, [one([1, 1])], 10)


def test_a_failure_is_a_loss_of_one_and_a_lost_query_says_nothing():
    columns = logged([[1.0]] * 3, [[0.0]] * 3, labels=[3, 3, 3], partition=[0, 1, 1], query_offset=[5, 5, 6])
    wider = with_new_model(columns, "new:2", PlacedAnswers.of([1, 0], [5, 5], said("3", None)), "zero_one")
    assert wider.loss[:, 1].tolist() == pytest.approx([1.0, 0.0, NAN], nan_ok=True)
    assert wider.propensity[:, 1].tolist() == [1.0, 1.0, 0.0]
    assert wider.answered[:, 1].tolist() == [True, True, False]
    assert wider.values[wider.output[1, 1]] == "3"


def test_several_rows_are_compared_row_by_row():
    columns = logged([[1.0]], [[0.0]], labels=[["a", "b"]])
    for several, loss in ((True, 0.5), (False, 1.0)):
        answers = PlacedAnswers.of([0], [0], said('["a", "c"]', several=several))
        assert with_new_model(columns, "new:2", answers, "zero_one").loss[0, 1] == loss


def test_an_output_of_another_form_than_the_label_must_not_gain_by_it():
    columns = logged([[1.0]], [[0.25]], labels=[0.5])
    wider = with_new_model(columns, "new:2", PlacedAnswers.of([0], [0], said('"cat"')), "absolute")
    assert wider.loss[0, 1] == 1.0


@pytest.mark.parametrize("given", [{"label": [-1]}, {"feedback_offset": [-1]}])
def test_without_a_label_its_loss_is_not_known(given):
    columns = logged([[1.0]], [[0.0]], **given)
    wider = with_new_model(columns, "new:2", PlacedAnswers.of([0], [0], said("3")), "zero_one")
    assert np.isnan(wider.loss[0, 1])
    unasked = with_new_model(columns, "new:2", PlacedAnswers.of([], [], said()), "zero_one")
    assert unasked.propensity[:, 1].tolist() == [0.0]


def test_a_model_that_is_in_the_log_is_not_replaced():
    columns = logged([[1.0]], [[0.0]], labels=[3])
    with pytest.raises(InvalidSetting, match="'m0:1' is there"):
        with_new_model(columns, "m0:1", PlacedAnswers.of([0], [0], said("3")), "zero_one")
