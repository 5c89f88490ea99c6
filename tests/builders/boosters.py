"""Small boosters of LightGBM and XGBoost, and the rows that they were trained on."""

import importlib

import numpy as np

X = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
CLASSES = np.digitize(X[:, 0], [-0.5, 0.5])
"""0, 1 or 2 by the first number of the row, which a few trees learn."""
FIRST = X[:, 0].copy()
TWO = (CLASSES > 0).astype(int)
DEFAULTS = {
    "lightgbm": {"objective": "binary", "verbose": -1, "num_threads": 1},
    "xgboost": {"objective": "binary:logistic", "nthread": 1},
}


def trained(runtime, path, labels=TWO, rounds=10, **parameters):
    """A booster of one of the two libraries, saved at this path."""
    library = importlib.import_module(runtime)
    data = (library.Dataset if runtime == "lightgbm" else library.DMatrix)(X, labels)
    booster = library.train(DEFAULTS[runtime] | parameters, data, rounds)
    booster.save_model(path)
    return booster
