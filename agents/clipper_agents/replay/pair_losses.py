"""Losses of many pairs of a label and an output, each different pair compared once by the library's own losses."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_agents.replay.values import Values
from clipper_stream.errors import InvalidLabel
from clipper_stream.evaluation.log.columns import Bools, Floats
from clipper_stream.feedback.losses import loss_of, loss_of_rows, same

_DENSE = 8
"""A table of all pairs that there could be is made when it has at most so many cells a pair that is looked up."""


class PairLosses:
    """Losses of pairs of values, given by their numbers.

    Args:
        values: The values; new ones may still come.
        loss_kind: How a label is compared with an output.
    """

    def __init__(self, values: Values, loss_kind: str) -> None:
        self._values, self._kind = values, loss_kind

    def losses(self, labels: NDArray[Any], outputs: NDArray[Any], several_rows: Bools) -> Floats:
        """Return the loss in [0, 1] of each pair; NaN where the label cannot be compared with the output."""
        found = np.empty(len(labels))
        for compare, chosen in ((self._loss, ~several_rows), (self._loss_of_rows, several_rows)):
            where = np.flatnonzero(chosen)
            found[where] = self._each(compare, labels[where], outputs[where])
        return found

    def same(self, first: NDArray[Any], second: NDArray[Any]) -> Bools:
        """Return whether the values of each pair are equal."""
        equal: Bools = self._each(lambda one, other: float(same(one, other)), first, second) == 1.0
        return equal

    def _each(self, compare: Callable[[Any, Any], float], first: NDArray[Any], second: NDArray[Any]) -> Floats:
        if not len(first):
            return np.empty(0)
        width, known = len(self._values), self._values.known
        keys = first.astype(np.int64) * width + second
        pairs, place = _distinct(keys, width * width)
        table = np.array([compare(known[key // width], known[key % width]) for key in pairs.tolist()])
        return table[place]

    def _loss(self, label: Any, output: Any) -> float:
        try:
            return loss_of(self._kind, label, output)
        except InvalidLabel:
            return np.nan

    def _loss_of_rows(self, label: Any, outputs: Any) -> float:
        try:
            return loss_of_rows(self._kind, label, outputs if isinstance(outputs, list) else [])
        except InvalidLabel:
            return np.nan


def _distinct(keys: NDArray[np.int64], cells: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the distinct keys and the index of each key among them; sorts only where there are many possible keys."""
    if cells > _DENSE * len(keys):
        pairs, place = np.unique(keys, return_inverse=True)
        return pairs, place
    seen = np.zeros(cells, np.bool_)
    seen[keys] = True
    pairs = np.flatnonzero(seen)
    numbers = np.cumsum(seen) - 1
    return pairs, numbers[keys]
