"""What runtimes of model files have in common: whether a file is allowed, its bytes, its parameters, a missing library.

A runtime is a module with `NEEDS_DIGEST`, `UNPICKLES`, `check_allowed`, `read` and `load` (see `loading.Runtime`). One
of files takes `check_allowed` and `read` from here.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipper_stream.errors import ModelNotLoaded, shown
from clipper_stream.models.allowlist import allows_file, local_path, not_allowed
from clipper_stream.models.fetch import default_cache_dir, fetched, read_remote


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
        """The bytes of a file elsewhere; see `fetching.fetched`."""
        return fetched(uri, sha256, Path(self.cache_dir) if self.cache_dir else default_cache_dir())


STRICT = FileRules()
"""Nothing is unpickled, files are kept where they are by default."""


def check_allowed(uri: str, parameters: Mapping[str, Any], allowed: Sequence[str]) -> None:
    """Nothing, when the file is in an allowed directory.

    Raises:
        ModelNotLoaded: it is outside.
    """
    del parameters
    if not allows_file(allowed, uri):
        raise not_allowed(f"model file {uri!r}", allowed)


def read(uri: str) -> bytes:
    """The bytes of the file, here or elsewhere.

    Raises:
        ModelNotLoaded: no such file.
    """
    path = local_path(uri)
    if path is None:
        return read_remote(uri)
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        what = f"model file {uri!r}: {error}"
        raise ModelNotLoaded(f"{what}; put it where the model runs, at this path") from error


def check_parameters(uri: str, runtime: str, parameters: Mapping[str, Any], known: Mapping[str, type]) -> None:
    """Nothing, when every parameter is known and of its type.

    Raises:
        ModelNotLoaded: names what is not.

    >>> check_parameters("a.onnx", "onnx", {"threads": 2}, {"threads": int, "output": str})
    """
    unknown = sorted(set(parameters) - set(known))
    if unknown:
        takes = ", ".join(sorted(known)) or "none"
        raise ModelNotLoaded(
            f"model file {uri!r}: parameters {unknown} are unknown, the runtime {runtime} takes {takes}"
        )
    for name, value in parameters.items():
        if not isinstance(value, known[name]) or (isinstance(value, bool) and known[name] is not bool):
            expected = known[name].__name__
            raise ModelNotLoaded(
                f"model file {uri!r}: parameter {name} = {shown(value)}: give a value of type {expected}"
            )


def missing_library(uri: str, extra: str, error: ImportError) -> ModelNotLoaded:
    """The error that says how the library of a runtime is installed.

    Args:
        uri: The model.
        extra: The optional extra of this package that brings the library.
        error: What the import raised.
    """
    return ModelNotLoaded(f"model {uri!r} needs a library ({error}): pip install 'clipper-stream[{extra}]'")


def cannot_be_loaded(uri: str, error: BaseException, advice: str) -> ModelNotLoaded:
    """The error about a file whose bytes are as declared, and that is still no model.

    Args:
        uri: The model.
        error: What the library raised.
        advice: What to do about it.
    """
    said = str(error).partition("Stack trace")[0].strip()  # XGBoost's, of its C++
    return ModelNotLoaded(f"model file {uri!r} cannot be loaded, {type(error).__name__}: {said}; {advice}")
