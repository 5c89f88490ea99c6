import math
from unittest.mock import ANY

import numpy as np
import pytest
from builders.host import CountingModel, FunctionOfRow

from clipper_stream.errors import ModelUnavailable
from clipper_stream.models.runner import BatchOutcome, explain, predict_rows
from clipper_stream.models.runtimes.python_function import FunctionModel


def raising(error):
    raise error


class Unprintable(BaseException):
    def __str__(self):
        raise Unprintable


GONE = "ModelUnavailable: gone"
STORIES = {
    "good rows": ([1, 2, 3], lambda row: row + 1, [2, 3, 4], {}, 1),
    "no rows": ([], lambda row: row, [], {}, 0),
    "a bad row": ([1, 0, 4], lambda row: 60 / row, [60, None, 15], {1: "ZeroDivisionError: division by zero"}, 5),
    "bad rows": ([0, 1, 2], lambda row: {}[row], [None] * 3, {row: f"KeyError: {row}" for row in range(3)}, 5),
    "an exit": ([3], lambda row: raising(SystemExit(row)), [None], {0: "SystemExit: 3"}, 1),
    "no server": ([1, 2], lambda row: raising(ModelUnavailable("gone")), [None] * 2, {0: GONE, 1: GONE}, 1),
    "a matrix": (np.eye(2), lambda row: 1 // 0 if row[1] else row.sum(), [1.0, None], {1: ANY}, 3),
}


@pytest.mark.parametrize("story", STORIES)
def test_bad_rows_cost_their_own_answers(story):
    rows, function, outputs, failed, calls = STORIES[story]
    model = CountingModel(FunctionOfRow(function))
    assert predict_rows(model, rows) == BatchOutcome(outputs, failed, calls=calls)
    assert len(model.sizes) == calls


@pytest.mark.parametrize("bad", [0, 1, 500, 1022, 1023])
def test_one_bad_row_costs_a_logarithm_of_calls(bad):
    outcome = predict_rows(FunctionOfRow(lambda row: 1 / (row - bad)), np.arange(1024.0).tolist())
    assert list(outcome.failed) == [bad]
    assert outcome.calls == 1 + 2 * math.log2(1024)


@pytest.mark.parametrize("error", [Unprintable, KeyboardInterrupt, GeneratorExit, SystemExit, RecursionError])
def test_a_model_that_raises_no_exception_but_something_else_fails_its_row_too(error):
    outcome = predict_rows(FunctionOfRow(lambda row: raising(error) if row == 9 else row), [1, 9, 2])
    assert outcome.outputs == [1, None, 2]
    assert outcome.failed == {1: error.__name__}


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([], "0 outputs for 1 rows"),
        ([1, 2, 3], "3 outputs for 1 rows"),
        *((one, f"gave a {type(one).__name__}") for one in (None, "x", b"x", {"a": 1}, {1}, 7, (row for row in [1]))),
        (np.array(1.0), "TypeError"),
        ([float("nan")], "finite"),
    ],
)
def test_an_answer_of_the_wrong_kind_fails_the_row(outputs, words):
    outcome = predict_rows(FunctionModel(lambda rows: outputs), [1])
    assert outcome.outputs == [None]
    assert words in outcome.failed[0]


def test_a_wrong_number_of_outputs_for_a_batch_is_asked_again_in_parts():
    model = FunctionModel(lambda rows: rows[:1])
    outcome = predict_rows(model, [1, 2, 3])
    assert outcome == BatchOutcome([1, 2, 3], {}, calls=5)
    assert str(outcome.error) == "the model gave 1 outputs for 2 rows: give one output a row"
    assert predict_rows(model, [1]).error is None


class Series(list):
    """An array of another library's, whose items are not its values."""

    def __array__(self, dtype=None, copy=None):
        return np.array([1.5, 2.5])


def test_an_array_of_another_library_is_read_through_numpy():
    assert predict_rows(FunctionModel(Series), [0, 0]).outputs == [1.5, 2.5]


def test_an_explanation_is_one_short_line_that_utf8_can_hold():
    text = explain(ValueError("a\nb\ud800" + "x" * 1000))
    assert text.startswith("ValueError: a b?xxx")
    assert len(text) == 500


def write_and_fail(rows):
    """Write into the rows before one of them fails."""
    is_bad = any(np.any(np.asarray(row) == 9) for row in rows)
    if isinstance(rows, list):
        for row in rows:
            row.append(100)
        if len(rows) > 2:
            rows.clear()
    else:
        rows += 100
    return raising(ValueError("nine")) if is_bad else [sum(row) for row in rows]


@pytest.mark.parametrize("rows", [np.array([[1], [9], [2], [3]]), [[1], [9], [2], [3]]])
def test_a_retried_batch_has_the_rows_as_they_came(rows):
    outcome = predict_rows(FunctionModel(write_and_fail), rows)
    assert outcome.outputs == [101, None, 102, 103]
    assert list(outcome.failed) == [1]
