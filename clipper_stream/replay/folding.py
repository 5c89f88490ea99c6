"""The learning step over columns: what `add_losses` gives feedback by feedback, for a million of them a second.

Rules of this file:
- Bit for bit what the router's table holds: the same additions of the same numbers in the same order. Sums are of one
  context in one partition, in the order of feedback offsets, which is not the order of the decisions.
- What the learner does not learn from is left out: decisions that no policy made, and queries that named their models.
- Only without forgetting is it fast. With a half-life every sum changes with every feedback, and it is done one by one.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.replay.columns import Bools, Codes, DecisionColumns, Floats, Ints
from clipper_stream.selection.state import ModelTotals, SelectionState, add_losses

NAMED = "named"
"""Stands for the policy where the query named its models."""
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
    parts: Iterable[DecisionColumns], start: Mapping[Place, FoldedRow] | None = None, keep: float = 1.0
) -> dict[Place, FoldedRow]:
    """The rows after all feedback of these decisions.

    Args:
        parts: Decisions, in any order; 40 bytes of each loss are kept until all are here.
        start: Rows before; what the parts say must have come later.
        keep: What all totals are scaled by before a feedback is added, in (0, 1]; see `forgetting.keep_of`.

    Returns:
        Rows of all places with feedback, and of `start`.

    >>> fold_columns([DecisionColumns.empty(["svm:1"])])
    {}

    Raises:
        InvalidLabel: a loss or a propensity outside its bounds, with a half-life; columns of a log have none.

    Source: as `clipper_stream.selection.state`.
    """
    entries = _Entries.of(parts)
    rows = dict(start or {})
    for place, (applied, offset) in entries.seen.items():
        before = rows.get(place, NOTHING)
        rows[place] = FoldedRow(state=before.state, applied=before.applied + applied, offset=max(before.offset, offset))
    states = _summed(entries, rows) if keep == 1.0 else _one_by_one(entries, rows, keep)
    for place, state in states.items():
        rows[place] = FoldedRow(state=state, applied=rows[place].applied, offset=rows[place].offset)
    return rows


def counted(columns: DecisionColumns) -> Bools:
    """Decisions whose feedback the learner learned from, (n,)."""
    left_out = [code for code, name in enumerate(columns.policies) if name == NAMED]
    return columns.with_feedback & (columns.policy >= 0) & ~np.isin(columns.policy, left_out)


def scored_with(columns: DecisionColumns) -> Floats:
    """Probability with which each model was to be scored by the feedback there is, (n, M).

    That of asking it, where a label was compared with its output; else that of the decision as a whole.
    """
    own = (columns.label >= 0)[:, None] & columns.answered
    return np.where(own, columns.propensity, columns.served_propensity[:, None])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Entries:
    """One loss each, in the order in which they are added; `place` and `model` count through the words."""

    offset: Ints
    place: Codes
    model: Codes
    loss: Floats
    propensity: Floats
    places: tuple[Place, ...]
    models: tuple[str, ...]
    seen: Mapping[Place, tuple[int, int]]

    @classmethod
    def of(cls, parts: Iterable[DecisionColumns]) -> "_Entries":
        places: dict[Place, int] = {}
        models: dict[str, int] = {}
        seen: dict[Place, tuple[int, int]] = {}
        found = [_of_part(part, places, models, seen) for part in parts if len(part)]
        columns: list[NDArray[Any]] = [np.concatenate(each) for each in zip(*found, strict=True)]
        offset, place, model, loss, propensity = columns or [np.empty(0, np.int64)] * 5
        order = np.argsort(offset, kind="stable")
        return cls(
            offset=offset[order],
            place=place[order],
            model=model[order],
            loss=loss[order],
            propensity=propensity[order],
            places=tuple(places),
            models=tuple(models),
            seen=seen,
        )


def _of_part(
    part: DecisionColumns, places: dict[Place, int], models: dict[str, int], seen: dict[Place, tuple[int, int]]
) -> tuple[Ints, Codes, Codes, Floats, Floats]:
    """The losses of some decisions; words that are new are numbered."""
    place = _places_of(part, places)
    number = np.array([models.setdefault(model, len(models)) for model in part.models], np.int32)
    learned = counted(part)
    _note(part.feedback_offset[learned], place[learned], places, seen)
    row, column = np.nonzero(~np.isnan(part.loss) & learned[:, None])
    return (
        part.feedback_offset[row],
        place[row],
        number[column],
        part.loss[row, column],
        scored_with(part)[row, column],
    )


def _places_of(part: DecisionColumns, places: dict[Place, int]) -> Codes:
    width = len(part.contexts)
    keys = part.partition.astype(np.int64) * width + part.context
    there, at = np.unique(keys, return_inverse=True)
    words = [(part.contexts[key % width], key // width) for key in there.tolist()]
    return np.array([places.setdefault(word, len(places)) for word in words], np.int32)[at]


def _note(offset: Ints, place: Codes, places: Mapping[Place, int], seen: dict[Place, tuple[int, int]]) -> None:
    """Count the feedback of each place, and keep the last offset."""
    counts = np.bincount(place, minlength=len(places))
    last = np.full(len(places), -1, np.int64)
    np.maximum.at(last, place, offset)
    for word, number in places.items():
        if counts[number]:
            applied, before = seen.get(word, (0, -1))
            seen[word] = (applied + int(counts[number]), max(before, int(last[number])))


def _summed(entries: _Entries, rows: Mapping[Place, FoldedRow]) -> dict[Place, SelectionState]:
    """Sums in order: `bincount` adds one number after the other, and what was there before is the first of them."""
    width = len(entries.models)
    cells = len(entries.places) * width
    cell = entries.place.astype(np.int64) * width + entries.model
    before = [rows[place].state.of(model) for place in entries.places if place in rows for model in entries.models]
    first = [
        number * width + column
        for number, place in enumerate(entries.places)
        if place in rows
        for column in range(width)
    ]
    where = np.concatenate([np.array(first, np.int64), cell])
    sums: list[Floats] = [
        np.bincount(where, np.concatenate([np.array([getattr(one, name) for one in before]), added]), cells).astype(
            np.float64
        )
        for name, added in (
            ("count", np.ones(len(cell))),
            ("loss", entries.loss),
            ("weighted_count", 1.0 / entries.propensity),
            ("weighted_loss", entries.loss / entries.propensity),
        )
    ]
    met = np.bincount(cell, minlength=cells) > 0
    return {
        place: _state(rows[place].state, entries.models, sums, met, number * width)
        for number, place in enumerate(entries.places)
        if place in rows
    }


def _state(
    before: SelectionState, models: tuple[str, ...], sums: list[Floats], met: Bools, first: int
) -> SelectionState:
    totals = dict(before.totals)
    for cell, model in enumerate(models, first):
        if met[cell]:
            totals[model] = ModelTotals(*(float(column[cell]) for column in sums))
    return SelectionState(totals)


def _one_by_one(entries: _Entries, rows: Mapping[Place, FoldedRow], keep: float) -> dict[Place, SelectionState]:
    states = {place: rows[place].state for place in entries.places if place in rows}
    ends = np.flatnonzero(np.diff(entries.offset, append=-1) | np.diff(entries.place, append=-1))
    begin = 0
    for end in (ends + 1).tolist():
        place = entries.places[entries.place[begin]]
        models = [entries.models[number] for number in entries.model[begin:end]]
        losses = dict(zip(models, entries.loss[begin:end].tolist(), strict=True))
        propensities = dict(zip(models, entries.propensity[begin:end].tolist(), strict=True))
        states[place] = add_losses(states[place], losses, propensities, keep)
        begin = end
    return states
