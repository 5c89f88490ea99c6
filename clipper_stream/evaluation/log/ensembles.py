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
from dataclasses import dataclass
from typing import Any

import numpy as np

from clipper_stream.combining.combiner import COMBINERS, combine
from clipper_stream.errors import InvalidLabel, ModelFailed, UnknownName
from clipper_stream.evaluation.log.columns import UNKNOWN, Bools, DecisionColumns, Floats, distinct_rows
from clipper_stream.evaluation.log.joint_propensity import joint_propensity
from clipper_stream.feedback.update import loss_named, loss_of, loss_of_rows
from clipper_stream.selection.parameters import check_number

ANY_CONTEXT = -1
_NO_ANSWER = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answering:
    """How an application combines outputs, and the loss of the combined answer.

    Attributes:
        combiner: `vote` or `mean`.
        loss: `zero_one`, `absolute` or `squared`.
        confidence_threshold: Below it the default output is given, in [0, 1].

    >>> Answering().loss_of({"svm:1": "cat", "knn:1": "dog"}, {"svm:1": 0.9, "knn:1": 0.1}, 2, "cat")
    0.0
    >>> Answering(confidence_threshold=0.6, default_output="none").loss_of(
    ...     {"svm:1": "cat", "knn:1": "dog"}, {"svm:1": 0.9, "knn:1": 0.1}, 2, "cat")
    1.0

    Raises:
        UnknownName: there is no such combiner or loss.
        InvalidSetting: the threshold is out of its bounds.

    Source: Crankshaw et al., "Clipper", NSDI 2017, section 5.2 (ensembles, robust predictions).
    """

    combiner: str = "vote"
    loss: str = "zero_one"
    default_output: Any = None
    confidence_threshold: float = 0.0
    trials: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        loss_named(self.loss)
        if self.combiner not in COMBINERS:
            raise UnknownName(f"combiner {self.combiner!r}: use one of {', '.join(sorted(COMBINERS))}")
        check_number("confidence threshold", self.confidence_threshold, most=1.0)

    def loss_of(
        self,
        outputs: Mapping[str, Any],
        weights: Mapping[str, float],
        asked: int,
        label: Any,
        *,
        several_rows: bool = False,
    ) -> float:
        """Loss of the answer in [0, 1]; 1 where the label, which counted, cannot be compared with it.

        Args:
            outputs: Of the members that answered; of several rows a list, with None for a row without an answer.
            weights: Trust in each member.
            asked: How many members there are.
            label: What was true; of several rows a list.
            several_rows: Whether the query has a list of rows.
        """
        try:
            rows = [
                combine(self.combiner, row, weights, asked) for row in (_rows(outputs) if several_rows else [outputs])
            ]
        except ModelFailed:  # nobody answered, or nothing that can be combined
            return _NO_ANSWER
        sure = min(row.confidence for row in rows) >= self.confidence_threshold
        answer = [row.output if sure else self.default_output for row in rows]
        try:
            return loss_of_rows(self.loss, label, answer) if several_rows else loss_of(self.loss, label, *answer)
        except InvalidLabel:
            return _NO_ANSWER


def _rows(outputs: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """What the members said to each row; at least one row, of nobody where there is none."""
    longest = max(map(len, outputs.values()), default=0)
    said = range(longest or 1)
    return [
        {model: rows[row] for model, rows in outputs.items() if row < len(rows) and rows[row] is not None}
        for row in said
    ]


class OutputRows:
    """Losses of the combined answers of these members, one decision at a time."""

    def __init__(self, columns: DecisionColumns, members: Sequence[str], answering: Answering) -> None:
        self._members, self._answering = tuple(members), answering
        self._texts = columns.values
        self._values: dict[int, Any] = {}
        mine = columns.of_models(members)
        self.codes = np.column_stack([mine.output, columns.label, columns.several_rows])
        self.known = _known(mine)
        self._lists: list[list[int]] = []

    def loss(self, row: int, weights: Mapping[str, float]) -> float:
        """Loss of one decision's combined answer; NaN where it is not known."""
        if not self.known[row]:
            return float("nan")
        if not self._lists:
            self._lists = self.codes.tolist()
        return self.of(self._lists[row], weights)

    def of(self, codes: Sequence[int], weights: Mapping[str, float]) -> float:
        """Loss of the answer to these outputs, this label, and 1 where they are of several rows, as in `codes`."""
        *said, label, several_rows = codes
        outputs = {model: self._value(code) for model, code in zip(self._members, said, strict=True) if code != UNKNOWN}
        count = len(self._members)
        return self._answering.loss_of(outputs, weights, count, self._value(label), several_rows=several_rows == 1)

    def _value(self, code: int) -> Any:
        if code not in self._values:
            self._values[code] = json.loads(self._texts[code])
        return self._values[code]


def combined_losses(
    columns: DecisionColumns,
    members: Sequence[str],
    weights: Mapping[int, Mapping[str, float]],
    answering: Answering,
) -> Floats:
    """Loss of each decision's combined answer in [0, 1], (n,); NaN where it is not known."""
    rows = OutputRows(columns, members, answering)
    trusted = np.full(len(columns), ANY_CONTEXT) if ANY_CONTEXT in weights else columns.context
    alike, place = distinct_rows(np.column_stack([trusted, rows.codes])[rows.known])
    each = [rows.of(codes[1:], weights[codes[0]]) for codes in alike.tolist()]
    losses = np.full(len(columns), np.nan)
    losses[rows.known] = np.array(each, np.float64)[place]
    return losses


def with_ensemble(
    columns: DecisionColumns,
    name: str,
    members: Sequence[str],
    weights: Mapping[int, Mapping[str, float]],
    answering: Answering,
) -> DecisionColumns:
    """The decisions with the ensemble as one more model of this name; other arguments as of `combined_losses`."""
    loss = combined_losses(columns, members, weights, answering)
    joint = joint_propensity(columns, members, answering.trials)
    return columns.with_model(name, np.where(joint > 0.0, loss, np.nan), joint)


def _known(mine: DecisionColumns) -> Bools:
    """All were asked, each answered with an output that is there or was late, and there is a label."""
    told = (mine.output != UNKNOWN) | ~mine.answered
    known: Bools = (mine.asked & told).all(axis=1) & (mine.label != UNKNOWN)
    return known
