"""One answer from the outputs of several models, and how far they agree with it: `vote` for labels, `mean` for numbers.

Rules of this file:
- The models that answered share the weight of those that did not; what they say is taken in candidate order, so that an
  answer never depends on which of them answered first.
"""

import math
from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from clipper_stream.errors import ModelFailed, UnknownName, shown
from clipper_stream.names import choices

VOTE = "vote"
TOLERANCE = 0.05
"""Two numbers agree when they differ by at most 5 % of the answer, or 0.05 where the answer is within [-1, 1]."""


class Combined(NamedTuple):
    """The answer to one row.

    Attributes:
        output: The answer.
        confidence: Share of the models asked that agree with it, in [0, 1]. A model that was late or failed is
            among those asked and does not agree, so that a straggler lowers the confidence.

    >>> combine("mean", {"a:1": 1.0, "b:1": 2.0}, {"a:1": 0.5, "b:1": 0.5}, asked=3).output
    1.5

    Source: Crankshaw et al., "Clipper", NSDI 2017, sections 5.2.1 (confidence) and 5.2.2 (stragglers).
    """

    output: Any
    confidence: float


def combine(kind: str, outputs: Mapping[str, Any], weights: Mapping[str, float], asked: int) -> Combined:
    """Combine the outputs of the models that answered; a single output is the answer as it is.

    Args:
        kind: A name in `COMBINERS`.
        outputs: Output of each model that answered, at least one, by reference, in any order.
        weights: Trust in each candidate, >= 0, in the application's order. Only their ratios among the models that
            answered count; where these have no weight at all, they count alike.
        asked: How many models were asked for this answer.

    Raises:
        UnknownName: there is no such combiner.
        ModelFailed: nothing was given to combine, or nothing that this combiner can.
    """
    combiner = COMBINERS.get(kind)
    if combiner is None:
        raise UnknownName(f"combiner {kind!r}: {choices(kind, sorted(COMBINERS))}")
    if not outputs:
        raise ModelFailed("there is no output to combine: give the default output instead")
    if len(outputs) == 1:
        return Combined(next(iter(outputs.values())), min(1.0, 1.0 / max(asked, 1)))
    shares = renormalized_weights(outputs, weights)
    output, agreeing = combiner({model: outputs[model] for model in shares}, shares)
    return Combined(output, min(1.0, agreeing / max(asked, 1)))


def renormalized_weights(answered: Iterable[str], weights: Mapping[str, float]) -> dict[str, float]:
    """Weights of the models that answered, in candidate order, whatever order they answered in.

    They are unscaled, and 1 for each where all are 0. A model that is no candidate has 0, and comes last, by name.

    >>> renormalized_weights(["b:1", "a:1"], {"a:1": 0.0, "b:1": 0.0, "c:1": 1.0})
    {'a:1': 1.0, 'b:1': 1.0}
    """
    there = set(answered)
    shares = {model: weight for model, weight in weights.items() if model in there}
    shares.update(dict.fromkeys(sorted(there - shares.keys()), 0.0))
    return shares if any(shares.values()) else dict.fromkeys(shares, 1.0)


def vote(outputs: Mapping[str, Any], shares: Mapping[str, float]) -> tuple[Any, int]:
    """The winning label, and how many models gave it.

    Labels may be any JSON value; 1, 1.0 and true are one label, 1 and "1" are two. Of labels with equal weight
    behind them that of the earliest candidate wins, so that a vote never depends on who answered first.

    >>> vote({"a:1": "cat", "b:1": "dog", "c:1": "dog"}, {"a:1": 0.5, "b:1": 0.25, "c:1": 0.25})
    ('cat', 1)

    Source: Littlestone and Warmuth, "The weighted majority algorithm", Inf. Comput. 108, 1994.
    """
    behind: dict[Hashable, float] = {}
    ballots = {model: label_key(output) for model, output in outputs.items()}
    for model, ballot in ballots.items():
        behind[ballot] = behind.get(ballot, 0.0) + shares[model]
    winner = max(behind, key=behind.__getitem__)
    agreeing = [model for model, ballot in ballots.items() if ballot == winner]
    return outputs[agreeing[0]], len(agreeing)


def label_key(label: Any) -> Hashable:
    """Something hashable that is equal for equal labels."""
    if isinstance(label, list | tuple):
        return ("list", *map(label_key, label))
    if isinstance(label, dict):
        return ("dict", frozenset((name, label_key(value)) for name, value in label.items()))
    if isinstance(label, Hashable) and label == label:  # noqa: PLR0124 (not a number is not equal to itself)
        return label
    return repr(label)


def mean(outputs: Mapping[str, Any], shares: Mapping[str, float]) -> tuple[Any, int]:
    """The weighted mean, and how many models are near it.

    Outputs are numbers, or nested lists of numbers of one shape, which the mean has too. A model agrees when it lies
    within `TOLERANCE` of the answer, in every element of a list. An output that is no finite number counts like one
    that is missing; `ModelFailed` where none is, or shapes differ.

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
        found = ", ".join(f"{model} gave {shape}" for model, shape in shapes.items()) or f"got {shown(dict(outputs))}"
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


Combiner = Callable[[Mapping[str, Any], Mapping[str, float]], tuple[Any, int]]
"""From outputs and shares, both in candidate order, to the answer and the number of models that agree with it."""

COMBINERS: Mapping[str, Combiner] = {VOTE: vote, "mean": mean}
"""Every combiner by its name."""
