"""The runtimes `lightgbm` and `xgboost` load what those libraries write, without pickle, and say what they cannot."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from builders.boosters import CLASSES, FIRST, TWO, X, lightgbm_file, loaded, xgboost_file
from builders.host import CountingModel

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.runner import predict_rows

pytestmark = pytest.mark.runtime
pytest.importorskip("lightgbm", reason="the extra lightgbm is not installed")
pytest.importorskip("xgboost", reason="the extra xgboost is not installed")

WRITERS = {"lightgbm": lightgbm_file, "xgboost": xgboost_file}
MANY = {
    "lightgbm": dict(objective="multiclass", labels=CLASSES, num_class=3),
    "xgboost": dict(objective="multi:softprob", labels=CLASSES, num_class=3),
}
NUMBERS = {
    "lightgbm": dict(objective="regression", labels=FIRST),
    "xgboost": dict(objective="reg:squarederror", labels=FIRST),
}
runtimes = pytest.mark.parametrize("runtime", WRITERS)


def own_values(runtime, booster, rows):
    return booster.predict(rows) if runtime == "lightgbm" else booster.inplace_predict(rows)


@runtimes
def test_a_classifier_gives_labels_by_default(runtime, tmp_path):
    for training, truth in (({}, TWO), (MANY[runtime], CLASSES)):
        path, _ = WRITERS[runtime](tmp_path, **training)
        outcome = predict_rows(loaded(runtime, path), X)
        assert {type(output) for output in outcome.outputs} == {int}
        assert np.mean(np.array(outcome.outputs) == truth) > 0.95
        assert outcome.calls == 1


@runtimes
@pytest.mark.parametrize("many", [False, True], ids=["two classes", "three classes"])
def test_probabilities_are_those_of_the_library_one_a_class(runtime, many, tmp_path):
    path, booster = WRITERS[runtime](tmp_path, **(MANY[runtime] if many else {}))
    values = own_values(runtime, booster, X)
    expected = values if many else np.stack([1 - values, values], axis=1)
    outcome = predict_rows(loaded(runtime, path, output="probabilities"), X)
    np.testing.assert_allclose(outcome.outputs, expected)
    assert outcome.failed == {}


@runtimes
def test_a_regression_gives_the_numbers_of_the_library(runtime, tmp_path):
    path, booster = WRITERS[runtime](tmp_path, **NUMBERS[runtime])
    outcome = predict_rows(loaded(runtime, path), X)
    np.testing.assert_array_equal(outcome.outputs, own_values(runtime, booster, X))
    assert {type(output) for output in outcome.outputs} == {float}


@runtimes
def test_classes_have_the_names_that_the_manifest_gives(runtime, tmp_path):
    path, _ = WRITERS[runtime](tmp_path, **MANY[runtime])
    named = predict_rows(loaded(runtime, path, labels=["low", "mid", "high"]), X).outputs
    assert named == [["low", "mid", "high"][number] for number in predict_rows(loaded(runtime, path), X).outputs]


@runtimes
def test_the_threshold_moves_the_label(runtime, tmp_path):
    path, _ = WRITERS[runtime](tmp_path)
    ones = [sum(predict_rows(loaded(runtime, path, threshold=bound), X).outputs) for bound in (0.0, 0.5, 1.0)]
    assert ones == sorted(ones, reverse=True)
    assert ones[0] == len(X)
    assert ones[2] == 0


@runtimes
def test_rows_of_any_numeric_dtype_and_of_two_dimensions_are_taken(runtime, tmp_path):
    path, _ = WRITERS[runtime](tmp_path)
    model = loaded(runtime, path, output="value")
    rows = np.arange(12).reshape(3, 2, 2) % 5
    expected = predict_rows(model, rows.reshape(3, 4).astype("float64")).outputs
    for dtype in ("float32", "float64", "int32", "int64", "uint8"):
        assert predict_rows(model, rows.astype(dtype)).outputs == expected


@runtimes
@pytest.mark.parametrize("rows", [np.zeros((2, 3), "float32"), ["a", "b"]], ids=["three numbers", "texts"])
def test_rows_of_another_form_fail_with_the_form_that_is_wanted(runtime, rows, tmp_path):
    path, _ = WRITERS[runtime](tmp_path)
    outcome = predict_rows(loaded(runtime, path), rows)
    assert outcome.outputs == [None, None]
    assert all("give the model" in why for why in outcome.failed.values())


@runtimes
def test_a_whole_batch_is_one_call_of_the_library(runtime, tmp_path):
    path, _ = WRITERS[runtime](tmp_path)
    model = loaded(runtime, path)
    counting = CountingModel(FromValues(model.values))
    one_call = replace(model, values=counting.predict_batch)
    assert len(one_call.predict_batch(X)) == len(X)
    assert counting.sizes == [len(X)]


class FromValues:
    def __init__(self, values):
        self.predict_batch = values


@runtimes
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"outputs": "label"}, "unknown, the runtime"),
        ({"output": "labels"}, "give one of label, probabilities, value"),
        ({"threads": 0}, r"threads is 0, give an integer in \[1, 1024\]"),
        ({"threads": True}, "threads is True"),
        ({"threshold": 2}, r"give a number in \[0, 1\]"),
        ({"threshold": "0.5"}, r"give a number in \[0, 1\]"),
        ({"labels": "ab"}, "give a list"),
        ({"labels": ["a"]}, "labels has 1 names, and the booster has 2 classes: give one name a class"),
    ],
)
def test_parameters_of_another_form_are_refused(runtime, parameters, message, tmp_path):
    path, _ = WRITERS[runtime](tmp_path)
    with pytest.raises(ModelNotLoaded, match=message):
        loaded(runtime, path, **parameters)


@runtimes
@pytest.mark.parametrize("output", ["label", "probabilities"])
def test_a_regression_has_no_classes_to_tell(runtime, output, tmp_path):
    path, _ = WRITERS[runtime](tmp_path, **NUMBERS[runtime])
    with pytest.raises(ModelNotLoaded, match='tells no classes apart: use output = "value"'):
        loaded(runtime, path, output=output)


@pytest.mark.parametrize(("runtime", "how"), [("lightgbm", {}), ("xgboost", {}), ("xgboost", {"name": "model.json"})])
def test_a_file_that_was_cut_off_is_refused_and_does_not_end_the_process(runtime, how, tmp_path):
    path, _ = WRITERS[runtime](tmp_path, rounds=2, **how)
    content = Path(path).read_bytes()
    whole = content.index(b"end of trees") if runtime == "lightgbm" else len(content)
    for size in {*range(12), *range(12, whole, 97), whole - 2, whole - 1}:
        Path(path).write_bytes(content[:size])
        with pytest.raises(ModelNotLoaded, match=r"cannot be loaded, .*write it with Booster.save_model"):
            loaded(runtime, path)


@pytest.mark.parametrize("name", ["model.json", "model.ubj"])
def test_xgboost_reads_both_of_its_formats(name, tmp_path):
    path, booster = xgboost_file(tmp_path, name=name)
    assert predict_rows(loaded("xgboost", path, output="value"), X).outputs == booster.inplace_predict(X).tolist()


def test_a_softmax_has_the_probabilities_of_its_trees(tmp_path):
    path, booster = xgboost_file(tmp_path, objective="multi:softmax", labels=CLASSES, num_class=3)
    assert predict_rows(loaded("xgboost", path), X).outputs == booster.inplace_predict(X).astype(int).tolist()
    sums = np.sum(predict_rows(loaded("xgboost", path, output="probabilities"), X).outputs, axis=1)
    np.testing.assert_allclose(sums, 1.0, rtol=1e-5)


def test_a_booster_that_stopped_early_answers_with_its_best_trees(tmp_path):
    path, booster = xgboost_file(tmp_path, rounds=20)
    booster.set_attr(best_iteration="3")
    booster.save_model(path)
    best, last = (booster.inplace_predict(X, iteration_range=(0, rounds)).tolist() for rounds in (4, 20))
    assert best != last
    assert predict_rows(loaded("xgboost", path, output="value"), X).outputs == best


@pytest.mark.parametrize("objective", ["cross_entropy", "lambdarank"])
def test_an_objective_of_lightgbm_that_tells_no_classes_gives_values(objective, tmp_path):
    import lightgbm

    data = lightgbm.Dataset(X, TWO, group=[len(X)] if objective == "lambdarank" else None)
    booster = lightgbm.train({"objective": objective, "verbose": -1, "num_threads": 1}, data, 3)
    booster.save_model(tmp_path / "model.txt")
    assert predict_rows(loaded("lightgbm", str(tmp_path / "model.txt")), X).outputs == booster.predict(X).tolist()


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_those_of_the_manifest(threads, tmp_path):
    assert loaded("lightgbm", lightgbm_file(tmp_path)[0], threads=threads).values.keywords == {"num_threads": threads}
    booster = loaded("xgboost", xgboost_file(tmp_path)[0], threads=threads).values.func.__self__
    assert json.loads(booster.save_config())["learner"]["generic_param"]["nthread"] == str(threads)
