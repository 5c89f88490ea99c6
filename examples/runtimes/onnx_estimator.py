"""A scikit-learn estimator as ONNX, by the runtime `onnx`: `python examples/runtimes/onnx_estimator.py [FOLDER]`."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import skl2onnx
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression

from clipper_stream.models.registry import file_digest, load_model

KINDS = ["setosa", "versicolor", "virginica"]


def main(folder: Path) -> list[Any]:
    """Fit, write `iris.onnx`, load it with its digest, and classify three flowers."""
    rows, kinds = load_iris(return_X_y=True)
    rows = rows.astype(np.float32)
    fitted = LogisticRegression(max_iter=500).fit(rows, kinds)
    file = folder / "iris.onnx"
    converted = skl2onnx.to_onnx(fitted, rows[:1], options={"zipmap": False})
    file.write_bytes(converted.SerializeToString())

    # the same in clipper.toml: runtime = "onnx", parameters = { output = "probabilities", labels = [...] }
    parameters = {"output": "probabilities", "labels": KINDS}
    model = load_model("onnx", str(file), file_digest("onnx", str(file)), parameters)
    return list(model.predict_batch(rows[[0, 50, 149]]))


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if sys.argv[1:] else ".")))
