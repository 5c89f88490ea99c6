"""A model from what its manifest says: runtime, URI, digest and parameters.

Rules of this file:
- No code of a model file runs before its digest was compared.
- A manifest may come from anybody who can write to the control topic: `allowed_prefixes` says which modules and
  directories this process lets it name.
- No runtime reads pickle, which runs whatever the file says.
"""

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Protocol

from clipper_stream.errors import ModelNotLoaded, UnknownName
from clipper_stream.models import python_function, sklearn_skops
from clipper_stream.models.model import Model


class Runtime(Protocol):
    """One way to load models. A module with these three functions is one."""

    def read(self, uri: str, /) -> bytes:
        """The bytes whose digest the manifest states, empty when the model has no file.

        Raises:
            ModelNotLoaded: there is no such model.
        """
        ...

    def load(self, uri: str, content: bytes, parameters: Mapping[str, Any], /) -> Model:
        """The model.

        Args:
            uri: As in the manifest.
            content: What `read` gave.
            parameters: As in the manifest.

        Raises:
            ModelNotLoaded: with what to do about it.
        """
        ...

    def is_within(self, uri: str, prefix: str, /) -> bool:
        """Whether the URI names something inside the prefix: a package, or a directory."""
        ...


RUNTIMES: Mapping[str, Runtime] = MappingProxyType({"python": python_function, "sklearn": sklearn_skops})
"""The runtimes by the name that a manifest gives."""


def load_model(
    runtime: str,
    uri: str,
    sha256: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    *,
    allowed_prefixes: Sequence[str] | None = None,
    runtimes: Mapping[str, Runtime] = RUNTIMES,
) -> Model:
    """Load a model.

    Args:
        runtime: A name in `runtimes`.
        uri: What the runtime loads: `package.module:attribute`, or the path of a file.
        sha256: Hexadecimal digest that the model's file (for a Python function: its module's file) must have.
        parameters: Keyword arguments for the runtime.
        allowed_prefixes: Packages and directories, of which one must hold the URI; None allows all.
        runtimes: Which runtimes there are.

    Raises:
        UnknownName: no such runtime.
        ModelNotLoaded: not allowed, not found, another digest, or not loadable; the message says what to do.

    >>> load_model("python", "clipper_agents.examples.models:most_common_digit").predict_batch(["an image", "another"])
    [3, 3]
    """
    found = runtimes.get(runtime)
    if found is None:
        raise UnknownName(f"runtime {runtime!r}: use one of {', '.join(sorted(runtimes))}")
    if allowed_prefixes is not None and not any(found.is_within(uri, prefix) for prefix in allowed_prefixes):
        allowed = ", ".join(allowed_prefixes) or "nothing"
        raise ModelNotLoaded(f"model {uri!r} is outside of what this process may load ({allowed}): allow its prefix")
    content = found.read(uri)
    _check_digest(uri, content, sha256)
    return found.load(uri, content, parameters or {})


def _check_digest(uri: str, content: bytes, expected: str | None) -> None:
    actual = hashlib.sha256(content).hexdigest()
    if expected is not None and actual != expected.strip().lower():
        message = f"model {uri!r} has sha256 {actual}, its manifest says {expected}: deploy it as another version"
        raise ModelNotLoaded(message)
