"""A model from what its manifest says: runtime, URI, digest and parameters.

Rules of this file:
- No code of a model file runs before its digest was compared.
- A manifest may come from anybody who can write to the control topic: `allowed` says which modules and directories this
  process lets it name (`[models]` of its configuration), and nothing is imported or read before that was asked.
- A runtime that reads files needs their digest: an allowed directory says who may write there, the digest what was
  meant.
- A runtime that unpickles, which runs whatever the file says, is used where the operator of the process permits it
  (`models.unpickle`), and no manifest can.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any, Protocol

from clipper_stream.errors import ModelNotLoaded, UnknownName, shown
from clipper_stream.models.allowlist import local_path
from clipper_stream.models.model import Model
from clipper_stream.models.row_spec import Column
from clipper_stream.models.runtimes import (
    boosters,
    mlflow_pyfunc,
    oip_http,
    onnx_model,
    python_function,
    sklearn_estimators,
)
from clipper_stream.models.runtimes.model_files import STRICT, FileRules, ModelFile
from clipper_stream.names import choices


class Runtime(Protocol):
    """A way to load models; a module with these functions implements it, and for files a `FileRuntime`.

    What it refuses is a `ModelNotLoaded` that says what to do.
    """

    @property
    def NEEDS_DIGEST(self) -> bool:  # noqa: N802 - a constant of the module
        """Whether what the runtime reads is a file that anything may have been put into."""
        ...

    @property
    def UNPICKLES(self) -> bool:  # noqa: N802 - a constant of the module
        """Whether loading runs whatever the file says, so that the operator must permit it."""
        ...

    def check_allowed(self, uri: str, parameters: Mapping[str, Any], allowed: Sequence[str], /) -> None:
        """Raise `ModelNotLoaded` unless what is allowed holds all that the URI and the parameters name."""
        ...

    def read(self, uri: str, /) -> bytes:
        """The bytes whose digest the manifest states, empty when the model has no file."""
        ...

    def load(self, uri: str, file: ModelFile, /) -> Model:
        """The model of the bytes that `read` gave, or whose digest was stated."""
        ...


RUNTIMES: Mapping[str, Runtime] = MappingProxyType(
    {
        "python": python_function,
        "sklearn": sklearn_estimators.SKOPS,
        "onnx": onnx_model.ONNX,
        "joblib": sklearn_estimators.JOBLIB,
        "mlflow": mlflow_pyfunc.PYFUNC,
        "lightgbm": boosters.LIGHTGBM,
        "xgboost": boosters.XGBOOST,
        "oip": oip_http,
    }
)
"""The runtimes by the name that a manifest gives."""
_RUNTIMES_BY_SUFFIX = {
    ".skops": "sklearn",
    ".onnx": "onnx",
    ".joblib": "joblib",
    ".pkl": "joblib",
    ".txt": "lightgbm",
    ".lgb": "lightgbm",
    ".ubj": "xgboost",
    ".json": "xgboost",
}


def load_model(
    runtime: str,
    uri: str,
    sha256: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    columns: Sequence[Column] = (),
    allowed: Sequence[str] | None = None,
    files: FileRules = STRICT,
    runtimes: Mapping[str, Runtime] = RUNTIMES,
) -> Model:
    """Load a model as its manifest describes it.

    Args:
        runtime: A name in `runtimes`.
        uri: What the runtime loads: `package.module:attribute`, or the path or URI of a file.
        sha256: Hexadecimal digest that the model's file (for a Python function: its module's file) must have.
        parameters: Keyword arguments for the runtime.
        columns: Of a row, which is a dictionary then; none: a row is no row of a table.
        allowed: Packages, modules and directories that must hold what is loaded; None allows all, for a program that
            loads what it names itself.
        files: What the operator says about model files.
        runtimes: Which runtimes there are.

    Raises:
        UnknownName: no such runtime.
        ModelNotLoaded: not allowed, not found, another digest or none, or not loadable; the message says what to do.

    >>> load_model("python", "clipper_agents.examples.models:most_common_digit").predict_batch(["an image", "another"])
    [3, 3]
    """
    found = check_allowed(runtime, uri, parameters, allowed, files, runtimes)
    expected = sha256.strip().lower() if sha256 else None
    elsewhere = found.NEEDS_DIGEST and local_path(uri) is None
    content = files.fetched(uri, expected) if elsewhere and expected else found.read(uri)
    _check_digest(uri, content, expected, required=found.NEEDS_DIGEST)
    return found.load(uri, ModelFile(content, parameters or {}, allowed, columns))


def check_allowed(
    runtime: str,
    uri: str,
    parameters: Mapping[str, Any] | None,
    allowed: Sequence[str] | None,
    files: FileRules = STRICT,
    runtimes: Mapping[str, Runtime] = RUNTIMES,
) -> Runtime:
    """The runtime of a model, when a process may load that; nothing is imported or read for it. As `load_model`.

    Raises:
        UnknownName: no such runtime.
        ModelNotLoaded: names what is outside of what the process may load, or unpickles, and that is not permitted.
    """
    found = runtime_of(runtime, runtimes)
    if allowed is not None:
        found.check_allowed(uri, parameters or {}, allowed)
    if found.UNPICKLES and not files.unpickle:
        raise ModelNotLoaded(
            f"model {uri!r}: the runtime {runtime} unpickles, which runs whatever the file says: export the model to "
            "onnx or skops, or, if you trust all who may write such manifests and files, set [models] unpickle = true "
            "where it is loaded"
        )
    return found


def check_declared(
    runtime: str,
    uri: str,
    sha256: str | None,
    parameters: Mapping[str, Any],
    allowed: Sequence[str],
    files: FileRules = STRICT,
) -> None:
    """Nothing, when a process may follow a manifest that says this: allowed, and with the digest that it needs.

    Raises:
        UnknownName: no such runtime.
        ModelNotLoaded: names what is outside, or missing, or not permitted.
    """
    if check_allowed(runtime, uri, parameters, allowed, files).NEEDS_DIGEST and sha256 is None:
        raise ModelNotLoaded(f"model file {uri!r} has no sha256: publish it with `clipper-stream apply`, or add it")


def runtime_for(uri: str) -> str | None:
    """The runtime that the form of a URI tells, where nobody says another; None when it tells none.

    >>> runtime_for("models/a.skops"), runtime_for("s3://acme/a.onnx"), runtime_for("acme.models:svm")
    ('sklearn', 'onnx', 'python')
    >>> runtime_for("http://models:8080/v2/models/a"), runtime_for("models/a")
    ('oip', None)
    """
    if by_suffix := _RUNTIMES_BY_SUFFIX.get(PurePosixPath(uri).suffix):
        return by_suffix
    if uri.startswith(("http://", "https://")):
        return "oip"
    return "python" if ":" in uri and "/" not in uri else None


def runtime_of(name: str, runtimes: Mapping[str, Runtime] = RUNTIMES) -> Runtime:
    """The runtime of this name, or `UnknownName`."""
    found = runtimes.get(name)
    if found is None:
        raise UnknownName(f"runtime {shown(name)}: {choices(name, sorted(runtimes))}")
    return found


def file_digest(runtime: str, uri: str) -> str | None:
    """The digest that a manifest of this model must state; None when it need not. Errors as of `load_model`."""
    found = runtime_of(runtime)
    return hashlib.sha256(found.read(uri)).hexdigest() if found.NEEDS_DIGEST else None


def _check_digest(uri: str, content: bytes, expected: str | None, *, required: bool) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if expected is None and required:
        message = f'model file {uri!r} needs a digest in its manifest: if this is the file, add sha256 = "{actual}"'
        raise ModelNotLoaded(message)
    if expected is not None and actual != expected:
        message = f"model {uri!r} has sha256 {actual}, its manifest says {expected}: deploy it as another version"
        raise ModelNotLoaded(message)
