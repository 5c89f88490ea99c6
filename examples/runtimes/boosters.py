"""Train a booster of LightGBM and one of XGBoost, write them without pickle, and load them as a model host does.

Needs the extras lightgbm and xgboost. Run it with `python examples/runtimes/boosters.py`; manifests as in
docs/reference/runtimes.md.
"""

import tempfile
from pathlib import Path

import lightgbm
import numpy as np
import xgboost

from clipper_stream.models.registry import file_digest, load_model
from clipper_stream.models.runner import predict_rows


def main() -> None:
    """Print what both say about four rows."""
    rows = np.random.default_rng(0).normal(size=(200, 4)).astype("float32")
    labels = (rows[:, 0] > 0).astype(int)
    with tempfile.TemporaryDirectory() as folder:
        text, binary = Path(folder, "model.txt"), Path(folder, "model.ubj")
        lightgbm.train({"objective": "binary", "verbose": -1}, lightgbm.Dataset(rows, labels), 10).save_model(text)
        xgboost.train({"objective": "binary:logistic"}, xgboost.DMatrix(rows, labels), 10).save_model(binary)
        for runtime, path in (("lightgbm", str(text)), ("xgboost", str(binary))):
            digest = file_digest(runtime, path)
            model = load_model(runtime, path, digest, {"labels": ["low", "high"], "threads": 1})
            print(runtime, predict_rows(model, rows[:4]).outputs)
    print("true", [["low", "high"][label] for label in labels[:4]])


if __name__ == "__main__":
    main()
