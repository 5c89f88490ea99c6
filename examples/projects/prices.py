"""Regression with ONNX files: a line is served, and boosted trees become its canary; the answer is their weighted mean.

    python examples/projects/prices.py

Needs the extras broker, sklearn, onnx and replay, and skl2onnx. Prices are thousands, as all that the evaluation says.
"""

from pathlib import Path
from typing import Any

import numpy as np
import skl2onnx
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LinearRegression

from clipper_loadgen import Dataset
from examples.shared.project import Project, main

CONFIGURATION = """
[[application]]
name = "prices"
models = ["prices:1"]
policy = { name = "exp4" }
combiner = "mean"
loss = "absolute"
loss_scale = 1000.0
objective_ms = 5000
default_output = 500.0
rollout = { label_margin = 50.0, steps = [0.4], least = 60 }

[application.input]
dtype = "table"
columns = [{ name = "area" }, { name = "rooms" }, { name = "age" }, { name = "distance" }]

[[model]]
name = "prices"
runtime = "onnx"
uri = "{prices:1}"
"""
COLUMNS = ["area", "rooms", "age", "distance"]


def houses(count: int, seed: int) -> tuple[Any, Any]:
    """Houses, a row of numbers each, and their prices in thousands: near the ring road at 5 km they are cheapest."""
    rng = np.random.default_rng(seed)
    rows = np.column_stack(
        [rng.uniform(40, 200, count), rng.integers(1, 8, count), rng.uniform(0, 100, count), rng.uniform(0, 10, count)]
    ).astype(np.float32)
    area, rooms, age, distance = rows.T
    prices = 50 + area + 120 * np.abs(distance - 5) + 100 * (np.abs(age - 50) > 25) + 5 * rooms
    return rows, np.clip(prices + rng.normal(0, 10, count), 0, 1000)


def train(folder: Path) -> dict[str, str]:
    """Write a line and boosted trees, both as ONNX."""
    rows, prices = houses(4_000, seed=0)
    targets = {}
    for version, estimator in (("1", LinearRegression()), ("2", HistGradientBoostingRegressor(max_iter=60))):
        file = folder / f"prices-{version}.onnx"
        file.write_bytes(skl2onnx.to_onnx(estimator.fit(rows, prices), rows[:1]).SerializeToString())
        targets[f"prices:{version}"] = str(file)
    return targets


def project() -> Project:
    """The project."""
    rows, prices = houses(5_000, seed=1)
    named = [dict(zip(COLUMNS, row, strict=True)) for row in rows.tolist()]
    return Project(
        application="prices",
        train=train,
        configuration=CONFIGURATION,
        traffic=Dataset(named, prices),
        canary="prices:2",
        candidates=("exp4", "prices:1", "prices:2"),
    )


if __name__ == "__main__":
    main(project())
