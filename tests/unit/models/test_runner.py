"""A batch is run so that a bad row costs one answer."""

import math

import numpy as np
import pytest
from builders.host import CountingModel, FunctionOfRow

from clipper_stream.errors import ModelUnavailable
from clipper_stream.models.runner import BatchOutcome, explain, predict_rows


def test_a_good_batch_is_one_call():
    model = CountingModel(FunctionOfRow(lambda row: row + 1))
    assert predict_rows(model, [1, 2, 3]) == BatchOutcome([2, 3, 4], {}, calls=1)
    assert model.sizes == [3]


def test_no_rows_are_no_call():
    model = CountingModel(FunctionOfRow(lambda row: row))
    assert predict_rows(model, []) == BatchOutcome([], {}, calls=0)
    assert model.sizes == []


def test_one_bad_row_costs_one_answer():
    model = FunctionOfRow(lambda row: 60 / row)
    outcome = predict_rows(model, [1, 2, 0, 4, 5])
    assert outcome.outputs == [60, 30, None, 15, 12]
    assert outcome.failed == {2: "ZeroDivisionError: division by zero"}


@pytest.mark.parametrize("bad", [0, 1, 500, 1022, 1023])
def test_one_bad_row_costs_a_logarithm_of_calls(bad):
    model = CountingModel(FunctionOfRow(lambda row: 1 / (row - bad)))
    outcome = predict_rows(model, np.arange(1024.0).tolist())
    assert list(outcome.failed) == [bad]
    assert outcome.calls == len(model.sizes) == 1 + 2 * math.log2(1024)


def test_a_model_that_always_raises_fails_every_row_and_raises_nothing():
    model = CountingModel(FunctionOfRow(lambda row: {}[row]))
    outcome = predict_rows(model, list(range(5)))
    assert outcome.outputs == [None] * 5
    assert outcome.failed == {row: f"KeyError: {row}" for row in range(5)}
    assert outcome.calls == 9


def test_a_matrix_is_handed_over_whole_and_in_parts_of_it():
    model = FunctionOfRow(lambda row: float(row.sum()) if row[0] >= 0 else 1 // 0)
    outcome = predict_rows(model, np.array([[1.0, 2.0], [-1.0, 0.0], [3.0, 4.0]]))
    assert outcome.outputs == [3.0, None, 7.0]


class Gives:
    def __init__(self, outputs):
        self.outputs = outputs

    def predict_batch(self, inputs):
        return self.outputs(inputs) if callable(self.outputs) else self.outputs


@pytest.mark.parametrize(
    ("outputs", "words"),
    [
        ([], "0 outputs for 1 rows"),
        ([1, 2, 3], "3 outputs for 1 rows"),
        (None, "gave a NoneType"),
        ("x", "gave a str"),
        (b"x", "gave a bytes"),
        ({"a": 1}, "gave a dict"),
        ({1}, "gave a set"),
        (7, "gave a int"),
        (lambda rows: (row for row in rows), "gave a generator"),
        (np.array(1.0), "TypeError"),
        (lambda rows: [float("nan")], "finite"),
    ],
)
def test_an_answer_of_the_wrong_kind_fails_the_row(outputs, words):
    outcome = predict_rows(Gives(outputs), [1])
    assert outcome.outputs == [None]
    assert words in outcome.failed[0]


def test_a_wrong_number_of_outputs_for_a_batch_is_asked_again_in_parts():
    model = CountingModel(Gives(lambda rows: rows[:1]))
    outcome = predict_rows(model, [1, 2, 3])
    assert outcome == BatchOutcome([1, 2, 3], {}, calls=5)
    assert str(outcome.error) == "the model gave 1 outputs for 2 rows: give one output a row"
    assert predict_rows(model, [1]).error is None


def test_a_model_that_exits_the_process_fails_its_row_only():
    def leave(row):
        raise SystemExit(row)

    assert predict_rows(FunctionOfRow(leave), [3]).failed == {0: "SystemExit: 3"}


def test_a_series_of_another_library_is_read_through_numpy():
    class Series:
        def __array__(self, dtype=None, copy=None):
            return np.array([1.5, 2.5])

        def __len__(self):
            return 2

    assert predict_rows(Gives(Series()), [0, 0]).outputs == [1.5, 2.5]


def test_an_explanation_is_one_short_line_that_utf8_can_hold():
    text = explain(ValueError("a\nb\ud800" + "x" * 1000))
    assert text.startswith("ValueError: a b?xxx")
    assert len(text) == 500


def test_an_error_without_a_readable_text_is_explained_by_its_name():
    class Mute(Exception):
        def __str__(self):
            raise RuntimeError

    assert explain(Mute()) == "Mute"


class Writes:
    """Writes into its rows before it fails over one of them."""

    def predict_batch(self, inputs):
        bad = [row for row in inputs if np.any(np.asarray(row) == 9)]
        if isinstance(inputs, list):
            for row in inputs:
                row.append(100)
            if len(inputs) > 2:
                inputs.clear()
        else:
            inputs += 100
        if bad:
            raise ValueError("nine")
        return [sum(row) for row in inputs]


@pytest.mark.parametrize("rows", [np.array([[1], [9], [2], [3]]), [[1], [9], [2], [3]]])
def test_a_retried_batch_has_the_rows_as_they_came(rows):
    outcome = predict_rows(Writes(), rows)
    assert outcome.outputs == [101, None, 102, 103]
    assert list(outcome.failed) == [1]


class Escape(BaseException):
    def __str__(self):
        raise Escape


@pytest.mark.parametrize("error", [Escape, KeyboardInterrupt, GeneratorExit, SystemExit, RecursionError])
def test_a_model_that_raises_no_exception_but_something_else_fails_its_row_too(error):
    class Raises:
        def predict_batch(self, inputs):
            if 9 in inputs:
                raise error
            return inputs

    outcome = predict_rows(Raises(), [1, 9, 2])
    assert outcome.outputs == [1, None, 2]
    assert outcome.failed == {1: error.__name__}


def test_a_batch_whose_server_is_not_there_is_not_asked_again():
    class Unavailable:
        calls = 0

        def predict_batch(self, inputs):
            self.calls += 1
            raise ModelUnavailable("nobody there")

    model = Unavailable()
    outcome = predict_rows(model, list(range(1000)))
    assert outcome.outputs == [None] * 1000
    assert len(outcome.failed) == 1000
    assert outcome.failed[999] == "ModelUnavailable: nobody there"
    assert outcome.calls == model.calls == 1
