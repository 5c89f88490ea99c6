import numpy as np
import pytest
import skl2onnx
from onnx import TensorProto, helper
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.tree import DecisionTreeClassifier

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.runner import predict_rows

X = np.array([[0, 0], [0, 1], [5, 5], [5, 6]], dtype=np.float32)
X.flags.writeable = False
CLASSIFIER = LogisticRegression().fit(X, [0, 0, 1, 1])
FLOAT, STRING = TensorProto.FLOAT, TensorProto.STRING


@pytest.fixture
def onnx(loaded):
    def load(model, parameters=None, *, allowed=None, **options):
        if not hasattr(model, "SerializeToString"):
            model = skl2onnx.to_onnx(model, X[:1], options=options or None)
        return loaded("onnx", model.SerializeToString(), parameters, allowed=allowed)

    return load


def graph(nodes, inputs, outputs, initializers=()):
    """A model of these nodes; inputs and outputs are (name, type, axes)."""
    taken, given = ([helper.make_tensor_value_info(*each) for each in side] for side in (inputs, outputs))
    made = helper.make_graph(nodes, "test", taken, given, list(initializers))
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def same(kind, axes):
    return graph([helper.make_node("Identity", ["x"], ["y"])], [("x", kind, axes)], [("y", kind, axes)])


@pytest.mark.parametrize(
    ("estimator", "outputs"),
    [
        (CLASSIFIER, [0, 0, 1, 1]),
        (DecisionTreeClassifier(random_state=1).fit(X, ["low", "low", "high", "high"]), ["low", "low", "high", "high"]),
        (LinearRegression().fit(X, X.sum(axis=1)), [0.0, 1.0, 10.0, 11.0]),
    ],
    ids=["classes", "text labels", "a column of numbers"],
)
def test_a_converted_estimator_gives_what_it_gave_before(onnx, estimator, outputs):
    model = onnx(estimator)
    for dtype in ("float32", "float64", "int32", "uint8"):
        outcome = predict_rows(model, X.astype(dtype))
        assert outcome.calls == 1
        assert {type(output) for output in outcome.outputs} == {type(outputs[0])}
        assert outcome.outputs == (pytest.approx(outputs, abs=1e-4) if type(outputs[0]) is float else outputs)


@pytest.mark.parametrize("zipmap", [False, True])
def test_probabilities_are_given_by_row_whatever_form_the_converter_chose(onnx, zipmap):
    output = "output_probability" if zipmap else "probabilities"
    outcome = predict_rows(onnx(CLASSIFIER, {"output": output}, zipmap=zipmap), X)
    rows = [[row["0"], row["1"]] if zipmap else row for row in outcome.outputs]
    assert np.array(rows) == pytest.approx(CLASSIFIER.predict_proba(X), abs=1e-5)
    assert not outcome.failed


@pytest.mark.parametrize("zipmap", [False, True])
def test_a_label_has_its_probability(onnx, zipmap):
    output = "output_probability" if zipmap else "probabilities"
    outputs = predict_rows(onnx(CLASSIFIER, {"output": output, "confidence": True}, zipmap=zipmap), X).outputs
    assert [output["label"] for output in outputs] == [0, 0, 1, 1]
    sure = CLASSIFIER.predict_proba(X).max(axis=1)
    assert [output["confidence"] for output in outputs] == pytest.approx(sure.tolist(), abs=1e-5)


def test_an_output_of_one_column_is_a_number_a_row(onnx):
    outputs = predict_rows(onnx(CLASSIFIER, {"output": "i1"}, zipmap="columns"), X).outputs
    assert outputs == pytest.approx(CLASSIFIER.predict_proba(X)[:, 1].tolist(), abs=1e-5)


def test_scores_become_labels(onnx):
    parameters = {"output": "probabilities", "labels": ["low", "high"]}
    assert predict_rows(onnx(CLASSIFIER, parameters, zipmap=False), X).outputs == ["low", "low", "high", "high"]
    outcome = predict_rows(onnx(CLASSIFIER, {**parameters, "labels": ["low"]}, zipmap=False), X)
    assert set(outcome.failed) == {0, 1, 2, 3}
    assert "name one label a column" in outcome.failed[0]


def test_texts_go_into_an_input_of_strings(onnx):
    for axes in (["n"], ["n", 1]):
        assert predict_rows(onnx(same(STRING, axes)), ["good", "nächt"]).outputs == ["good", "nächt"]


def test_json_rows_have_a_value_for_each_input(onnx):
    inputs = [("age", FLOAT, ["n", 1]), ("pixels", FLOAT, ["n", 2])]
    model = onnx(graph([helper.make_node("Add", ["age", "pixels"], ["y"])], inputs, [("y", FLOAT, None)]))
    outcome = predict_rows(model, [{"age": 1, "pixels": [1, 2]}, {"age": 2}, {"age": 3, "pixels": [0, 0]}])
    assert outcome.outputs == [[2.0, 3.0], None, [3.0, 3.0]]
    assert "no 'pixels': give one value for each input" in outcome.failed[1]
    assert "takes the inputs age, pixels" in predict_rows(model, X).failed[0]


def test_bytes_are_prepared_by_a_function_of_an_allowed_module(onnx, module, tmp_path):
    name = module("def lengths(rows): return [[len(row)] for row in rows]\nfrom os import system")
    model, lengths, allowed = same(FLOAT, ["n", 1]), f"{name}:lengths", [str(tmp_path), f"{name}:"]
    assert predict_rows(onnx(model, {"prepare": lengths}, allowed=allowed), [b"abc", b""]).outputs == [3.0, 0.0]
    for prepare in ("os:system", f"{name}:system", f"{lengths}.__globals__"):
        with pytest.raises(ModelNotLoaded):
            onnx(model, {"prepare": prepare}, allowed=allowed)
    with pytest.raises(ModelNotLoaded, match="outside"):
        onnx(model, {"prepare": lengths}, allowed=[str(tmp_path)])


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"output": "probab"}, r"output 'probab': did you mean probabilities\? use one of label, probabilities"),
        ({"labels": []}, r"labels is \[\], give a list of texts"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(onnx, parameters, said):
    with pytest.raises(ModelNotLoaded, match=said):
        onnx(CLASSIFIER, parameters, zipmap=False)


@pytest.mark.parametrize(
    ("said", "parameters", "threads"),
    [(None, {}, 1), ("2", {}, 2), ("2", {"threads": 3}, 3), ("4,2", {}, 1), ("0", {}, 1)],
)
def test_threads_are_those_of_the_parameter_or_of_the_process(onnx, monkeypatch, said, parameters, threads):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if said is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", said)
    session = onnx(same(FLOAT, ["n", 1]), parameters).session
    assert session.get_providers() == ["CPUExecutionProvider"]
    assert session.get_session_options().intra_op_num_threads == threads


def test_a_model_that_takes_no_batches_of_ours_is_refused(onnx):
    with pytest.raises(ModelNotLoaded, match="takes exactly 1 rows: export it with an open"):
        onnx(same(FLOAT, [1, 2]))
    with pytest.raises(ModelNotLoaded, match=r"input x is a tensor\(uint64\)"):
        onnx(same(TensorProto.UINT64, ["n"]))


def test_weights_in_another_file_are_refused_because_the_digest_does_not_cover_them(onnx, tmp_path, monkeypatch):
    (tmp_path / "secret").write_bytes(np.array([7, 8], "float32").tobytes())
    monkeypatch.chdir(tmp_path)
    node = helper.make_node("Add", ["x", "w"], ["y"])
    for location in ("secret", str(tmp_path / "secret")):
        weights = TensorProto(name="w", data_type=FLOAT, dims=[2], data_location=TensorProto.EXTERNAL)
        weights.external_data.add(key="location", value=location)
        with pytest.raises(ModelNotLoaded, match="one ONNX file that holds its weights"):
            onnx(graph([node], [("x", FLOAT, ["n", 2])], [("y", FLOAT, ["n", 2])], [weights]))
