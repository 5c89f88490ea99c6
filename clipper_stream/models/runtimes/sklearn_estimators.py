"""The runtimes `sklearn` and `joblib`: scikit-learn's estimators in a `.skops` file, or in a pickle.

A skops file is a zip of a JSON description and arrays; loading it makes objects of the types that the description
names, and nothing else. Types of numpy and scikit-learn that are known to be harmless are trusted; for every other
one the operator says so in the manifest, `parameters = {"trusted": ["package.module.Type"]}`. To trust a type is to run
its code, so where only some modules are allowed it must be in one of them.

Rows of a table become a DataFrame of the columns that the estimator was fitted with. With `confidence` an output is
the label of the greatest probability by `predict_proba`, and that probability.

What joblib wrote is a pickle and runs whatever it says. Its runtime is for files that cannot be written anew: skops and
ONNX hold the same estimators, and run nothing.

Source: skops documentation, "Secure persistence with skops".
"""

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.allowlist import allows_module, not_allowed
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runtimes import model_files
from clipper_stream.models.runtimes.model_files import FLAG, FileRuntime, ModelFile, Parameter, import_extra
from clipper_stream.models.runtimes.python_function import FunctionModel
from clipper_stream.models.runtimes.tables import TableRows, fitted_columns, frame_maker, matrix_maker

_HARMLESS = frozenset({"numpy.dtype"})
"""A name and a size, of which skops makes an empty array; each ColumnTransformer has some."""
_TRUSTED = Parameter(
    lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) for name in value),
    "a list of type names",
    (),
)


def _load_skops(file: ModelFile) -> FunctionModel:
    skops = import_extra("sklearn", "skops.io", "sklearn")
    types = set(skops.get_untrusted_types(data=file.content))
    untrusted = types - _HARMLESS - set(file.parameters["trusted"])
    if untrusted:
        what = f"types in the file are not trusted: {', '.join(sorted(untrusted))}"
        todo = f"if you know them to be harmless, write parameters = {{ trusted = {json.dumps(sorted(types))} }}"
        raise ModelNotLoaded(f"{what}; {todo}, and add them to [models] allowed_modules where there are some")
    return _model_of(skops.loads(file.content, trusted=sorted(types)), file)


def _load_joblib(file: ModelFile) -> FunctionModel:
    return _model_of(import_extra("sklearn", "joblib").load(io.BytesIO(file.content)), file)


def _model_of(estimator: Any, file: ModelFile) -> FunctionModel:
    if not callable(getattr(estimator, "predict", None)):
        kind = type(estimator).__name__
        raise ModelNotLoaded(f"the file holds a {kind}, which has no predict: dump a fitted estimator")
    fitted, predict, columns = _fitted_row(estimator), estimator.predict, file.columns
    if file.parameters["confidence"]:
        if (probabilities := getattr(estimator, "predict_proba", None)) is None:
            what = f"a {type(estimator).__name__} has no predict_proba"
            raise ModelNotLoaded(f"{what}: calibrate it (CalibratedClassifierCV), or leave out confidence")
        labels = estimator.classes_.tolist()

        def predict(rows: Any) -> Any:
            return model_files.with_confidence(probabilities(rows), labels)

    if not columns:
        return FunctionModel(predict, fitted)
    if fitted is not None and fitted.columns:
        ready = frame_maker(fitted_columns(columns, [name for name, _ in fitted.columns]))
    else:
        ready = matrix_maker(columns, getattr(estimator, "n_features_in_", len(columns)))
    return FunctionModel(lambda rows: predict(ready(cast("TableRows", rows))), fitted)


def _fitted_row(estimator: Any) -> RowSpec | None:
    names, features = getattr(estimator, "feature_names_in_", None), getattr(estimator, "n_features_in_", None)
    if names is None:
        return None if features is None else RowSpec(shape=[int(features)])
    texts = set[str]()
    for step in _steps(estimator):
        for _, transformer, chosen in getattr(step, "transformers_", ()):
            if any(map(_takes_text, _steps(transformer))):
                texts.update([chosen] if isinstance(chosen, str) else map(str, chosen))
    return RowSpec("table", columns=[(str(name), "text" if name in texts else "number") for name in names])


def _steps(estimator: Any) -> Sequence[Any]:
    return [estimator, *getattr(estimator, "named_steps", {}).values()]


def _takes_text(step: Any) -> bool:
    """Whether it was fitted with texts: it has categories that are no numbers, or a vocabulary."""
    kinds = {np.asarray(known).dtype.kind for known in getattr(step, "categories_", ())}
    return bool(kinds & set("OSUT")) or hasattr(step, "vocabulary_")


def _check_trusted(parameters: Mapping[str, Any], allowed: Sequence[str]) -> None:
    if outside := [name for name in sorted(parameters["trusted"]) if not allows_module(allowed, name)]:
        raise not_allowed(f"trusted type {', '.join(map(repr, outside))}", allowed, "allowed_modules", *outside)


SKOPS = FileRuntime(
    name="sklearn",
    make=_load_skops,
    advice="write it with skops.io.dump",
    parameters={"trusted": _TRUSTED, "confidence": FLAG},
    check_code=_check_trusted,
)
JOBLIB = FileRuntime(
    name="joblib",
    make=_load_joblib,
    advice="write it with joblib.dump, by the same version of scikit-learn",
    parameters={"confidence": FLAG},
    UNPICKLES=True,
)
