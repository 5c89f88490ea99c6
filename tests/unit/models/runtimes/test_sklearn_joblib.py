"""The runtime `joblib` unpickles estimators where the operator permits it, and nowhere else."""

import hashlib

import joblib
import numpy as np
import pytest
from builders.pickles import Canary
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.registry import check_declared, load_model
from clipper_stream.models.runner import predict_rows
from clipper_stream.models.runtimes.model_files import FileRules

X = np.array([[0.0, 0.0], [0.0, 1.0], [5.0, 5.0], [5.0, 6.0]])
PERMITTED = FileRules(unpickle=True)


def dumped(tmp_path, what):
    path = tmp_path / "model.joblib"
    joblib.dump(what, path, compress=3)
    return str(path), hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_estimator_is_loaded_and_predicts_where_it_is_permitted(tmp_path):
    model = load_model("joblib", *dumped(tmp_path, LogisticRegression().fit(X, [0, 0, 1, 1])), files=PERMITTED)
    assert predict_rows(model, X).outputs == [0, 0, 1, 1]


def test_nothing_is_unpickled_where_it_is_not_permitted_whatever_the_manifest_says(tmp_path):
    uri, digest = dumped(tmp_path, Canary(tmp_path / "canary"))
    for parameters in ({}, {"unpickle": True}, {"trusted": ["os.mkdir"]}):
        with pytest.raises(ModelNotLoaded, match=r"set \[models\] unpickle = true"):
            load_model("joblib", uri, digest, parameters, allowed=[uri])
        with pytest.raises(ModelNotLoaded, match=r"set \[models\] unpickle = true"):
            check_declared("joblib", uri, digest, parameters, [uri])
    assert not (tmp_path / "canary").exists()
    check_declared("joblib", uri, digest, {}, [uri], PERMITTED)


def test_what_cannot_predict_or_be_read_is_refused(tmp_path):
    with pytest.raises(ModelNotLoaded, match="holds a StandardScaler, which has no predict"):
        load_model("joblib", *dumped(tmp_path, StandardScaler()), files=PERMITTED)
    (tmp_path / "broken").write_bytes(b"no pickle")
    digest = hashlib.sha256(b"no pickle").hexdigest()
    with pytest.raises(ModelNotLoaded, match=r"write it with joblib.dump"):
        load_model("joblib", str(tmp_path / "broken"), digest, files=PERMITTED)
    with pytest.raises(ModelNotLoaded, match="the runtime joblib takes none"):
        load_model("joblib", str(tmp_path / "broken"), digest, {"a": 1}, files=PERMITTED)
