"""An estimator in a joblib file, which is a pickle: `python examples/runtimes/joblib_estimator.py [FOLDER]`.

The operator permits it in clipper.toml by `[models] unpickle = true`; a manifest cannot.
"""

import sys
from pathlib import Path
from typing import Any

import joblib
from sklearn.datasets import load_iris
from sklearn.tree import DecisionTreeClassifier

from clipper_stream.models.registry import file_digest, load_model
from clipper_stream.models.runtimes.model_files import FileRules


def main(folder: Path) -> list[Any]:
    """Fit, write `iris.joblib`, load it with its digest and the permission, and classify three flowers."""
    rows, kinds = load_iris(return_X_y=True)
    file = folder / "iris.joblib"
    joblib.dump(DecisionTreeClassifier(random_state=1).fit(rows, kinds), file)

    model = load_model("joblib", str(file), file_digest("joblib", str(file)), files=FileRules(unpickle=True))
    return list(model.predict_batch(rows[[0, 50, 149]]))


if __name__ == "__main__":
    print(main(Path(sys.argv[1] if sys.argv[1:] else ".")))
