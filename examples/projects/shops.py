"""Weights by context: each shop learns which of two models suits it, until one that knows regions replaces both.

    python examples/projects/shops.py

Needs the extras broker, sklearn, tables and replay.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import PolynomialFeatures, StandardScaler

from clipper_loadgen import Dataset
from examples.shared.project import Project, main

CONFIGURATION = """
[[application]]
name = "shops"
models = ["north:1", "south:1"]
policy = { name = "exp3", parameters = { exploration = 0.3 } }
objective_ms = 5000
default_output = 0
rollout = { margin = 0.05, steps = [0.4], least = 60 }

[application.input]
dtype = "table"
columns = [{ name = "degrees" }, { name = "weekday" }, { name = "latitude" }]

[[model]]
name = "north"
runtime = "sklearn"
uri = "{north:1}"

[[model]]
name = "south"
runtime = "sklearn"
uri = "{south:1}"
"""
SHOPS = {"oslo": 60.0, "turku": 60.5, "cadiz": 36.5, "malaga": 36.7}
SEEN = ["degrees", "weekday"]
"""What the models of one region were fitted with: of a declared table each model takes its own columns."""


def days(count: int, seed: int) -> tuple[pd.DataFrame, Any, list[str]]:
    """Days of shops, whether ice sold out, and the shop: in the south 20 degrees sell none, in the north all."""
    rng = np.random.default_rng(seed)
    shops = rng.choice([*SHOPS], count).tolist()
    latitudes = np.array([SHOPS[shop] for shop in shops])
    frame = pd.DataFrame(
        {"degrees": rng.uniform(10, 35, count), "weekday": rng.integers(0, 7, count), "latitude": latitudes}
    )
    needed = np.where(latitudes > 50, 16, 29) - 3 * (frame.weekday > 4)
    return frame, (frame.degrees > needed).astype(int), shops


def train(folder: Path) -> dict[str, str]:
    """Write a model for each region, and one for both."""
    frame, sold_out, _ = days(4_000, seed=0)
    north = frame.latitude > 50
    parts = {"north": (north, SEEN), "south": (~north, SEEN), "everywhere": (north | ~north, [*frame.columns])}
    targets = {}
    for name, (rows, columns) in parts.items():
        pipeline = make_pipeline(StandardScaler(), PolynomialFeatures(2), LogisticRegression(C=100, max_iter=5000))
        skops.io.dump(pipeline.fit(frame.loc[rows, columns], sold_out[rows]), folder / f"{name}.skops")
        targets[f"{name}:1"] = str(folder / f"{name}.skops")
    return targets


def project() -> Project:
    """The project."""
    frame, sold_out, shops = days(5_000, seed=1)
    return Project(
        application="shops",
        train=train,
        configuration=CONFIGURATION,
        traffic=Dataset(frame.to_dict("records"), sold_out.to_numpy()),
        canary="everywhere:1",
        candidates=("exp3", "north:1", "everywhere:1"),
        contexts=shops,
    )


if __name__ == "__main__":
    main(project())
