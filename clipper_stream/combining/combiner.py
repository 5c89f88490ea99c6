"""Combining by name: `vote` for labels, `mean` for numbers."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from clipper_stream.combining.mean import mean
from clipper_stream.combining.renormalized_weights import renormalized_weights
from clipper_stream.combining.vote import vote
from clipper_stream.errors import ModelFailed, UnknownName

Combiner = Callable[[Mapping[str, Any], Mapping[str, float]], tuple[Any, int]]
"""From outputs and shares, both in candidate order, to the answer and the number of models that agree with it."""

COMBINERS: Mapping[str, Combiner] = {"vote": vote, "mean": mean}
"""Every combiner by its name."""


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
        raise UnknownName(f"combiner {kind!r}: use one of {', '.join(sorted(COMBINERS))}")
    if not outputs:
        raise ModelFailed("there is no output to combine: give the default output instead")
    if len(outputs) == 1:
        return Combined(next(iter(outputs.values())), min(1.0, 1.0 / max(asked, 1)))
    shares = renormalized_weights(outputs, weights)
    output, agreeing = combiner({model: outputs[model] for model in shares}, shares)
    return Combined(output, min(1.0, agreeing / max(asked, 1)))
