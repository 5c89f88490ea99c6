"""Successive versions of one model on real data: an incumbent and ten candidates, of which three are better.

Better is a version whose loss on the held-out queries is below that of the best one before it; the others are equal,
slightly worse or much worse. What a version gets wrong is known for every query, because predictions are cheap.
"""

import gzip
import io
import warnings
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import skops.io
from numpy.typing import NDArray
from rig.digit_models import images
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import ExtraTreesClassifier, GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier

Rows = NDArray[np.float32]
Labels = NDArray[np.int64]
TRAINED = 10_000
"""Rows that are trained on at most."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How a version is trained.

    Attributes:
        says: In words.
        estimator: Not fitted.
        rows: The first so many of the training rows; None: all.
        columns: The features by index; None: all.
    """

    says: str
    estimator: Any
    rows: int | None = None
    columns: Sequence[int] | None = None

    def fitted(self, rows: Rows, labels: Labels) -> Any:
        """The trained estimator; the same recipe gives the same one."""
        chosen = self.estimator
        if self.columns is not None:
            chosen = make_pipeline(ColumnTransformer([("of", "passthrough", list(self.columns))]), chosen)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # pixels that are white in every picture
            return chosen.fit(rows[: self.rows], labels[: self.rows])


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionHistory:
    """Versions of one model, and the queries that they are asked.

    Attributes:
        name: Of the data.
        difference: The smallest difference of losses that matters.
        recipes: Of the versions, the incumbent first.
        files: Of each version, skops.
        queries: Held-out rows, (queries, features).
        labels: Their labels, (queries,).
        losses: Of each version on each query, 0 or 1, (versions, queries).
    """

    name: str
    difference: float
    recipes: Sequence[Recipe]
    files: Sequence[Path]
    queries: Rows
    labels: Labels
    losses: NDArray[np.float64]

    @property
    def means(self) -> NDArray[np.float64]:
        """Held-out loss of each version, (versions,)."""
        return self.losses.mean(axis=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A data set with its recipes.

    Attributes:
        difference: As of `VersionHistory`.
        recipes: As of `VersionHistory`.
        read: Rows and labels to train on, and those that are asked.
    """

    difference: float
    recipes: Sequence[Recipe]
    read: Callable[[], tuple[Rows, Labels, Rows, Labels]]

    def trained(self, name: str, folder: Path, versions: int | None = None) -> VersionHistory:
        """Train the incumbent and the first so many versions after it, write each into the folder, and ask them all."""
        rows, labels, queries, truth = self.read()
        recipes = self.recipes if versions is None else self.recipes[: 1 + versions]
        files, losses = [], []
        for number, recipe in enumerate(recipes):
            estimator = recipe.fitted(rows, labels)
            files.append(folder / f"{name}-{number}.skops")
            skops.io.dump(estimator, files[-1])
            losses.append((estimator.predict(queries) != truth).astype(float))
        return VersionHistory(
            name=name,
            difference=self.difference,
            recipes=recipes,
            files=files,
            queries=queries,
            labels=truth,
            losses=np.stack(losses),
        )


def _parted(rows: Rows, labels: Labels, trained: int) -> tuple[Rows, Labels, Rows, Labels]:
    order = np.random.default_rng(0).permutation(len(labels))
    first, rest = order[:trained], order[trained:]
    return rows[first], labels[first], rows[rest], labels[rest]


def _digits() -> tuple[Rows, Labels, Rows, Labels]:
    rows, labels = images()
    return _parted(rows, labels, len(labels) // 2)


def _shuttle() -> tuple[Rows, Labels, Rows, Labels]:
    """River's file of the Statlog shuttle: nine sensors, and whether something is wrong."""
    river = find_spec("river")
    assert river is not None
    assert river.origin is not None
    with gzip.open(Path(river.origin).parent / "datasets" / "shuttle.csv.gz") as file:
        table = np.loadtxt(file, delimiter=",", skiprows=1)
    return _parted(table[:, :-1].astype(np.float32), table[:, -1].astype(np.int64), TRAINED)


def _jobs(wheel: Path) -> tuple[Rows, Labels, Rows, Labels]:
    """People of Massachusetts, and who has a job: those of 2015 are trained on, those of 2016 to 2018 are asked."""
    import pandas as pd  # noqa: PLC0415 - only for this one

    def read(part: str) -> Any:
        return pd.read_parquet(io.BytesIO(archive.read(f"nannyml/datasets/data/employment_MA_{part}.pq")))

    with zipfile.ZipFile(wheel) as archive:
        before, after = read("reference"), read("analysis").merge(read("analysis_target"), on="id")
    columns = list(before.columns[1:17])
    parts = []
    for table in (before, after):
        rows = np.stack([pd.to_numeric(table[name]).to_numpy(np.float32) for name in columns], axis=1)
        parts.append((rows, table["employed"].to_numpy(np.int64)))
    (rows, labels), (queries, truth) = parts
    chosen = np.random.default_rng(0).permutation(len(labels))[:TRAINED]
    return rows[chosen], labels[chosen], queries, truth


def _regression() -> Any:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=300))


def _tree(depth: int | None) -> Any:
    return DecisionTreeClassifier(max_depth=depth, random_state=0)


AGAIN = "the same again"
DIGITS = (
    Recipe("nearest centroid, 200 rows", NearestCentroid(), 200),
    Recipe(AGAIN, NearestCentroid(), 200),
    Recipe("10 random trees, 200 rows", RandomForestClassifier(10, random_state=0), 200),
    Recipe("logistic regression, 200 rows", _regression(), 200),
    Recipe("100 random trees, 200 rows", RandomForestClassifier(100, random_state=0), 200),
    Recipe("decision tree", _tree(None)),
    Recipe("logistic regression, all rows", _regression()),
    Recipe("25 nearest neighbours", KNeighborsClassifier(25)),
    Recipe(AGAIN, _regression()),
    Recipe("kernel SVM", SVC(gamma=0.25, C=10.0)),
    Recipe("100 random trees", ExtraTreesClassifier(100, random_state=0)),
)
SHUTTLE = (
    Recipe("logistic regression, sensor 5", _regression(), columns=[4]),
    Recipe(AGAIN, _regression(), columns=[4]),
    Recipe("logistic regression, sensor 4", _regression(), columns=[3]),
    Recipe("tree of depth 3, sensor 5", _tree(3), columns=[4]),
    Recipe("tree of depth 8, sensors 4 and 5", _tree(8), columns=[3, 4]),
    Recipe("tree of depth 3, sensor 8", _tree(3), columns=[7]),
    Recipe("nearest centroid, 300 rows", NearestCentroid(), 300),
    Recipe("5 nearest neighbours, 100 rows", KNeighborsClassifier(5, algorithm="brute"), 100),
    Recipe(AGAIN, NearestCentroid(), 300),
    Recipe("tree of depth 3, all sensors", _tree(3)),
    Recipe("naive Bayes", GaussianNB()),
)
JOBS = (
    Recipe("logistic regression, 3 columns", _regression(), columns=[0, 3, 4]),
    Recipe(AGAIN, _regression(), columns=[0, 3, 4]),
    Recipe("logistic regression, age alone", _regression(), columns=[0]),
    Recipe("logistic regression, 1,000 rows", _regression(), 1_000),
    Recipe("logistic regression, 200 rows", _regression(), 200),
    Recipe("decision tree", _tree(None)),
    Recipe("tree of depth 3", _tree(3)),
    Recipe("30 random trees", RandomForestClassifier(30, random_state=0)),
    Recipe(AGAIN, _tree(3)),
    Recipe("50 boosted trees", GradientBoostingClassifier(n_estimators=50, random_state=0)),
    Recipe("tree of depth 8", _tree(8)),
)


def sources(nannyml: Path | None) -> Mapping[str, Source]:
    """The data sets by name.

    Args:
        nannyml: A wheel of nannyml, whose table of jobs is read out of it; None: without that one.
    """
    found = {
        "digits": Source(difference=0.02, recipes=DIGITS, read=_digits),
        "shuttle": Source(difference=0.01, recipes=SHUTTLE, read=_shuttle),
    }
    if nannyml is not None:
        found["jobs"] = Source(difference=0.02, recipes=JOBS, read=lambda: _jobs(nannyml))
    return found
