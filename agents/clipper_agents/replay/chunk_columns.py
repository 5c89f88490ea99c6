"""A chunk with its audits and feedback becomes columns: the rules of the learner, for many decisions at once.

Rules of this file:
- Losses are those of `clipper_stream.feedback.update.score`; a test compares the two, decision by decision.
- Of the feedback about a decision the first that can be used counts. What names another context, or a label that cannot
  be compared, cannot be used; what comes after the one that counted is a duplicate.
- The loss of the answer is about what the application got, as the library's `answer_loss` has it.
- Two values are compared once, however many decisions they are met in.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from clipper_agents.replay.chunk import DEFAULT, LOW_CONFIDENCE, SEVERAL_ROWS, Chunk
from clipper_agents.replay.pair_losses import PairLosses
from clipper_agents.replay.patches import AuditPatch, FeedbackPatch, FeedbackTuple
from clipper_agents.replay.propensity_matrix import PropensityMatrix, asked_of
from clipper_agents.replay.values import text_of
from clipper_stream.evaluation.log.columns import UNKNOWN, Bools, DecisionColumns, Floats, Ints

_ELSEWHERE = -2
"""Stands for a context that no decision of the chunk has."""
_NOT_SAID = -1


class _Used(NamedTuple):
    """The feedback that counts for each row, by number (-1: none), and the losses that it gives."""

    number: Ints
    loss: Floats


@dataclass(slots=True, kw_only=True)
class _Feedback:
    """Feedback as arrays, sorted by decision and offset; `rank` counts those of one decision."""

    row: Ints
    offset: Ints
    at_ms: Ints
    label: Ints
    given: Floats
    context: Ints
    rank: Ints


def columns_of(
    chunk: Chunk,
    partition: int,
    audits: Sequence[AuditPatch],
    feedback: Sequence[FeedbackTuple],
    loss_kind: str,
    horizon_ms: float,
    counts: Counter[str],
) -> DecisionColumns:
    """Return the columns of a chunk.

    Args:
        chunk: Decisions; audits and labels add to its words.
        partition: Of the chunk.
        audits: About decisions of the chunk, in log order.
        feedback: About decisions of the chunk, in log order.
        loss_kind: How a label is compared with an output.
        horizon_ms: How long after its decision a feedback still counts.
        counts: `late`, `invalid`, `duplicates`, `with_feedback`, `no_audit` and `models_added` are counted here.

    Raises:
        UnknownName: there is no such loss.
    """
    asked = asked_of(chunk, audits, horizon_ms, counts)
    told = _feedback_of(chunk, feedback, horizon_ms, counts)
    compared = PairLosses(chunk.values, loss_kind)
    used = _first_usable(chunk, asked, told, compared, counts)
    return _assembled(chunk, partition, asked, told, used, compared)


def _feedback_of(chunk: Chunk, feedback: Sequence[FeedbackTuple], horizon_ms: float, counts: Counter[str]) -> _Feedback:
    """Return the feedback within the horizon, sorted by decision and offset."""
    columns = [*zip(*feedback, strict=True)] or [()] * len(FeedbackPatch._fields)
    contexts = chunk.contexts
    row = np.array(columns[0], np.int64) - chunk.first_row
    offset, at_ms = np.array(columns[1], np.int64), np.array(columns[2], np.int64)
    given = np.array(columns[4], np.float64)
    label = np.where(np.isnan(given), np.array(chunk.values.codes(columns[3]), np.int64), _NOT_SAID)
    context = [_NOT_SAID if one is None else contexts.get(one, _ELSEWHERE) for one in columns[5]]
    in_time = np.flatnonzero(at_ms <= chunk.rows["logged_ms"][row] + horizon_ms)
    counts["late"] += len(row) - len(in_time)
    order = in_time[np.lexsort((offset[in_time], row[in_time]))]
    rows = row[order]
    first = np.flatnonzero(np.diff(rows, prepend=-1))
    rank = np.arange(len(rows)) - np.repeat(first, np.diff(first, append=len(rows)))
    return _Feedback(
        row=rows,
        offset=offset[order],
        at_ms=at_ms[order],
        label=label[order],
        given=given[order],
        context=np.array(context, np.int64)[order],
        rank=rank,
    )


def _first_usable(
    chunk: Chunk, asked: PropensityMatrix, told: _Feedback, compared: PairLosses, counts: Counter[str]
) -> _Used:
    number = np.full(len(chunk), UNKNOWN, np.int64)
    loss = np.full(asked.propensity.shape, np.nan)
    for rank in range(int(told.rank.max()) + 1 if len(told.rank) else 0):
        tried = np.flatnonzero(told.rank == rank)
        open_ones = tried[number[told.row[tried]] == UNKNOWN]
        counts["duplicates"] += len(tried) - len(open_ones)
        rows = told.row[open_ones]
        said = told.context[open_ones]
        losses, usable = _scored(chunk, asked, rows, told.label[open_ones], told.given[open_ones], compared)
        usable &= (said == _NOT_SAID) | (said == chunk.rows["context"][rows])
        counts["invalid"] += int((~usable).sum())
        number[rows[usable]] = open_ones[usable]
        loss[rows[usable]] = losses[usable]
    counts["with_feedback"] += int((number != UNKNOWN).sum())
    return _Used(number, loss)


def _scored(
    chunk: Chunk, asked: PropensityMatrix, rows: Ints, label: Ints, given: Floats, compared: PairLosses
) -> tuple[Floats, Bools]:
    """Return the losses by one feedback a row, and whether it can be used, as the library's `score` does."""
    answered = asked.output[rows] >= 0
    labelled = np.isnan(given)
    flags = chunk.rows["flags"][rows]
    several = (flags & SEVERAL_ROWS) != 0
    loss = np.full(answered.shape, np.nan)
    at, model = np.nonzero(answered & labelled[:, None])
    found = compared.losses(label[at], asked.output[rows[at], model], several[at])
    loss[at, model] = np.where(np.isnan(found), 1.0, found)
    usable = ~labelled | ~_all_refused(len(rows), at, np.isnan(found))
    _by_given_loss(loss, chunk, asked, rows, given, compared)
    missing = np.flatnonzero((asked.lone[rows] >= 0) & ~asked.lone_answered[rows])
    loss[missing] = np.where(labelled[missing, None], loss[missing], np.nan)
    loss[missing, asked.lone[rows[missing]]] = 1.0
    weight = np.where(labelled[:, None] & answered, asked.propensity[rows], asked.served_propensity[rows][:, None])
    impossible = ~np.isnan(loss) & ~((weight > 0.0) & (weight <= 1.0))
    return loss, usable & ~impossible.any(axis=1)


def _all_refused(rows: int, at: NDArray[Any], refused: Bools) -> Bools:
    """Return the rows that have outputs and a label that can be compared with none of them."""
    outputs = np.bincount(at, minlength=rows)
    refusals = np.bincount(at[refused], minlength=rows)
    none_fits: Bools = (outputs > 0) & (outputs == refusals)
    return none_fits


def _by_given_loss(
    loss: Floats, chunk: Chunk, asked: PropensityMatrix, rows: Ints, given: Floats, compared: PairLosses
) -> None:
    """Give the loss to the lone model, or to the models of the ensemble that said what the answer was."""
    told = np.flatnonzero(~np.isnan(given) & ((chunk.rows["flags"][rows] & DEFAULT) == 0))
    lone = told[asked.lone[rows[told]] >= 0]
    loss[lone, asked.lone[rows[lone]]] = given[lone]
    several = told[asked.lone[rows[told]] < 0]
    at, model = np.nonzero(asked.served[rows[several]] & (asked.output[rows[several]] >= 0))
    where = several[at]
    agrees = compared.same(asked.output[rows[where], model], chunk.rows["answer"][rows[where]])
    loss[where[agrees], model[agrees]] = given[where[agrees]]


def _answer_loss(chunk: Chunk, label: Ints, given: Floats, known: Bools, compared: PairLosses) -> Floats:
    flags = chunk.rows["flags"]
    loss = np.where(known, given, np.nan)
    labelled = np.flatnonzero(known & np.isnan(given))
    several = (flags[labelled] & SEVERAL_ROWS) != 0
    found = compared.losses(label[labelled], chunk.rows["answer"][labelled].astype(np.int64), several)
    loss[labelled] = np.where(np.isnan(found), 1.0, found)
    nobody = ((flags & DEFAULT) != 0) & ((flags & LOW_CONFIDENCE) == 0)
    return np.where(known & nobody, 1.0, loss)


def _assembled(
    chunk: Chunk, partition: int, asked: PropensityMatrix, told: _Feedback, used: _Used, compared: PairLosses
) -> DecisionColumns:
    rows, known = chunk.rows, used.number != UNKNOWN
    texts = [text_of(value) for value in chunk.values.known]
    words = tuple(dict.fromkeys(texts))
    place = {word: code for code, word in enumerate(words)}
    table = np.array([*(place[text] for text in texts), UNKNOWN], np.int32)  # the last one is what -1 points to
    label, given = _of_used(told.label, used, UNKNOWN), _of_used(told.given, used, np.nan)
    return DecisionColumns(
        models=tuple(chunk.models),
        contexts=tuple(chunk.contexts),
        policies=tuple(chunk.policies),
        values=words,
        partition=np.full(len(chunk), partition, np.int32),
        offset=rows["offset"],
        query_offset=rows["query_offset"],
        at_ms=rows["at_ms"],
        context=rows["context"],
        policy=rows["policy"],
        revision=rows["revision"],
        propensity=asked.propensity,
        served=asked.served,
        served_propensity=asked.served_propensity,
        answered=asked.output >= 0,
        latency_ms=asked.latency_ms,
        output=table[asked.output],
        answer=table[rows["answer"]],
        confidence=rows["confidence"],
        default=(rows["flags"] & DEFAULT) != 0,
        feedback_offset=_of_used(told.offset, used, UNKNOWN),
        feedback_at_ms=_of_used(told.at_ms, used, UNKNOWN),
        label=table[label],
        loss=used.loss,
        answer_loss=_answer_loss(chunk, label, given, known, compared),
        several_rows=(rows["flags"] & SEVERAL_ROWS) != 0,
        features=chunk.features,
    )


def _of_used(column: NDArray[Any], used: _Used, nothing: float) -> NDArray[Any]:
    """Return, for each decision, the value of the feedback that counts."""
    return np.append(column, np.array([nothing], column.dtype))[used.number]
