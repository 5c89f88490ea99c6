"""The runtimes `lightgbm` and `xgboost`: boosted trees in the files that `Booster.save_model` writes.

Rules of this file:
- Neither library's format runs code; a pickled booster and XGBoost's binary format of old are refused.
- Both readers trust a file: one that was cut off makes LightGBM's read beyond its memory, and ends the process or asks
  for all memory there is in XGBoost's. So the end of a file is looked at before.
- A booster gives values: a number, the probability of class 1 of two, or one probability a class. What an application
  asks for is one of three: `label`, `probabilities` (one a class, two of two) or `value` (what the booster gives).
- Nothing says `label` of a booster that does not tell classes apart: a number would be taken for a class.
- A table becomes a matrix of the columns that the booster was trained with, in its order. LightGBM's file has the
  categories of a DataFrame's columns, and an unknown one is a missing value: it takes texts; XGBoost does not.
- A booster of XGBoost that stopped early answers with the trees up to its best iteration, as its own estimators do.

Source: LightGBM documentation, "Python API", `lightgbm.Booster`, and "Parameters", section "Core Parameters"; XGBoost
documentation, "Introduction to Model IO" and "Learning Task Parameters".
"""

import json
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import ModelFailed, ModelNotLoaded
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.row_spec import Column, RowSpec
from clipper_stream.models.runtimes import model_files
from clipper_stream.models.runtimes.model_files import FLAG, THREADS, FileRuntime, ModelFile, Parameter, import_extra
from clipper_stream.models.runtimes.python_function import FunctionModel
from clipper_stream.models.runtimes.tables import TableRows, fitted_columns, matrix_maker

_MATRIX = 2
_OUTPUTS = ("label", "probabilities", "value")
PARAMETERS = {
    "output": Parameter(lambda value: value in _OUTPUTS, f"one of {', '.join(_OUTPUTS)}"),
    "labels": Parameter(
        lambda value: isinstance(value, list | tuple) and all(isinstance(label, str | int | float) for label in value),
        "a list of texts or numbers",
    ),
    "threshold": model_files.number(0, 1, default=0.5),
    "confidence": FLAG,
    "threads": THREADS._replace(default=1),
}
_LIGHTGBM_BEGINS, _LIGHTGBM_ENDS = "tree\n", "\nend of trees\n"
_LIGHTGBM_CLASSIFIERS = frozenset({"binary", "multiclass", "multiclassova"})
_UNNAMED = re.compile(r"Column_\d+")
"""What LightGBM calls the columns of a matrix."""
_CATEGORICAL = re.compile(r"^\[categorical_feature: ([\d,]+)\]$", re.MULTILINE)
_JSON_BEGINS = frozenset({b'{"', b"{ ", b"{\n", b"{\r"})
_TWO_CLASSES = frozenset({"binary:logistic", "binary:hinge"})
_MANY_CLASSES = "multi:softprob"
_LABELS_ONLY = "multi:softmax"
"""Gives labels where `multi:softprob` gives probabilities, of the same trees: it is read as that."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BoosterModel:
    """A booster behind the `Model` protocol.

    Attributes:
        values: Asks the booster about a matrix of shape (rows, features): values of shape (rows,) or (rows, classes).
        fitted_row: What it was trained with: a table, or a matrix without names.
        classes: How many classes it tells apart, 0 for a booster that gives numbers.
        parameters: `PARAMETERS` of the manifest.

    Raises:
        ModelNotLoaded: classes are asked for that the booster does not know, or named in another number than it has.

    >>> import numpy as np
    >>> parameters = {"output": "label", "labels": ["cat", "dog"], "threshold": 0.5, "confidence": False}
    >>> how = dict(fitted_row=RowSpec(shape=[1]), objective="binary", classes=2, parameters=parameters)
    >>> BoosterModel(values=lambda matrix: matrix[:, 0], **how).predict_batch(np.array([[0.2], [0.7]], "float32"))
    ['cat', 'dog']

    Source: the class's own; the meaning of the values is that of `Booster.predict` in LightGBM and XGBoost.
    """

    values: Callable[[NDArray[Any]], NDArray[Any]]
    fitted_row: RowSpec
    objective: str
    classes: int
    parameters: Mapping[str, Any]

    def __post_init__(self) -> None:
        output, labels = self.parameters["output"], self.parameters["labels"]
        if (output in ("label", "probabilities") or self.parameters["confidence"]) and not self.classes:
            what = f"output is {output!r}, and the objective {self.objective!r} tells no classes"
            raise ModelNotLoaded(f'{what} apart: use output = "value", or train a classifier')
        if labels is not None and len(labels) != self.classes:
            what = f"labels has {len(labels)} names, and the booster has {self.classes} classes"
            raise ModelNotLoaded(f"{what}: give one name a class")

    @property
    def features(self) -> int:
        return len(self.fitted_row.columns) or math.prod(self.fitted_row.shape or ())

    def of_table(self, columns: Sequence[Column], categories: Sequence[Sequence[Any]] = ()) -> Model:
        """The model that takes rows of a table with these columns."""
        names = [name for name, _ in self.fitted_row.columns]
        ready = matrix_maker(fitted_columns(columns, names) if names else columns, self.features, categories)
        return FunctionModel(lambda rows: self.predict_batch(ready(cast("TableRows", rows))), self.fitted_row)

    def predict_batch(self, inputs: Rows) -> Sequence[Any] | NDArray[Any]:
        """Return one output a row, computed in one call; a row of more dimensions is read in C order.

        Raises:
            ModelFailed: rows that are no numbers, or of another length than the booster was trained with.
        """
        if not isinstance(inputs, np.ndarray) or inputs.dtype.kind not in "iufb":
            raise ModelFailed("a booster takes rows of numbers: give the model an input of a numeric dtype")
        matrix = inputs.reshape(len(inputs), -1)
        if matrix.shape[1] != self.features:
            what = f"a row of {matrix.shape[1]} numbers, and the booster was trained with {self.features}"
            raise ModelFailed(f"{what}: give the model the input shape [{self.features}]")
        return self._outputs(self.values(matrix))

    def _outputs(self, values: NDArray[Any]) -> Sequence[Any] | NDArray[Any]:
        wanted = self.parameters["output"] or ("label" if self.classes else "value")
        of_two, names = values.ndim != _MATRIX, self.parameters["labels"]
        if self.parameters["confidence"] or wanted == "probabilities":
            matrix = np.stack([1 - values, values], axis=1) if of_two else values
            return model_files.with_confidence(matrix, names) if self.parameters["confidence"] else matrix
        if wanted == "value":
            return values
        numbers = (values >= self.parameters["threshold"]).astype(int) if of_two else values.argmax(axis=1)
        return numbers if names is None else [names[number] for number in numbers]


def _fitted_row(names: Sequence[str] | None, features: int, texts: Collection[int] = ()) -> RowSpec:
    """What a booster with these names, or without any, was trained with; `texts` are places of columns."""
    if names is None:
        return RowSpec(shape=[features], missing=True)
    columns = [(name, "text" if place in texts else "number") for place, name in enumerate(names)]
    return RowSpec("table", columns=columns, missing=True)


def _load_lightgbm(file: ModelFile) -> Model:
    lightgbm = import_extra("lightgbm", "lightgbm")
    text = file.content.decode()
    if not text.startswith(_LIGHTGBM_BEGINS) or _LIGHTGBM_ENDS not in text:
        raise ValueError(f"a model begins with {_LIGHTGBM_BEGINS!r} and has {_LIGHTGBM_ENDS!r}")
    booster = lightgbm.Booster(model_str=text)
    objective = _lightgbm_objective(text)
    names, categories = booster.feature_name(), booster.pandas_categorical or []
    coded = _CATEGORICAL.search(text) if categories else None
    texts = {int(place) for place in coded[1].split(",")} if coded else set()
    model = BoosterModel(
        values=partial(booster.predict, num_threads=file.parameters["threads"]),
        fitted_row=_fitted_row(None if all(map(_UNNAMED.fullmatch, names)) else names, booster.num_feature(), texts),
        objective=objective,
        classes=max(2, booster.num_model_per_iteration()) if objective in _LIGHTGBM_CLASSIFIERS else 0,
        parameters=file.parameters,
    )
    return model.of_table(file.columns, categories) if file.columns else model


def _lightgbm_objective(text: str) -> str:
    """The first word of the header's line `objective=`, without the objective's own settings."""
    header = text.partition("\nTree=")[0]
    words = next((line.partition("=")[2].split() for line in header.splitlines() if line.startswith("objective=")), [])
    return words[0] if words else "custom"


def _load_xgboost(file: ModelFile) -> Model:
    xgboost, threads = import_extra("xgboost", "xgboost"), file.parameters["threads"]
    if file.content[:2] in _JSON_BEGINS:
        json.loads(file.content)
    elif not (file.content.startswith(b"{") and file.content.endswith(b"}")):
        raise ValueError("a model in UBJSON begins with b'{' and ends with b'}'")
    booster = xgboost.Booster({"nthread": threads})
    booster.load_model(bytearray(file.content))  # the bytes whose digest was compared: no file is opened twice
    booster.set_param({"nthread": threads, "device": "cpu"})
    learner = json.loads(booster.save_config())["learner"]
    objective, classes = learner["objective"]["name"], int(learner["learner_model_param"]["num_class"])
    if objective == _LABELS_ONLY:
        booster.set_param({"objective": _MANY_CLASSES, "num_class": classes})
        objective = _MANY_CLASSES
    if objective != _MANY_CLASSES:
        classes = 2 if objective in _TWO_CLASSES else 0
    best = booster.attr("best_iteration")
    trees = (0, int(best) + 1) if best is not None and best.isdecimal() else (0, 0)  # (0, 0): all
    coded = [place for place, kind in enumerate(booster.feature_types or ()) if kind == "c"]
    model = BoosterModel(
        values=partial(booster.inplace_predict, iteration_range=trees),
        fitted_row=_fitted_row(booster.feature_names, booster.num_features(), coded),
        objective=objective,
        classes=classes,
        parameters=file.parameters,
    )
    return model.of_table(file.columns) if file.columns else model


LIGHTGBM = FileRuntime(
    name="lightgbm", make=_load_lightgbm, advice="write it with Booster.save_model", parameters=PARAMETERS
)
XGBOOST = FileRuntime(
    name="xgboost", make=_load_xgboost, advice="write it with Booster.save_model('model.ubj')", parameters=PARAMETERS
)
