"""The runtimes `sklearn` and `joblib`: scikit-learn's estimators in a `.skops` file, or in a pickle.

A skops file is a zip of a JSON description and arrays; loading it makes objects of the types that the description
names, and nothing else. Types of numpy and scikit-learn that are known to be harmless are trusted; for every other
one the operator says so in the manifest, `parameters = {"trusted": ["package.module.Type"]}`. To trust a type is to run
its code, so where only some modules are allowed it must be in one of them.

What joblib wrote is a pickle and runs whatever it says. Its runtime is for files that cannot be written anew: skops and
ONNX hold the same estimators, and run nothing.

Source: skops documentation, "Secure persistence with skops".
"""

import io
from collections.abc import Mapping, Sequence
from typing import Any

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.allowlist import allows_module, not_allowed
from clipper_stream.models.runtimes.model_files import FileRuntime, ModelFile, Parameter, import_extra
from clipper_stream.models.runtimes.python_function import FunctionModel

_TRUSTED = Parameter(
    lambda value: isinstance(value, list | tuple) and all(isinstance(name, str) for name in value),
    "a list of type names",
    (),
)


def _load_skops(file: ModelFile) -> FunctionModel:
    skops = import_extra("sklearn", "skops.io", "sklearn")
    types = set(skops.get_untrusted_types(data=file.content))
    untrusted = types - set(file.parameters["trusted"])
    if untrusted:
        what = f"types in the file are not trusted: {', '.join(sorted(untrusted))}"
        raise ModelNotLoaded(f"{what}; if you know them to be harmless, name them in the manifest's parameters.trusted")
    return _model_of(skops.loads(file.content, trusted=sorted(types)))


def _load_joblib(file: ModelFile) -> FunctionModel:
    return _model_of(import_extra("sklearn", "joblib").load(io.BytesIO(file.content)))


def _model_of(estimator: Any) -> FunctionModel:
    if not callable(getattr(estimator, "predict", None)):
        kind = type(estimator).__name__
        raise ModelNotLoaded(f"the file holds a {kind}, which has no predict: dump a fitted estimator")
    return FunctionModel(estimator.predict)


def _check_trusted(parameters: Mapping[str, Any], allowed: Sequence[str]) -> None:
    for name in sorted(parameters["trusted"]):
        if not allows_module(allowed, name):
            raise not_allowed(f"trusted type {name!r}", allowed, "allowed_modules", name)


SKOPS = FileRuntime(
    name="sklearn",
    make=_load_skops,
    advice="write it with skops.io.dump",
    parameters={"trusted": _TRUSTED},
    check_code=_check_trusted,
)
JOBLIB = FileRuntime(
    name="joblib",
    make=_load_joblib,
    advice="write it with joblib.dump, by the same version of scikit-learn",
    UNPICKLES=True,
)
