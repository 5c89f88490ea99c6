"""A table with missing values: a pipeline of scikit-learn in skops is served, and LightGBM becomes its canary.

    python examples/projects/churn.py

Needs the extras broker, sklearn, lightgbm, tables and replay.
"""

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from clipper_loadgen import Dataset
from examples.shared.project import Project, main

CONFIGURATION = """
[[application]]
name = "churn"
models = ["churn:1"]
policy = { name = "exp3", parameters = { exploration = 0.3 } }
objective_ms = 5000
default_output = 0
rollout = { margin = 0.05, steps = [0.4], least = 60 }

[application.input]
dtype = "table"
missing = true
columns = [
    { name = "age" },
    { name = "spent" },
    { name = "plan", dtype = "text" },
    { name = "country", dtype = "text" },
]

[[model]]
name = "churn"
runtime = "sklearn"
uri = "{churn:1}"
"""
PLANS, COUNTRIES = ["basic", "family", "pro"], ["Chile", "Italy", "Kenya", "Nepal"]
NUMBERS, TEXTS = ["age", "spent"], ["plan", "country"]


def customers(count: int, seed: int) -> tuple[pd.DataFrame, Any]:
    """Customers, of whom a tenth of all values is unknown, and whether each leaves: what matters differs by plan."""
    rng = np.random.default_rng(seed)
    plans, countries = rng.integers(0, 3, count), rng.integers(0, 4, count)
    ages, spent = rng.uniform(18, 80, count).round(), rng.gamma(2.0, 50.0, count).round(2)
    leaves = np.select([plans == 0, plans == 1], [spent < 90, ages < 45], (countries % 2) == 0)
    texts = {"plan": np.array(PLANS, object)[plans], "country": np.array(COUNTRIES, object)[countries]}
    frame = pd.DataFrame({"age": ages, "spent": spent, **texts})
    return frame.mask(rng.random(frame.shape) < 0.1), leaves.astype(int)


def train(folder: Path) -> dict[str, str]:
    """Write a logistic regression, which takes each column by itself, and trees, which do not."""
    frame, leaves = customers(3_000, seed=0)
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([("numbers", SimpleImputer(), NUMBERS), ("texts", texts, TEXTS)])
    pipeline = make_pipeline(columns, LogisticRegression(max_iter=1000)).fit(frame, leaves)
    skops.io.dump(pipeline, folder / "churn-1.skops")
    coded = frame.assign(**{name: frame[name].astype("category") for name in TEXTS})
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(coded, leaves), 60
    )
    booster.save_model(folder / "churn-2.txt")
    return {"churn:1": str(folder / "churn-1.skops"), "churn:2": str(folder / "churn-2.txt")}


def project() -> Project:
    """The project; a value that is missing is null."""
    frame, leaves = customers(5_000, seed=1)
    rows = frame.astype(object).where(frame.notna(), None).to_dict("records")
    return Project(
        application="churn",
        train=train,
        configuration=CONFIGURATION,
        traffic=Dataset(rows, leaves),
        canary="churn:2",
        candidates=("exp3", "churn:1", "churn:2"),
    )


if __name__ == "__main__":
    main(project())
