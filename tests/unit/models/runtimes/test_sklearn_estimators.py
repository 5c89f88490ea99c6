import importlib
import io

import joblib
import numpy as np
import pytest
import skops.io
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.naive_bayes import MultinomialNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.runner import predict_rows

X = np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [5.0, 6.0]])
Y = np.array([0, 0, 1, 1])
SHIFT = """
from sklearn.base import BaseEstimator, TransformerMixin
class Shift(TransformerMixin, BaseEstimator):
    def fit(self, X, y=None): return self
    def transform(self, X): return X + 1
"""


def pickled(estimator):
    content = io.BytesIO()
    joblib.dump(estimator, content, compress=3)
    return content.getvalue()


@pytest.fixture(params=["sklearn", "joblib"])
def load(request, loaded):
    write = {"sklearn": skops.io.dumps, "joblib": pickled}[request.param]
    return lambda estimator, **parameters: loaded(
        request.param, write(estimator), parameters, unpickle=request.param == "joblib"
    )


def test_an_estimator_is_loaded_and_predicts(load):
    outcome = predict_rows(load(LogisticRegression().fit(X, Y)), X.astype(np.float32))
    assert outcome.outputs == [0, 0, 1, 1]
    assert [type(output) for output in outcome.outputs] == [int] * 4


def test_a_pipeline_over_texts_is_loaded_and_predicts(load):
    pipeline = make_pipeline(CountVectorizer(), MultinomialNB()).fit(["good day", "bad night"], ["up", "down"])
    assert predict_rows(load(pipeline), ["good", "night"]).outputs == ["up", "down"]


def test_labels_have_the_probability_of_the_most_probable_class(load):
    estimator = LogisticRegression().fit(X, ["low", "low", "high", "high"])
    outputs = predict_rows(load(estimator, confidence=True), X).outputs
    assert [output["label"] for output in outputs] == ["low", "low", "high", "high"]
    assert [output["confidence"] for output in outputs] == pytest.approx(estimator.predict_proba(X).max(axis=1))
    with pytest.raises(ModelNotLoaded, match=r"a LinearRegression has no predict_proba: calibrate it"):
        load(LinearRegression().fit(X, Y), confidence=True)


def test_what_cannot_predict_is_refused(load):
    with pytest.raises(ModelNotLoaded, match="holds a StandardScaler, which has no predict"):
        load(StandardScaler().fit(X))


@pytest.fixture
def foreign(module):
    """A type of a module of the test's own, and a skops file that has it."""
    name = module(SHIFT)
    shift = importlib.import_module(name).Shift()
    return f"{name}.Shift", skops.io.dumps(make_pipeline(shift, StandardScaler(), LogisticRegression()).fit(X, Y))


def test_a_type_is_loaded_where_the_manifest_trusts_it_and_named_where_it_does_not(loaded, foreign):
    trusted, content = foreign
    with pytest.raises(ModelNotLoaded, match=f"not trusted: {trusted}; if you know"):
        loaded("sklearn", content)
    model = loaded("sklearn", content, {"trusted": [trusted, "not.in.It"]})
    assert predict_rows(model, X).outputs == [0, 0, 1, 1]


def test_a_trusted_type_lies_in_an_allowed_module(loaded, foreign, tmp_path):
    trusted, content = foreign
    name = trusted.partition(".")[0]
    for allowed in (name, trusted):
        assert loaded("sklearn", content, {"trusted": [trusted]}, allowed=[str(tmp_path), allowed])
    for allowed in (name[:-1], f"{trusted}2"):
        for outside in (trusted, "os.system", "builtins.eval", "subprocess.Popen", "functools.partial"):
            with pytest.raises(ModelNotLoaded, match=f"trusted type '{outside}' is outside"):
                loaded("sklearn", content, {"trusted": [outside]}, allowed=[str(tmp_path), allowed])
