"""The runtime `onnx` runs an ONNX file by onnxruntime, whole batches at a time."""

import hashlib
import sys

import numpy as np
import onnx
import pytest
import skl2onnx
from onnx import TensorProto, helper
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models import registry
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.onnx_model import OnnxModel

pytestmark = pytest.mark.runtime

X = np.array([[0, 0], [0, 1], [5, 5], [5, 6]], dtype=np.float32)
Y = np.array([0, 0, 1, 1])
FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING


def loaded(tmp_path, model, parameters=None, **how):
    path = tmp_path / "model.onnx"
    path.write_bytes(model if isinstance(model, bytes) else model.SerializeToString())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return registry.load_model("onnx", str(path), digest, parameters, **how)


def graph(nodes, inputs, outputs, initializers=()):
    """A model of these nodes; inputs and outputs are (name, type, axes)."""
    taken, given = ([helper.make_tensor_value_info(*each) for each in side] for side in (inputs, outputs))
    made = helper.make_graph(nodes, "test", taken, given, list(initializers))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def same(kind, axes):
    return graph([helper.make_node("Identity", ["x"], ["y"])], [("x", kind, axes)], [("y", kind, axes)])


@pytest.fixture(scope="module")
def classifier():
    return LogisticRegression().fit(X, Y)


def test_a_converted_classifier_gives_what_it_gave_before(tmp_path, classifier):
    outcome = predict_rows(loaded(tmp_path, skl2onnx.to_onnx(classifier, X[:1])), X)
    assert outcome.outputs == classifier.predict(X).tolist() == [0, 0, 1, 1]
    assert {type(output) for output in outcome.outputs} == {int}
    assert outcome.calls == 1


@pytest.mark.parametrize("zipmap", [False, True, "columns"])
def test_probabilities_are_given_by_row_whatever_form_the_converter_chose(tmp_path, classifier, zipmap):
    model = skl2onnx.to_onnx(classifier, X[:1], options={"zipmap": zipmap})
    if zipmap == "columns":
        (column,) = [each.name for each in model.graph.output if each.name.endswith("1")]
        outputs = predict_rows(loaded(tmp_path, model, {"output": column}), X).outputs
        assert outputs == pytest.approx(classifier.predict_proba(X)[:, 1].tolist(), abs=1e-5)
        return
    outcome = predict_rows(loaded(tmp_path, model, {"output": "probab"}), X)
    expected = classifier.predict_proba(X).tolist()
    rows = [[row["0"], row["1"]] if zipmap else row for row in outcome.outputs]
    assert np.array(rows) == pytest.approx(np.array(expected), abs=1e-5)
    assert not outcome.failed


def test_scores_become_labels(tmp_path, classifier):
    model = skl2onnx.to_onnx(classifier, X[:1], options={"zipmap": False})
    parameters = {"output": "probabilities", "labels": ["low", "high"]}
    assert predict_rows(loaded(tmp_path, model, parameters), X).outputs == ["low", "low", "high", "high"]
    outcome = predict_rows(loaded(tmp_path, model, {**parameters, "labels": ["low"]}), X)
    assert set(outcome.failed) == {0, 1, 2, 3}
    assert "name one label a column" in outcome.failed[0]


def test_text_labels_are_text(tmp_path):
    tree = DecisionTreeClassifier(random_state=1).fit(X, ["low", "low", "high", "high"])
    assert predict_rows(loaded(tmp_path, skl2onnx.to_onnx(tree, X[:1])), X).outputs == ["low", "low", "high", "high"]


def test_a_column_of_numbers_is_a_number_a_row(tmp_path):
    model = skl2onnx.to_onnx(LinearRegression().fit(X, X.sum(axis=1)), X[:1])
    outputs = predict_rows(loaded(tmp_path, model), X).outputs
    assert outputs == pytest.approx([0, 1, 10, 11], abs=1e-4)
    assert {type(output) for output in outputs} == {float}


def test_rows_of_another_type_are_given_as_the_type_that_the_model_takes(tmp_path, classifier):
    model = loaded(tmp_path, skl2onnx.to_onnx(classifier, X[:1]))
    for dtype in ("float64", "int32", "uint8"):
        assert predict_rows(model, X.astype(dtype)).outputs == [0, 0, 1, 1]


@pytest.mark.parametrize("axes", [["n"], ["n", 1]])
def test_texts_go_into_an_input_of_strings(tmp_path, axes):
    assert predict_rows(loaded(tmp_path, same(STRING, axes)), ["good", "nächt"]).outputs == ["good", "nächt"]


def test_json_rows_have_a_value_for_each_input(tmp_path):
    inputs = [("age", FLOAT, ["n", 1]), ("pixels", FLOAT, ["n", 2])]
    model = loaded(tmp_path, graph([helper.make_node("Add", ["age", "pixels"], ["y"])], inputs, [("y", FLOAT, None)]))
    outcome = predict_rows(model, [{"age": 1, "pixels": [1, 2]}, {"age": 2}, {"age": 3, "pixels": [0, 0]}])
    assert outcome.outputs == [[2.0, 3.0], None, [3.0, 3.0]]
    assert "no 'pixels': give one value for each input" in outcome.failed[1]
    assert "takes the inputs age, pixels" in predict_rows(model, X).failed[0]


def test_bytes_are_prepared_by_a_function_of_an_allowed_module(tmp_path, monkeypatch):
    name = f"prepares_{tmp_path.name}"
    (tmp_path / f"{name}.py").write_text(
        "def lengths(rows): return [[len(row)] for row in rows]\nfrom os import system"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model = same(FLOAT, ["n", 1])
    parameters = {"prepare": f"{name}:lengths"}
    allowed = [str(tmp_path), f"{name}:"]
    assert predict_rows(loaded(tmp_path, model, parameters, allowed=allowed), [b"abc", b""]).outputs == [3.0, 0.0]
    for prepare in ("os:system", f"{name}:system", f"{name}:lengths.__globals__"):
        with pytest.raises(ModelNotLoaded):
            loaded(tmp_path, model, {"prepare": prepare}, allowed=allowed)
    with pytest.raises(ModelNotLoaded, match="outside"):
        loaded(tmp_path, model, parameters, allowed=[str(tmp_path)])
    sys.modules.pop(name)


def test_a_row_that_the_model_refuses_fails_alone(tmp_path):
    model = loaded(tmp_path, same(FLOAT, ["n", 2]), {})
    outcome = predict_rows(model, [[1, 2], ["x", 3], [3, 4]])
    assert outcome.outputs == [[1.0, 2.0], None, [3.0, 4.0]]
    assert set(outcome.failed) == {1}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            {"output": "score"},
            "0 outputs have 'score' in their name: set parameters.output to one of label, probabilities",
        ),
        ({"output": "l"}, "2 outputs have 'l' in their name"),
        ({"output": 1}, "output is 1, give a text"),
        ({"threads": 0}, r"threads is 0, give an integer in \[1, 1024\]"),
        ({"threads": True}, "threads is True"),
        ({"labels": [1]}, r"labels is \[1\], give a list of texts"),
        ({"labels": []}, r"labels is \[\], give a list of texts"),
        ({"providers": ["x"]}, "takes labels, output, prepare, threads"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(tmp_path, classifier, parameters, said):
    model = skl2onnx.to_onnx(classifier, X[:1], options={"zipmap": False})
    with pytest.raises(ModelNotLoaded, match=said):
        loaded(tmp_path, model, parameters)


def test_threads_are_those_of_the_parameter_or_of_the_process(tmp_path, monkeypatch):
    def threads(parameters):
        model = loaded(tmp_path, same(FLOAT, ["n", 1]), parameters)
        assert isinstance(model, OnnxModel)
        assert model.session.get_providers() == ["CPUExecutionProvider"]
        return model.session.get_session_options().intra_op_num_threads

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads({}) == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    assert threads({}) == 2
    assert threads({"threads": 3}) == 3
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert threads({}) == 1, "a list, by level of nesting"


def test_a_fixed_batch_is_refused_because_a_batch_is_one_call(tmp_path):
    with pytest.raises(ModelNotLoaded, match="takes exactly 1 rows: export it with an open"):
        loaded(tmp_path, same(FLOAT, [1, 2]))


def test_an_input_of_another_kind_is_refused(tmp_path):
    with pytest.raises(ModelNotLoaded, match=r"input x is a tensor\(uint64\)"):
        loaded(tmp_path, same(TensorProto.UINT64, ["n"]))


def test_weights_in_another_file_are_refused_because_the_digest_does_not_cover_them(tmp_path, monkeypatch):
    (tmp_path / "secret").write_bytes(np.array([7, 8], "float32").tobytes())
    monkeypatch.chdir(tmp_path)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    for location in ("secret", str(tmp_path / "secret")):
        weights = TensorProto(name="w", data_type=FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
        weights.external_data.add(key="location", value=location)
        model = graph([node], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])], [weights])
        with pytest.raises(ModelNotLoaded, match="one ONNX file that holds its weights"):
            loaded(tmp_path, model)


@pytest.mark.parametrize("content", [b"", b"no model", onnx.ModelProto().SerializeToString()])
def test_what_is_no_model_is_refused(tmp_path, content):
    with pytest.raises(ModelNotLoaded, match="cannot be loaded"):
        loaded(tmp_path, content)


def test_rows_are_left_as_they_are(tmp_path):
    rows = X.copy()
    rows.flags.writeable = False
    assert predict_rows(loaded(tmp_path, same(FLOAT, ["n", 2])), rows).outputs == X.tolist()
