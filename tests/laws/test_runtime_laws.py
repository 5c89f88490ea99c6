"""Models of every registered runtime keep the laws that a host relies on, as the model development kit finds them."""

import pytest
import skops.io
from doubles_boosting import CLASSES, TWO, X, lightgbm_file, xgboost_file
from sklearn.linear_model import LogisticRegression
from stub_server import StubServer, serving

from clipper_stream.models.loading import file_digest, load_model
from clipper_stream.models.testing import assert_model


def of_python(tmp_path):
    yield "clipper_agents.examples.models:sum_of_row", {}


def of_sklearn(tmp_path):
    path = tmp_path / "model.skops"
    skops.io.dump(LogisticRegression().fit(X, TWO), path)
    yield str(path), {}


def of_lightgbm(tmp_path):
    pytest.importorskip("lightgbm", reason="the extra lightgbm is not installed")
    yield lightgbm_file(tmp_path, objective="multiclass", labels=CLASSES, num_class=3)[0], {"output": "probabilities"}


def of_xgboost(tmp_path):
    pytest.importorskip("xgboost", reason="the extra xgboost is not installed")
    yield xgboost_file(tmp_path)[0], {"output": "probabilities"}


def of_oip(tmp_path):
    pytest.importorskip("urllib3", reason="the extra oip is not installed")
    with serving(StubServer()) as stub:
        yield stub.url, {"timeout_s": 60}


MAKERS = {"python": of_python, "sklearn": of_sklearn, "lightgbm": of_lightgbm, "xgboost": of_xgboost, "oip": of_oip}


@pytest.mark.runtime
@pytest.mark.parametrize("runtime", MAKERS)
def test_a_model_of_each_runtime_keeps_every_law(runtime, tmp_path):
    making = MAKERS[runtime](tmp_path)
    uri, parameters = next(making)
    # a model and no URI: another process would import each framework once more, which takes seconds
    model = load_model(runtime, uri, file_digest(runtime, uri), parameters)
    assert_model(model, X[:8].tolist(), shape=[4])
    assert next(making, None) is None
