"""The runtime `sklearn` loads skops files whose every type is trusted."""

import hashlib
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models import registry
from clipper_stream.models.runner import predict_rows

X = np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [5.0, 6.0]])
Y = np.array([0, 0, 1, 1])


def load_model(runtime, path, sha256=None, parameters=None, **how):
    """Load, with the digest that the file has unless another is given."""
    digest = sha256 or (hashlib.sha256(Path(path).read_bytes()).hexdigest() if Path(path).exists() else None)
    return registry.load_model(runtime, path, digest, parameters, **how)


def dumped(tmp_path, estimator):
    path = tmp_path / "model.skops"
    skops.io.dump(estimator, path)
    return str(path)


def test_an_estimator_is_loaded_and_predicts(tmp_path):
    path = dumped(tmp_path, LogisticRegression().fit(X, Y))
    outcome = predict_rows(load_model("sklearn", path), X.astype(np.float32))
    assert outcome.outputs == [0, 0, 1, 1]
    assert [type(output) for output in outcome.outputs] == [int] * 4


def test_a_pipeline_over_texts_is_loaded_and_predicts(tmp_path):
    pipeline = make_pipeline(CountVectorizer(), MultinomialNB()).fit(["good day", "bad night"], ["up", "down"])
    assert predict_rows(load_model("sklearn", dumped(tmp_path, pipeline)), ["good", "night"]).outputs == ["up", "down"]


def foreign_pipeline(tmp_path):
    import examples_of_types

    return dumped(tmp_path, make_pipeline(examples_of_types.Shift(), StandardScaler(), LogisticRegression()).fit(X, Y))


@pytest.fixture
def foreign_type(tmp_path, monkeypatch):
    (tmp_path / "examples_of_types.py").write_text(
        "from sklearn.base import BaseEstimator, TransformerMixin\n"
        "class Shift(TransformerMixin, BaseEstimator):\n"
        "    def fit(self, X, y=None): return self\n"
        "    def transform(self, X): return X + 1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "examples_of_types.Shift"
    sys.modules.pop("examples_of_types", None)


def test_a_type_that_is_not_trusted_is_named_and_refused(tmp_path, foreign_type):
    path = foreign_pipeline(tmp_path)
    with pytest.raises(ModelNotLoaded, match=f"not trusted: {foreign_type}; if you know"):
        load_model("sklearn", path)


def test_a_type_that_the_manifest_trusts_is_loaded(tmp_path, foreign_type):
    model = load_model("sklearn", foreign_pipeline(tmp_path), parameters={"trusted": [foreign_type, "not.in.It"]})
    assert predict_rows(model, X).outputs == [0, 0, 1, 1]


@pytest.mark.parametrize("parameters", [{"trusted": "numpy"}, {"trusted": [1]}, {"trust": []}, {"trusted": True}])
def test_parameters_of_another_form_are_refused(tmp_path, parameters):
    with pytest.raises(ModelNotLoaded, match="trusted"):
        load_model("sklearn", dumped(tmp_path, LogisticRegression().fit(X, Y)), parameters=parameters)


def test_a_trusted_type_lies_in_an_allowed_module(tmp_path, foreign_type):
    path, trusted = foreign_pipeline(tmp_path), {"trusted": [foreign_type]}
    for allowed in (["examples_of_types"], ["examples_of_types.Shift"]):
        assert load_model("sklearn", path, parameters=trusted, allowed=[str(tmp_path), *allowed])
    for allowed in ([], ["examples_of_type"], ["examples_of_types.Shift2"], [str(tmp_path)]):
        with pytest.raises(ModelNotLoaded, match=f"trusted type '{foreign_type}' is outside"):
            load_model("sklearn", path, parameters=trusted, allowed=[str(tmp_path), *allowed])
    assert "examples_of_types" in sys.modules, "by the dump"


@pytest.mark.parametrize("name", ["os.system", "builtins.eval", "subprocess.Popen", "functools.partial"])
def test_a_function_of_the_system_cannot_be_trusted_by_a_manifest(tmp_path, name):
    path = dumped(tmp_path, LogisticRegression().fit(X, Y))
    with pytest.raises(ModelNotLoaded, match=f"trusted type '{name}' is outside"):
        load_model("sklearn", path, parameters={"trusted": [name]}, allowed=[str(tmp_path)])


def test_a_pickle_is_refused(tmp_path):
    path = tmp_path / "model.skops"
    path.write_bytes(pickle.dumps(LogisticRegression()))
    with pytest.raises(ModelNotLoaded, match=r"write it with skops.io.dump"):
        load_model("sklearn", str(path))


def test_what_cannot_predict_is_refused(tmp_path):
    with pytest.raises(ModelNotLoaded, match="holds a StandardScaler, which has no predict"):
        load_model("sklearn", dumped(tmp_path, StandardScaler().fit(X)))
