"""Weighted vote: the label with the most weight behind it."""

from collections.abc import Hashable, Mapping
from typing import Any


def vote(outputs: Mapping[str, Any], shares: Mapping[str, float]) -> tuple[Any, int]:
    """The winning label, and how many models gave it.

    Labels may be any JSON value; 1, 1.0 and true are one label, 1 and "1" are two. Of labels with equal weight
    behind them that of the earliest candidate wins, so that a vote never depends on who answered first.

    Args:
        outputs: Label of each model, in candidate order.
        shares: Weight of each model.

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
