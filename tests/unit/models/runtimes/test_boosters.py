import json
from dataclasses import replace

import numpy as np
import pytest
from builders.boosters import CLASSES, FIRST, TWO, X, trained
from builders.host import CountingModel

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.python_function import FunctionModel

OBJECTIVES = {
    "lightgbm": dict(two="binary", three="multiclass", numbers="regression", shares="cross_entropy"),
    "xgboost": dict(two="binary:logistic", three="multi:softprob", numbers="reg:squarederror", top="multi:softmax"),
}
THREE = dict(labels=CLASSES, num_class=3)
TRAINING = {"two": {}, "three": THREE, "top": THREE, "numbers": dict(labels=FIRST), "shares": {}}
runtimes = pytest.mark.parametrize("runtime", OBJECTIVES)


@pytest.fixture
def made(tmp_path, loaded):
    def make(runtime, kind="two", name="model.ubj", **parameters):
        booster = trained(runtime, tmp_path / name, objective=OBJECTIVES[runtime][kind], **TRAINING[kind])
        return loaded(runtime, (tmp_path / name).read_bytes(), parameters), booster

    return make


LEVELS = ["low", "mid", "high"]
OUTPUTS = [
    ("two", {}, lambda values: values >= 0.5),
    ("two", {"output": "value"}, lambda values: values),
    ("two", {"output": "probabilities"}, lambda values: np.stack([1 - values, values], axis=1)),
    ("two", {"threshold": 0.0}, np.ones_like),
    ("two", {"threshold": 1.0}, np.zeros_like),
    ("two", {"threshold": 0.7, "labels": ["no", "yes"]}, lambda values: np.where(values >= 0.7, "yes", "no")),
    ("three", {}, lambda values: values.argmax(axis=1)),
    ("three", {"output": "probabilities"}, lambda values: values),
    ("three", {"labels": LEVELS}, lambda values: [LEVELS[best] for best in values.argmax(axis=1)]),
    ("numbers", {}, lambda values: values),
    ("shares", {}, lambda values: values),
    ("top", {}, lambda values: values),
]


@pytest.mark.parametrize(
    ("runtime", "kind", "parameters", "expected"),
    [(runtime, *row) for runtime in OBJECTIVES for row in OUTPUTS if row[0] in OBJECTIVES[runtime]],
)
def test_outputs_are_made_of_the_values_of_the_library(made, runtime, kind, parameters, expected):
    model, booster = made(runtime, kind, **parameters)
    outcome = predict_rows(model, X)
    values = booster.predict(X) if runtime == "lightgbm" else booster.inplace_predict(X)
    np.testing.assert_array_equal(outcome.outputs, expected(values))
    assert (outcome.failed, outcome.calls) == ({}, 1)
    label = str if "labels" in parameters else float if kind in {"numbers", "shares"} else int
    plain = {"value": float, "probabilities": list}.get(parameters.get("output"), label)
    assert {type(output) for output in outcome.outputs} == {plain}


@runtimes
def test_labels_are_the_classes_that_the_booster_was_trained_with(made, runtime):
    for kind, truth in (("two", TWO), ("three", CLASSES)):
        assert np.mean(np.array(predict_rows(made(runtime, kind)[0], X).outputs) == truth) > 0.95


@runtimes
def test_rows_of_any_numeric_dtype_and_of_two_dimensions_are_taken(made, runtime):
    model, _ = made(runtime, output="value")
    rows = np.arange(12).reshape(3, 2, 2) % 5
    expected = predict_rows(model, rows.reshape(3, 4).astype("float64")).outputs
    for dtype in ("float32", "float64", "int32", "int64", "uint8"):
        assert predict_rows(model, rows.astype(dtype)).outputs == expected


@runtimes
def test_rows_of_another_form_fail_with_the_form_that_is_wanted(made, runtime):
    for rows in (np.zeros((2, 3), "float32"), ["a", "b"]):
        outcome = predict_rows(made(runtime)[0], rows)
        assert outcome.outputs == [None, None]
        assert all("give the model" in why for why in outcome.failed.values())


@runtimes
def test_a_whole_batch_is_one_call_of_the_library(made, runtime):
    model, _ = made(runtime)
    counting = CountingModel(FunctionModel(model.values))
    assert len(replace(model, values=counting.predict_batch).predict_batch(X)) == len(X)
    assert counting.sizes == [len(X)]


@runtimes
@pytest.mark.parametrize(("kind", "labels"), [("two", ["no", "yes"]), ("three", None)])
def test_a_label_has_its_probability(made, runtime, kind, labels):
    model, _ = made(runtime, kind, confidence=True, labels=labels)
    probable, _ = made(runtime, kind, output="probabilities", labels=labels)
    outputs = predict_rows(model, X).outputs
    matrix = probable.predict_batch(X)
    assert [output["confidence"] for output in outputs] == pytest.approx(matrix.max(axis=1).tolist())
    assert [output["label"] for output in outputs] == [(labels or range(3))[best] for best in matrix.argmax(axis=1)]


@runtimes
@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("two", {"output": "labels"}, "give one of label, probabilities, value"),
        ("two", {"labels": ["a"]}, "labels has 1 names, and the booster has 2 classes: give one name a class"),
        ("numbers", {"output": "label"}, 'tells no classes apart: use output = "value"'),
        ("numbers", {"confidence": True}, 'tells no classes apart: use output = "value"'),
        ("numbers", {"output": "probabilities"}, 'tells no classes apart: use output = "value"'),
    ],
)
def test_what_the_booster_cannot_give_is_refused(made, runtime, kind, parameters, message):
    with pytest.raises(ModelNotLoaded, match=message):
        made(runtime, kind, **parameters)


@pytest.mark.parametrize(("runtime", "name"), [("lightgbm", "a.txt"), ("xgboost", "a.ubj"), ("xgboost", "a.json")])
def test_a_file_that_was_cut_off_is_refused_and_does_not_end_the_process(runtime, name, tmp_path, loaded):
    trained(runtime, tmp_path / name, rounds=2)
    content = (tmp_path / name).read_bytes()
    whole = content.index(b"end of trees") if runtime == "lightgbm" else len(content)
    sizes = {*range(12), *range(12, whole, 97), whole - 2, whole - 1}
    for size in sizes if name != "a.ubj" else [size for size in sizes if content[size - 1 : size] != b"}"]:
        with pytest.raises(ModelNotLoaded, match=r"cannot be loaded, .*write it with Booster.save_model"):
            loaded(runtime, content[:size])


@pytest.mark.parametrize("name", ["model.json", "model.ubj"])
def test_xgboost_reads_both_of_its_formats(made, name):
    model, booster = made("xgboost", name=name, output="value")
    assert predict_rows(model, X).outputs == booster.inplace_predict(X).tolist()


def test_a_softmax_has_the_probabilities_of_its_trees(made):
    sums = np.sum(predict_rows(made("xgboost", "top", output="probabilities")[0], X).outputs, axis=1)
    np.testing.assert_allclose(sums, 1.0, rtol=1e-5)


def test_a_booster_that_stopped_early_answers_with_its_best_trees(tmp_path, loaded):
    path = tmp_path / "model.ubj"
    booster = trained("xgboost", path, rounds=20)
    booster.set_attr(best_iteration="3")
    booster.save_model(path)
    best, last = (booster.inplace_predict(X, iteration_range=(0, rounds)).tolist() for rounds in (4, 20))
    assert best != last
    assert predict_rows(loaded("xgboost", path.read_bytes(), {"output": "value"}), X).outputs == best


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_are_those_of_the_manifest(made, threads):
    assert made("lightgbm", threads=threads)[0].values.keywords == {"num_threads": threads}
    booster = made("xgboost", threads=threads)[0].values.func.__self__
    assert json.loads(booster.save_config())["learner"]["generic_param"]["nthread"] == str(threads)
