"""Small boosters in the files that LightGBM and XGBoost write, and the rows that they were trained on."""

import hashlib
from pathlib import Path

import numpy as np

from clipper_stream.models import registry

X = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
CLASSES = np.digitize(X[:, 0], [-0.5, 0.5])
"""0, 1 or 2 by the first number of the row, which a few trees learn."""
FIRST = X[:, 0].copy()
TWO = (CLASSES > 0).astype(int)


def lightgbm_file(tmp_path, objective="binary", labels=TWO, rounds=10, **parameters):
    import lightgbm

    path = tmp_path / "model.txt"
    data = lightgbm.Dataset(X, labels)
    booster = lightgbm.train({"objective": objective, "verbose": -1, "num_threads": 1, **parameters}, data, rounds)
    booster.save_model(path)
    return str(path), booster


def xgboost_file(tmp_path, objective="binary:logistic", labels=TWO, rounds=10, name="model.ubj", **parameters):
    import xgboost

    path = tmp_path / name
    data = xgboost.DMatrix(X, labels, nthread=1)
    booster = xgboost.train({"objective": objective, "nthread": 1, **parameters}, data, rounds)
    booster.save_model(path)
    return str(path), booster


def loaded(runtime, path, sha256=None, **parameters):
    """Load, with the digest that the file has unless another is given."""
    digest = sha256 or hashlib.sha256(Path(path).read_bytes()).hexdigest()
    return registry.load_model(runtime, path, digest, parameters, allowed=[path])
