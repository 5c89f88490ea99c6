"""Weighted mean of numbers, or of lists of numbers of one shape."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from clipper_stream.errors import ModelFailed

TOLERANCE = 0.05
"""Two numbers agree when they differ by at most 5 % of the answer, or 0.05 where the answer is within [-1, 1]."""


def mean(outputs: Mapping[str, Any], shares: Mapping[str, float]) -> tuple[Any, int]:
    """The weighted mean, and how many models are near it.

    A model agrees when it lies within `TOLERANCE` of the answer, in every element of a list. An output that is no
    finite number counts like one that is missing.

    Args:
        outputs: A number, or a nested list of numbers, of each model, in candidate order.
        shares: Weight of each model.

    Returns:
        A float, or nested lists of floats of the outputs' shape; and the number of models that agree.

    Raises:
        ModelFailed: no output is a finite number, or the outputs have different shapes.

    >>> mean({"a:1": 1.0, "b:1": 3.0}, {"a:1": 3.0, "b:1": 1.0})
    (1.5, 0)
    >>> mean({"a:1": [1.0, 0.0], "b:1": [1.0, 0.02]}, {"a:1": 1.0, "b:1": 1.0})
    ([1.0, 0.01], 2)

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5.2 (linear ensembles).
    """
    if all(type(output) is float or type(output) is int for output in outputs.values()):
        numbers = {model: number for model, output in outputs.items() if (number := _finite_number(output)) is not None}
        if numbers:
            return _mean_of_numbers(numbers, shares)
    return _mean_of_arrays(outputs, shares)


def _mean_of_numbers(numbers: Mapping[str, float], shares: Mapping[str, float]) -> tuple[float, int]:
    """The common case in plain Python: ten times faster than numpy for a handful of numbers."""
    weights = [shares[model] for model in numbers]
    total = sum(weights)
    if total == 0.0:
        weights, total = [1.0] * len(numbers), float(len(numbers))
    answer = sum(weight / total * number for weight, number in zip(weights, numbers.values(), strict=True))
    near = TOLERANCE * max(1.0, abs(answer))
    return answer, sum(abs(number - answer) <= near for number in numbers.values())


def _mean_of_arrays(outputs: Mapping[str, Any], shares: Mapping[str, float]) -> tuple[Any, int]:
    arrays = {model: array for model, output in outputs.items() if (array := _finite_array(output)) is not None}
    shapes = {model: array.shape for model, array in arrays.items()}
    if len(set(shapes.values())) != 1:
        found = ", ".join(f"{model} gave {shape}" for model, shape in shapes.items()) or f"got {_shortened(outputs)}"
        raise ModelFailed(f"a mean needs finite numbers, or lists of one shape: {found}; use `vote` for labels")
    weights = np.array([shares[model] for model in arrays])
    stacked = np.stack(list(arrays.values()))
    fractions = weights / weights.sum() if weights.any() else np.full(len(weights), 1.0 / len(weights))
    answer = np.tensordot(fractions, stacked, axes=1)
    near = np.abs(stacked - answer) <= TOLERANCE * np.maximum(1.0, np.abs(answer))
    return answer.tolist(), int(near.reshape(len(stacked), -1).all(axis=1).sum())


def _finite_number(output: float) -> float | None:
    try:
        number = float(output)
    except OverflowError:  # an integer beyond 1.8e308
        return None
    return number if math.isfinite(number) else None


def _finite_array(output: Any) -> np.ndarray | None:
    try:
        array = np.asarray(output)
    except ValueError:  # lists of different lengths
        return None
    return array.astype(np.float64) if array.dtype.kind in "iufb" and np.isfinite(array).all() else None


def _shortened(outputs: Mapping[str, Any]) -> str:
    text = repr(dict(outputs))
    return text if len(text) <= 200 else f"{text[:200]}..."  # noqa: PLR2004 (characters of a message)
