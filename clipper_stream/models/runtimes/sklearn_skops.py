"""The runtime `sklearn`: an estimator in a `.skops` file, of which every type must be trusted by name.

A skops file is a zip of a JSON description and arrays; loading it makes objects of the types that the description
names, and nothing else. Types of numpy and scikit-learn that are known to be harmless are trusted; for every other
one the operator says so in the manifest, `parameters = {"trusted": ["package.module.Type"]}`. To trust a type is to run
its code, so where only some modules are allowed it must be in one of them.

Source: skops documentation, "Secure persistence with skops".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from clipper_stream.errors import ModelNotLoaded
from clipper_stream.models.allowlist import allows_module, not_allowed
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.runtimes import model_files as files
from clipper_stream.models.runtimes.model_files import cannot_be_loaded, missing_library, read

__all__ = ["NEEDS_DIGEST", "UNPICKLES", "EstimatorModel", "check_allowed", "load", "read"]

_PARAMETERS = frozenset({"trusted"})


class SkopsEstimator(Protocol):
    """The part of a scikit-learn estimator that is used."""

    def predict(self, inputs: Rows, /) -> NDArray[Any]:
        """One output a row."""
        ...


@dataclass(frozen=True, slots=True)
class EstimatorModel:
    """A scikit-learn estimator behind the `Model` protocol.

    Attributes:
        estimator: A fitted scikit-learn estimator.
    """

    estimator: SkopsEstimator

    def predict_batch(self, inputs: Rows) -> NDArray[Any]:
        """The estimator's predictions."""
        return self.estimator.predict(inputs)


NEEDS_DIGEST = True
UNPICKLES = False


def check_allowed(uri: str, parameters: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Nothing, when the file is in an allowed directory and every trusted type in an allowed module.

    Raises:
        ModelNotLoaded: names what is outside.
    """
    files.check_allowed(uri, parameters, allowed)
    for name in sorted(_trusted(uri, parameters)):
        if not allows_module(allowed, name):
            raise not_allowed(f"model file {uri!r}: trusted type {name!r}", allowed)


def load(uri: str, content: bytes, parameters: Mapping[str, Any], allowed: Sequence[str] | None = None) -> Model:
    """Load the estimator of a file.

    Args:
        uri: Path of the file, for messages.
        content: Bytes of the file.
        parameters: `trusted`: names of further types that the file may hold.
        allowed: Where the trusted types may be, which `check_allowed` has looked at.

    Raises:
        ModelNotLoaded: scikit-learn is missing, the file is no skops file, holds a type that is not trusted, or
            something that cannot predict.
    """
    del allowed
    trusted = _trusted(uri, parameters)
    skops = _skops(uri)
    try:
        untrusted = set(skops.get_untrusted_types(data=content))
        _check_trusted(uri, untrusted - trusted)
        estimator = skops.loads(content, trusted=sorted(untrusted))
    except ModelNotLoaded:
        raise
    except BaseException as error:  # skops raises what zipfile, json and each type's constructor raise
        raise cannot_be_loaded(uri, error, "write it with skops.io.dump") from error
    if not callable(getattr(estimator, "predict", None)):
        kind = type(estimator).__name__
        raise ModelNotLoaded(f"model file {uri!r} holds a {kind}, which has no predict: dump a fitted estimator")
    return EstimatorModel(estimator)


def _trusted(uri: str, parameters: Mapping[str, Any]) -> set[str]:
    unknown = sorted(set(parameters) - _PARAMETERS)
    if unknown:
        raise ModelNotLoaded(f"model file {uri!r}: parameters {unknown} are unknown, the runtime sklearn takes trusted")
    names: Sequence[Any] = parameters.get("trusted", [])
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
        raise ModelNotLoaded(f"model file {uri!r}: trusted is {names!r}, give a list of type names")
    return set(names)


def _check_trusted(uri: str, untrusted: set[str]) -> None:
    if untrusted:
        names = ", ".join(sorted(untrusted))
        what = f"model file {uri!r} holds types that are not trusted: {names}"
        raise ModelNotLoaded(f"{what}; if you know them to be harmless, name them in the manifest's parameters.trusted")


def _skops(uri: str) -> Any:
    try:
        import sklearn  # noqa: F401, PLC0415 - an optional extra, loaded only by who uses it
        import skops.io  # noqa: PLC0415
    except ImportError as error:
        raise missing_library(uri, "sklearn", error) from error
    return skops.io
