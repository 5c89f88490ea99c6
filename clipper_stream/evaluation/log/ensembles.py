"""The loss of a combined answer, from the outputs and the label that were logged.

Rules of this file:
- The answer is what the router would have given: by the same combiner, with the confidence threshold and the default
  output of the application. A member that was asked and was late counts as late: it lowers the confidence, and the
  others answer without it. If nobody answered, the default was given because nobody did, and its loss is 1.
- Known is the loss only where every member was asked and the feedback is a label that can be compared: a given loss
  is about the answer that was given. Elsewhere it is NaN.
- Its propensity is the probability of asking all members (`joint`), so the ensemble is one more column.
- A query of several rows is combined row by row, as the router does. A row that nobody answered makes the answer a
  default because nobody did; the least confidence of a row is that of the answer.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.evaluation.log.columns import UNKNOWN, Bools, DecisionColumns, distinct_rows
from clipper_stream.evaluation.log.joint_propensity import joint_propensity


class OutputRows:
    """Losses of the combined answers of these models, one decision at a time.

    `members`, (n, K), are those that a decision has. `changed` is changed in each configuration.
    """

    def __init__(
        self, columns: DecisionColumns, models: Sequence[str], members: Bools, changed: Mapping[str, Any] | None = None
    ) -> None:
        self._models, self._texts = tuple(models), columns.values
        self._values: dict[int, Any] = {}
        self._config = cache(lambda revision: replace(columns.config(revision), **changed or {}))
        mine = columns.of_models(models)
        self.codes = np.column_stack([mine.revision, mine.output, columns.label, columns.several_rows])
        told = mine.asked & ((mine.output != UNKNOWN) | ~mine.answered)  # an output that is there, or was late
        self.known: Bools = (told | ~members).all(axis=1) & (mine.label != UNKNOWN)
        self._lists: list[list[int]] = []

    def loss(self, row: int, weights: Mapping[str, float]) -> float:
        """Loss of one decision's combined answer, by the weights of its members; NaN where it is not known."""
        if not self.known[row]:
            return float("nan")
        if not self._lists:
            self._lists = self.codes.tolist()
        return self.of(self._lists[row], weights)

    def of(self, codes: Sequence[int], weights: Mapping[str, float]) -> float:
        """Loss of the answer under this revision, to these outputs and label, 1 for several rows, as in `codes`."""
        revision, *said, label, several_rows = codes
        outputs = {
            model: self._value(code)
            for model, code in zip(self._models, said, strict=True)
            if code != UNKNOWN and model in weights
        }
        return self._config(revision).loss_of(outputs, weights, self._value(label), several_rows=several_rows == 1)

    def _value(self, code: int) -> Any:
        if code not in self._values:
            self._values[code] = json.loads(self._texts[code])
        return self._values[code]


def with_ensemble(
    columns: DecisionColumns,
    name: str,
    weights: Sequence[Mapping[str, float]],
    which: NDArray[np.intp] | None = None,
    changed: Mapping[str, Any] | None = None,
) -> DecisionColumns:
    """The decisions with the ensemble as one more model of this name.

    Each has the weights, trust in each member, that `which` is the index of, (n,); None: the first ones.
    """
    which = np.zeros(len(columns), np.intp) if which is None else which
    models = tuple(dict.fromkeys(model for each in weights for model in each))
    members = np.array([[model in each for model in models] for each in weights], np.bool_)[which]
    rows = OutputRows(columns, models, members, changed)
    alike, place = distinct_rows(np.column_stack([which, rows.codes])[rows.known])
    losses = np.full(len(columns), np.nan)
    losses[rows.known] = np.array([rows.of(codes[1:], weights[codes[0]]) for codes in alike.tolist()], float)[place]
    joint = joint_propensity(columns, models, members)
    return columns.with_model(name, np.where(joint > 0.0, losses, np.nan), joint)
