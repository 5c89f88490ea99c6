"""What the runtimes of boosted trees share: which file, which parameters, and what becomes of a booster's values.

Rules of this file:
- A booster gives values: a number, the probability of class 1 of two, or one probability a class. What an application
  asks for is one of three: `label`, `probabilities` (one a class, two of two) or `value` (what the booster gives).
- Nothing says `label` of a booster that does not tell classes apart: a number would be taken for a class.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from clipper_stream.errors import ModelFailed, ModelNotLoaded
from clipper_stream.models.model import Rows

_OUTPUTS = ("label", "probabilities", "value")
_DEFAULTS: Mapping[str, Any] = {"output": None, "threshold": 0.5, "threads": 1}
_KNOWN = frozenset({*_DEFAULTS, "labels"})
_MATRIX = 2
MAX_THREADS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class BoosterParameters:
    """Parameters of a booster in a manifest.

    Attributes:
        output: `label`, `probabilities` or `value`; None: `label` of a classifier, else `value`.
        labels: Names of the classes in the order of their numbers; None: the numbers.
        threshold: Least probability of class 1 for the label 1, where there are two classes, in [0, 1].
        threads: Threads of one batch, at least 1.
    """

    output: str | None = None
    labels: tuple[Any, ...] | None = None
    threshold: float = 0.5
    threads: int = 1


class BoosterValues(Protocol):
    """Asks a booster about a matrix of shape (rows, features): values of shape (rows,) or (rows, classes)."""

    def __call__(self, matrix: NDArray[Any], /) -> NDArray[Any]:
        """The values."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class BoosterModel:
    """A booster behind the `Model` protocol.

    Attributes:
        values: Asks the booster.
        features: How many numbers a row has.
        classes: How many classes it tells apart, 0 for a booster that gives numbers.
        parameters: As in the manifest.

    >>> import numpy as np
    >>> model = BoosterModel(values=lambda matrix: matrix[:, 0], features=1, classes=2, parameters=BoosterParameters())
    >>> model.predict_batch(np.array([[0.2], [0.7]], "float32"))
    array([0, 1])

    Source: the class's own; the meaning of the values is that of `Booster.predict` in LightGBM and XGBoost.
    """

    values: BoosterValues
    features: int
    classes: int
    parameters: BoosterParameters

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
        wanted = self.parameters.output or ("label" if self.classes else "value")
        if wanted == "value":
            return values
        if wanted == "probabilities":
            return values if values.ndim == _MATRIX else np.stack([1 - values, values], axis=1)
        numbers = values.argmax(axis=1) if values.ndim == _MATRIX else (values >= self.parameters.threshold).astype(int)
        names = self.parameters.labels
        return numbers if names is None else [names[number] for number in numbers]


def read_parameters(uri: str, runtime: str, parameters: Mapping[str, Any]) -> BoosterParameters:
    """The parameters of a manifest, each checked.

    Args:
        uri: For messages.
        runtime: For messages.
        parameters: As in the manifest.

    Raises:
        ModelNotLoaded: an unknown one, or a value out of its bounds.
    """
    unknown = sorted(set(parameters) - _KNOWN)
    if unknown:
        takes = ", ".join(sorted(_KNOWN))
        raise ModelNotLoaded(
            f"model file {uri!r}: parameters {unknown} are unknown, the runtime {runtime} takes {takes}"
        )
    output, threshold, threads = (parameters.get(name, default) for name, default in _DEFAULTS.items())
    if output not in (None, *_OUTPUTS):
        raise ModelNotLoaded(f"model file {uri!r}: output is {output!r}, give one of {', '.join(_OUTPUTS)}")
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold <= 1:
        raise ModelNotLoaded(f"model file {uri!r}: threshold is {threshold!r}, give a number in [0, 1]")
    if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
        raise ModelNotLoaded(f"model file {uri!r}: threads is {threads!r}, give an integer in [1, {MAX_THREADS}]")
    labels = _labels(uri, parameters.get("labels"))
    return BoosterParameters(output=output, labels=labels, threshold=threshold, threads=threads)


def check_fits(uri: str, objective: str, classes: int, parameters: BoosterParameters) -> None:
    """Nothing, when the booster can give what the parameters ask for.

    Args:
        uri: For messages.
        objective: What the booster was trained for, for messages.
        classes: How many classes it tells apart, 0: none.
        parameters: As in the manifest.

    Raises:
        ModelNotLoaded: classes are asked for that it does not know, or named in another number than it has.
    """
    if parameters.output in ("label", "probabilities") and not classes:
        what = f"model file {uri!r}: output is {parameters.output!r}, and the objective {objective!r} tells no classes"
        raise ModelNotLoaded(f'{what} apart: use output = "value", or train a classifier')
    if parameters.labels is not None and len(parameters.labels) != classes:
        what = f"model file {uri!r}: labels has {len(parameters.labels)} names, and the booster has {classes} classes"
        raise ModelNotLoaded(f"{what}: give one name a class")


def _labels(uri: str, labels: Any) -> tuple[Any, ...] | None:
    if labels is None:
        return None
    if not isinstance(labels, list | tuple) or not all(isinstance(label, str | int | float) for label in labels):
        raise ModelNotLoaded(f"model file {uri!r}: labels is {labels!r}, give a list of texts or numbers")
    return tuple(labels)
