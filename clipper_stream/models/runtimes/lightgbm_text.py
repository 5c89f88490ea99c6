"""The runtime `lightgbm`: a booster in LightGBM's text format, as `Booster.save_model` writes it.

Rules of this file:
- The format is text with numbers and runs no code, but its reader trusts it: a file that was cut off makes it read
  beyond its memory. So the file's digest is compared before, and its first and last words are looked for.
- The bytes whose digest was compared are those that are read: the file is not opened twice.

Source: LightGBM documentation, "Python API", `lightgbm.Booster`, and "Parameters", section "Core Parameters".
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from clipper_stream.models.model import Model
from clipper_stream.models.runtimes import boosters as boosting
from clipper_stream.models.runtimes.model_files import cannot_be_loaded, check_allowed, missing_library, read

__all__ = ["NEEDS_DIGEST", "UNPICKLES", "Booster", "check_allowed", "load", "read", "values_of"]

NEEDS_DIGEST = True
UNPICKLES = False
_FIRST, _LAST = "tree\n", "\nend of trees\n"
_CLASSIFIERS = frozenset({"binary", "multiclass", "multiclassova"})


class Booster(Protocol):
    """The part of `lightgbm.Booster` that is used."""

    def predict(self, matrix: NDArray[Any], /, *, num_threads: int) -> NDArray[Any]:
        """Values of shape (rows,) or (rows, classes)."""
        ...

    def num_feature(self) -> int:
        """Number of features of a row."""
        ...

    def num_model_per_iteration(self) -> int:
        """Trees that grow at once: the classes of a classifier of more than two."""
        ...


def load(uri: str, content: bytes, parameters: Mapping[str, Any], allowed: Sequence[str] | None = None) -> Model:
    """Load the booster of a file.

    Args:
        uri: Where the file is, for messages.
        content: Bytes of the file.
        parameters: Those of `boosting.BoosterParameters`.
        allowed: Holds the file.

    Raises:
        ModelNotLoaded: LightGBM is missing, the file is no model of it, or cannot give what the parameters ask for.
    """
    del allowed
    wanted = boosting.read_parameters(uri, "lightgbm", parameters)
    booster, objective = _booster(uri, content)
    classes = max(2, booster.num_model_per_iteration()) if objective in _CLASSIFIERS else 0
    boosting.check_fits(uri, objective, classes, wanted)
    return boosting.BoosterModel(
        values=values_of(booster, wanted.threads),
        features=booster.num_feature(),
        classes=classes,
        parameters=wanted,
    )


def values_of(booster: Booster, threads: int) -> boosting.BoosterValues:
    """Asks a booster, with so many threads a batch."""
    return lambda matrix: booster.predict(matrix, num_threads=threads)


def _booster(uri: str, content: bytes) -> tuple[Booster, str]:
    lightgbm = _lightgbm(uri)
    try:
        text = content.decode()
        if not text.startswith(_FIRST) or _LAST not in text:
            raise ValueError(f"a model begins with {_FIRST!r} and has {_LAST!r}")  # noqa: TRY301 - told like the others
        booster: Booster = lightgbm.Booster(model_str=text)
        return booster, _objective(text)
    except BaseException as error:  # LightGBM raises its own errors, and decoding others
        raise cannot_be_loaded(uri, error, "write it with Booster.save_model") from error


def _objective(text: str) -> str:
    """The first word of the header's line `objective=`, without the objective's own settings."""
    header = text.partition("\nTree=")[0]
    words = next((line.partition("=")[2].split() for line in header.splitlines() if line.startswith("objective=")), [])
    return words[0] if words else "custom"


def _lightgbm(uri: str) -> Any:
    try:
        import lightgbm  # noqa: PLC0415 - an optional extra, loaded only by who uses it
    except ImportError as error:
        raise missing_library(uri, "lightgbm", error) from error
    return lightgbm
