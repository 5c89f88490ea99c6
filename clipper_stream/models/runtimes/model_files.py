"""What runtimes have in common: checked parameters, libraries that are optional extras, and models that are files.

A runtime of files is a `FileRuntime`; how its bytes become a model is all that it has of its own.
"""

import importlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from numpy.typing import NDArray

from clipper_stream.errors import ModelFailed, ModelNotLoaded, install_command, shown
from clipper_stream.models.allowlist import allows_file, local_path, not_allowed
from clipper_stream.models.fetch import default_cache_dir, fetched, read_remote
from clipper_stream.models.model import Model
from clipper_stream.models.row_spec import Column
from clipper_stream.names import choices

_MATRIX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRules:
    """The operator's rules about model files; never taken from a manifest.

    Attributes:
        unpickle: Whether a runtime may unpickle, which runs whatever the file says.
        cache_dir: Where fetched files are kept; None: `clipper-stream/models` in the user's cache directory.

    >>> FileRules().unpickle
    False
    """

    unpickle: bool = False
    cache_dir: str | None = None

    def fetched(self, uri: str, sha256: str) -> bytes:
        """The bytes of a file elsewhere; see `fetch.fetched`."""
        return fetched(uri, sha256, Path(self.cache_dir) if self.cache_dir else default_cache_dir())


STRICT = FileRules()
"""Nothing is unpickled, files are kept where they are by default."""


class Parameter(NamedTuple):
    """A parameter of a runtime: which values it takes, in code and in words, and its value when it is left out."""

    accepts: Callable[[Any], bool]
    words: str
    default: Any = None


def number(least: float, most: float, default: float) -> Parameter:
    """A finite number within bounds."""
    return Parameter(
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= most,
        f"a number in [{least}, {most}]",
        default,
    )


TEXT = Parameter(lambda value: isinstance(value, str) and value != "", "a text")
THREADS = Parameter(lambda value: type(value) is int and 1 <= value <= 1024, "an integer in [1, 1024]")  # noqa: PLR2004
FLAG = Parameter(lambda value: isinstance(value, bool), "true or false", default=False)
COLUMNS = Parameter(
    lambda value: isinstance(value, list) and value != [] and all(isinstance(name, str) for name in value),
    "a list of texts, one a column",
)


def checked_parameters(runtime: str, given: Mapping[str, Any], known: Mapping[str, Parameter]) -> dict[str, Any]:
    """The parameters of a manifest, with the defaults of those that are left out.

    Raises:
        ModelNotLoaded: one is unknown, or has a value that it does not take.

    >>> checked_parameters("xgboost", {"threads": 2}, {"threads": THREADS, "threshold": number(0, 1, 0.5)})
    {'threads': 2, 'threshold': 0.5}
    """
    for name in sorted(set(given) - set(known)):
        raise ModelNotLoaded(f"parameter {name!r} of the runtime {runtime}: {choices(name, sorted(known))}")
    for name, value in given.items():
        if value is not known[name].default and not known[name].accepts(value):
            raise ModelNotLoaded(f"{name} is {shown(value)}, give {known[name].words}")
    return {name: given.get(name, parameter.default) for name, parameter in known.items()}


def import_extra(extra: str, *modules: str) -> Any:
    """The first of the modules that an optional extra of this package brings, all of them imported.

    Raises:
        ModelNotLoaded: one is missing; the message says how it is installed.
    """
    try:
        first, *_ = [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise ModelNotLoaded(f"a library is missing ({error}): {install_command(extra)}") from error
    return first


@contextmanager
def prefix_errors(what: str) -> Iterator[None]:
    """Put what a message is about before the messages of errors."""
    try:
        yield
    except ModelNotLoaded as error:
        raise ModelNotLoaded(f"{what}: {error}") from error


class ModelFile(NamedTuple):
    """A file whose digest was compared, empty for a model without one, and what the manifest says beside it.

    Code that a parameter names may be of the `allowed` modules; None: of all.
    """

    content: bytes
    parameters: Mapping[str, Any] = {}
    allowed: Sequence[str] | None = None
    columns: Sequence[Column] = ()


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FileRuntime:
    """A runtime of model files, behind the `Runtime` protocol.

    Attributes:
        make: Makes the model of a file; may raise whatever its library raises.
        advice: How such a file is written, for one of which no model can be made.
        check_code: Raises `ModelNotLoaded` when checked parameters name code outside of the allowed modules.

    >>> runtime = FileRuntime(name="text", make=lambda file: file.content.decode(), advice="write UTF-8")
    >>> runtime.load("a.txt", ModelFile(b"ok"))
    'ok'
    """

    name: str
    make: Callable[[ModelFile], Model]
    advice: str
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    check_code: Callable[[Mapping[str, Any], Sequence[str]], None] | None = None
    UNPICKLES: bool = False
    NEEDS_DIGEST: bool = field(default=True, init=False)

    def check_allowed(self, uri: str, parameters: Mapping[str, Any], allowed: Sequence[str]) -> None:
        """Raise `ModelNotLoaded` when the file is in no allowed directory, or a parameter names other code."""
        if not allows_file(allowed, uri):
            raise not_allowed(f"model file {uri!r}", allowed, "allowed_locations", uri)
        if self.check_code is not None:
            with prefix_errors(f"model file {uri!r}"):
                self.check_code(checked_parameters(self.name, parameters, self.parameters), allowed)

    def read(self, uri: str) -> bytes:
        """The bytes of the file, here or elsewhere."""
        path = local_path(uri)
        if path is None:
            return read_remote(uri)
        try:
            return Path(path).read_bytes()
        except (OSError, ValueError) as error:
            why = getattr(error, "strerror", None) or error
            raise ModelNotLoaded(f"model file {uri!r}: {why}; put it where the model runs, at this path") from error

    def load(self, uri: str, file: ModelFile) -> Model:
        """Load the model of a file.

        Raises:
            ModelNotLoaded: a library is missing, a parameter does not fit, or the file is no model of this runtime.
        """
        with prefix_errors(f"model file {uri!r}"):
            wanted = checked_parameters(self.name, file.parameters, self.parameters)
            try:
                return self.make(file._replace(parameters=wanted))
            except ModelNotLoaded:
                raise
            except BaseException as error:
                said = str(error).partition("Stack trace")[0].strip()  # XGBoost's, of its C++
                raise ModelNotLoaded(f"cannot be loaded, {type(error).__name__}: {said}; {self.advice}") from error


def with_confidence(probabilities: NDArray[Any], labels: Sequence[Any] | None = None) -> list[dict[str, Any]]:
    """The most probable label of each row, and its probability, (rows, classes); without labels its column.

    >>> import numpy as np
    >>> with_confidence(np.array([[0.25, 0.75]]), ["cat", "dog"])
    [{'label': 'dog', 'confidence': 0.75}]
    """
    best = one_a_row(probabilities, labels if labels is not None else range(probabilities.shape[1]))
    sure = probabilities.max(axis=1).clip(0.0, 1.0).tolist()
    return [{"label": label, "confidence": each} for label, each in zip(best, sure, strict=True)]


def one_a_row(array: NDArray[Any], labels: Sequence[Any] | None = None) -> NDArray[Any] | list[Any]:
    """The rows of a batch's outputs; a column becomes plain values, a row of scores the label of the greatest.

    Raises:
        ModelFailed: the array has another number of columns than there are labels.

    >>> import numpy as np
    >>> one_a_row(np.array([[1.5], [2.5]])), one_a_row(np.array([[0.1, 0.9]]), ["cat", "dog"])
    (array([1.5, 2.5]), ['dog'])
    """
    if labels is not None:
        if array.shape[1:] != (len(labels),):
            found = f"the model gave scores of shape {array.shape}"
            raise ModelFailed(f"{found} for {len(labels)} labels: name one label a column in parameters.labels")
        return [labels[best] for best in array.argmax(axis=1)]
    return array[:, 0] if array.ndim == _MATRIX and array.shape[1] == 1 else array
