"""The learning step over columns: what `add_losses` gives feedback by feedback, for a million of them a second.

Rules of this file:
- Bit for bit what the router's table holds: the same additions of the same numbers in the same order. Sums are of one
  context in one partition, in the order of feedback offsets, which is not the order of the decisions.
- What the learner does not learn from is left out: decisions that no policy made, and queries that named their models.
- Fast is what adds the same numbers whatever the sums are. A policy that forgets, or learns from features, is asked
  feedback by feedback.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from clipper_stream.replay.columns import Bools, Codes, DecisionColumns, Floats, Ints
from clipper_stream.replay.estimating.choices import scored_propensity
from clipper_stream.replay.scored import by_policy
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
    parts: Iterable[DecisionColumns], start: Mapping[Place, FoldedRow] | None = None, damping: float = 0.0
) -> dict[Place, FoldedRow]:
    """The rows after all feedback of these decisions, of a policy that forgets nothing and looks at no features.

    Args:
        parts: Decisions, in any order; 40 bytes of each loss are kept until all are here.
        start: Rows before; what the parts say must have come later.
        damping: What is added to each propensity before a loss is divided by it, >= 0; see `exp3_ix`.

    Returns:
        Rows of all places with feedback, and of `start`.

    >>> fold_columns([DecisionColumns.empty(["svm:1"])])
    {}

    Source: as `clipper_stream.selection.state`.
    """
    entries = _Entries.of(parts)
    rows = dict(start or {})
    for place, (applied, offset) in entries.seen.items():
        before = rows.get(place, NOTHING)
        rows[place] = FoldedRow(state=before.state, applied=before.applied + applied, offset=max(before.offset, offset))
    for place, state in _summed(entries, rows, damping).items():
        rows[place] = FoldedRow(state=state, applied=rows[place].applied, offset=rows[place].offset)
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
    scored = np.stack([scored_propensity(part, one) for one in range(len(part.models))], axis=1)
    return (
        part.feedback_offset[row],
        place[row],
        number[column],
        part.loss[row, column],
        scored[row, column],
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


def _summed(entries: _Entries, rows: Mapping[Place, FoldedRow], damping: float) -> dict[Place, SelectionState]:
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
            ("weighted_loss", entries.loss / (entries.propensity + damping)),
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
            moments = totals[model].moments if model in totals else ()
            count, loss, weighted_count, weighted_loss = (float(column[cell]) for column in sums)
            totals[model] = ModelTotals(count, loss, weighted_count, weighted_loss, moments)
    return SelectionState(totals)
