"""The learning step over columns: what `add_losses` gives feedback by feedback, for a million of them a second.

Rules of this file:
- Bit for bit what the router's table holds: the same additions of the same numbers in the same order. Sums are of one
  context in one partition, in the order of feedback offsets, which is not the order of the decisions.
- What the learner does not learn from is left out: decisions that no policy made, and queries that named their models.
- Fast is what adds the same numbers whatever the sums are. A policy that forgets, or learns from features, is asked
  feedback by feedback.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.evaluation.log.columns import Bools, Codes, DecisionColumns, Floats, Ints
from clipper_stream.evaluation.log.known_losses import by_policy, scored_propensity
from clipper_stream.selection.policy import SelectionPolicy
from clipper_stream.selection.state import ModelTotals, SelectionState

Place = tuple[str | None, int]
"""Context, None for those without one, and partition."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldedRow:
    """What one context in one partition has learned.

    Attributes:
        state: The totals.
        applied: Feedbacks that counted, also those that scored no model.
        offset: Of the last one, -1 for none.

    >>> FoldedRow().state.totals
    mappingproxy({})
    """

    state: SelectionState = field(default_factory=SelectionState)
    applied: int = 0
    offset: int = -1


NOTHING = FoldedRow()


def fold_columns(
    parts: Iterable[DecisionColumns], start: Mapping[Place, FoldedRow] | None = None
) -> dict[Place, FoldedRow]:
    """The rows after all feedback of these decisions, of a policy that forgets nothing and looks at no features.

    Args:
        parts: Decisions, in any order; 40 bytes of each loss are kept until all are here.
        start: Rows before; what the parts say must have come later.

    Returns:
        Rows of all places with feedback, and of `start`.

    >>> fold_columns([DecisionColumns.empty(["svm:1"])])
    {}

    Source: as `clipper_stream.selection.state`.
    """
    gathered: dict[int, _Gathered] = {}
    for part in parts:
        for partition in np.unique(part.partition).tolist():
            gathered.setdefault(partition, _Gathered(partition)).add(part)
    rows = dict(start or {})
    for partition in sorted(gathered):
        gathered.pop(partition).fold_into(rows)
    return rows


def fold_one_by_one(
    parts: Iterable[DecisionColumns], policy: SelectionPolicy, start: Mapping[Place, FoldedRow] | None = None
) -> dict[Place, FoldedRow]:
    """The same for any policy, feedback by feedback: some ten thousand a second. All parts are kept until the end.

    Args:
        parts: Decisions, in any order.
        policy: Whose learning step it is.
        start: As of `fold_columns`.

    >>> from clipper_stream.selection.registry import make_policy
    >>> fold_one_by_one([], make_policy("exp3", {"half_life": 100.0}))
    {}

    Raises:
        InvalidLabel: a loss or a propensity outside its bounds; columns of a log have none.
    """
    rows = dict(start or {})
    told = [
        (offset, part, row)
        for part in parts
        for row in np.flatnonzero(counted(part)).tolist()
        for offset in (int(part.feedback_offset[row]),)
    ]
    for offset, part, row in sorted(told, key=lambda one: one[0]):
        place = (part.contexts[part.context[row]], int(part.partition[row]))
        before = rows.get(place, NOTHING)
        state = policy.observe_for(before.state, *_losses_of(part, row), _features_of(part, row))
        rows[place] = FoldedRow(state=state, applied=before.applied + 1, offset=offset)
    return rows


def _losses_of(part: DecisionColumns, row: int) -> tuple[dict[str, float], dict[str, float]]:
    """Losses of the models that one feedback scores, and with which probability it was to."""
    losses = {
        part.models[column]: float(part.loss[row, column]) for column in np.flatnonzero(~np.isnan(part.loss[row]))
    }
    one = part.take(slice(row, row + 1))
    return losses, {model: float(scored_propensity(one, part.models.index(model))[0]) for model in losses}


def _features_of(part: DecisionColumns, row: int) -> tuple[float, ...]:
    own = part.features[row]
    return tuple(own[: np.flatnonzero(~np.isnan(own)).max(initial=-1) + 1].tolist())


def counted(columns: DecisionColumns) -> Bools:
    """Decisions whose feedback the learner learned from, (n,)."""
    return columns.with_feedback & (columns.policy >= 0) & by_policy(columns)


class _Gathered:
    """The losses of one partition, an entry each, until all are here: 32 bytes of each."""

    def __init__(self, partition: int) -> None:
        self._partition = partition
        self._contexts: dict[str | None, int] = {}
        self._models: dict[str, int] = {}
        self._seen: dict[int, tuple[int, int]] = {}
        self._columns: tuple[list[NDArray[Any]], ...] = ([], [], [], [], [])

    def add(self, part: DecisionColumns) -> None:
        """Take in what these decisions say about the partition."""
        learned = counted(part) & (part.partition == self._partition)
        context = _numbers(part.contexts, self._contexts)[part.context]
        self._note(part.feedback_offset[learned], context[learned])
        known = ~np.isnan(part.loss) & learned[:, None]
        row, column = np.nonzero(known)
        scored = np.empty(part.loss.shape)
        for model in range(len(part.models)):
            scored[:, model] = scored_propensity(part, model)
        found = (
            part.feedback_offset[row],
            context[row],
            _numbers(part.models, self._models)[column],
            part.loss[known],
            scored[known],
        )
        for gathered, own in zip(self._columns, found, strict=True):
            gathered.append(own)

    def fold_into(self, rows: dict[Place, FoldedRow]) -> None:
        """Add everything to the rows, in the order of the feedback; nothing is left here."""
        offset, context, model, loss, propensity = self._columns
        order = np.argsort(_joined(offset), kind="stable")
        width = len(self._models)
        cell = _joined(context)[order].astype(np.int64) * width + _joined(model)[order]
        losses, propensities = _joined(loss)[order], _joined(propensity)[order]
        places = [(context, self._partition) for context in self._contexts]
        before = [rows.get(place, NOTHING).state.of(name) for place in places for name in self._models]
        sums = [
            _sums(before, "count", cell, np.ones(len(cell))),
            _sums(before, "loss", cell, losses),
            _sums(before, "weighted_count", cell, 1.0 / propensities),
            _sums(before, "weighted_loss", cell, losses / propensities),
        ]
        met = np.bincount(cell, minlength=len(before)) > 0
        for number, (applied, last) in self._seen.items():
            row, first = rows.get(places[number], NOTHING), number * width
            state = _state(row.state, tuple(self._models), sums, met, first)
            rows[places[number]] = FoldedRow(state=state, applied=row.applied + applied, offset=max(row.offset, last))

    def _note(self, offset: Ints, context: Codes) -> None:
        """Count the feedback of each context, and keep the last offset."""
        counts = np.bincount(context, minlength=len(self._contexts))
        last = np.full(len(self._contexts), -1, np.int64)
        np.maximum.at(last, context, offset)
        for number in np.flatnonzero(counts).tolist():
            applied, before = self._seen.get(number, (0, -1))
            self._seen[number] = (applied + int(counts[number]), max(before, int(last[number])))


def _numbers(words: Sequence[Any], known: dict[Any, int]) -> Codes:
    """The number of each word; a new one gets the next."""
    return np.array([known.setdefault(word, len(known)) for word in words], np.int32)


def _joined(pieces: list[NDArray[Any]]) -> NDArray[Any]:
    """All pieces in one array; they are dropped."""
    found = np.concatenate(pieces)
    pieces.clear()
    return found


def _sums(before: Sequence[ModelTotals], name: str, cell: Ints, added: Floats) -> Floats:
    """The sum of each cell: `bincount` adds one number after the other, and what was there before is the first."""
    first = np.array([getattr(one, name) for one in before])
    where = np.concatenate([np.arange(len(first)), cell])
    return np.asarray(np.bincount(where, np.concatenate([first, added]), len(first)), np.float64)


def _state(
    before: SelectionState, models: tuple[str, ...], sums: list[Floats], met: Bools, first: int
) -> SelectionState:
    totals = dict(before.totals)
    for cell, model in enumerate(models, first):
        if met[cell]:
            moments = totals[model].moments if model in totals else ()
            count, loss, weighted_count, weighted_loss = (float(column[cell]) for column in sums)
            totals[model] = ModelTotals(count, loss, weighted_count, weighted_loss, moments)
    return SelectionState(totals)
