"""A model that was not there: run over the inputs that were logged, and its losses as one more column.

Rules of this file:
- A query is answered whole, as a host would answer it: rows are checked against the input spec and asked in batches.
- A row that fails costs that row: its output is null, and its loss 1. A model whose server is not there costs the run,
  because that says nothing about the model.
- Its column has the propensity 1 wherever the input was there: nothing was left to chance. Where the log has lost the
  query, nothing is known.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from clipper_stream.errors import InvalidInput, InvalidLabel, ModelUnavailable
from clipper_stream.evaluation.log.columns import UNKNOWN, Codes, DecisionColumns, Floats, distinct_rows
from clipper_stream.feedback.update import loss_of, loss_of_rows
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.plain_outputs import split_confidence
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runner import predict_rows
from clipper_stream.query.inputs import to_rows

CHUNK_ROWS = 8_192
"""Queries of a chunk: seconds of work at most for a usual model."""
_FAILED = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelAnswers:
    """Outputs of a model for n queries.

    Attributes:
        output: As JSON; a list, one a row, where `several_rows`; None where the query failed.
        error: Why it, or the first of its rows that did, failed; None where none did.
    """

    output: Sequence[str | None]
    several_rows: Sequence[bool]
    error: Sequence[str | None]

    @property
    def failed(self) -> int:
        return sum(error is not None for error in self.error)


def answers_of(model: Model, spec: RowSpec, queries: Sequence[str], batch_rows: int) -> ModelAnswers:
    """Run a model over logged queries."""
    asked = [_rows_of(query) for query in queries]
    rows = [row for _, members in asked for row in members]
    outputs, failed = _predicted(model, spec, rows, batch_rows)
    said: list[str | None] = []
    errors: list[str | None] = []
    first = 0
    for several, members in asked:
        last = first + len(members)
        said.append(_written(outputs[first:last], several=several))
        errors.append(next((failed[row] for row in range(first, last) if row in failed), None))
        first = last
    return ModelAnswers(output=said, several_rows=[several for several, _ in asked], error=errors)


def _rows_of(query: str) -> tuple[bool, list[Any]]:
    found = json.loads(query)
    return ("inputs" in found, found["inputs"] if "inputs" in found else [found["input"]])


def _written(outputs: Sequence[Any], *, several: bool) -> str | None:
    if several:
        return json.dumps(outputs)
    return None if outputs[0] is None else json.dumps(outputs[0])


def _predicted(model: Model, spec: RowSpec, rows: Sequence[Any], batch_rows: int) -> tuple[list[Any], dict[int, str]]:
    converted = to_rows(spec, rows)
    failed = {row: f"{InvalidInput.__name__}: {error}" for row, error in converted.failed.items()}
    places = [row for row in range(len(rows)) if row not in failed]
    outputs: list[Any] = [None] * len(rows)
    for mine, batch in _batches(places, converted.good, batch_rows):
        outcome = predict_rows(model, batch)
        for number, row in enumerate(mine):
            outputs[row], _ = split_confidence(outcome.outputs[number])
        for number, why in outcome.failed.items():
            if why.startswith(ModelUnavailable.__name__):
                raise ModelUnavailable(f"{why}: see that the model's server is there, and run it again")
            failed[mine[number]] = why
    return outputs, failed


def _batches(places: Sequence[int], good: Rows, batch_rows: int) -> Iterator[tuple[Sequence[int], Rows]]:
    first = 0
    for shape, members in groupby(good, lambda row: getattr(row, "shape", None)):
        count = sum(1 for _ in members)
        for start in range(first, first + count, batch_rows):
            end = min(start + batch_rows, first + count)
            part = good[start:end]
            batch = np.stack(part) if shape is not None and isinstance(part, list) else part
            yield places[start:end], batch
        first += count


@dataclass(frozen=True, slots=True)
class PlacedAnswers:
    """Answers by the places of their queries, which ascend; made by `of`."""

    places: NDArray[np.int64]
    number: NDArray[np.intp]
    answers: ModelAnswers

    @classmethod
    def of(cls, partition: ArrayLike, query_offset: ArrayLike, answers: ModelAnswers) -> "PlacedAnswers":
        """Sort answers by partition and offset of their queries."""
        places = _places(np.asarray(partition), np.asarray(query_offset))
        number = np.argsort(places, kind="stable")
        return cls(places[number], number, answers)

    def find(self, columns: DecisionColumns) -> NDArray[np.intp]:
        """Number of the answer to each decision's query; -1 for none, (n,)."""
        if not len(self.places):
            return np.full(len(columns), UNKNOWN, np.intp)
        wanted = _places(columns.partition, columns.query_offset)
        at = np.minimum(np.searchsorted(self.places, wanted), len(self.places) - 1)
        return np.where(self.places[at] == wanted, self.number[at], UNKNOWN)


def with_new_model(columns: DecisionColumns, name: str, placed: PlacedAnswers, loss_kind: str) -> DecisionColumns:
    """The decisions with the model as one more column."""
    found = placed.find(columns)
    there = found != UNKNOWN
    answers = placed.answers
    said = {row: answers.output[found[row]] for row in np.flatnonzero(there).tolist()}
    texts = {row: text for row, text in said.items() if text is not None}
    number = {value: code for code, value in enumerate(columns.values)}
    known = [number.setdefault(text, len(number)) for text in texts.values()]
    wider = replace(columns, values=tuple(number))
    output = np.full(len(columns), UNKNOWN, np.int32)
    output[list(texts)] = known
    several = np.zeros(len(columns), np.bool_)
    several[there] = [answers.several_rows[number] for number in found[there].tolist()]
    loss = np.where(there, _losses(wider, output, several, loss_kind), np.nan)
    return wider.with_model(name, loss, there.astype(np.float64), output)


def _places(partition: NDArray[Any], query_offset: NDArray[Any]) -> NDArray[np.int64]:
    """Return one integer a place (partition and offset): offsets stay below 2**48 for nine years at 1 M records/s."""
    return (partition.astype(np.int64) << 48) + query_offset.astype(np.int64)


def _losses(columns: DecisionColumns, output: Codes, several: NDArray[np.bool_], kind: str) -> Floats:
    value = cache(lambda code: None if code == UNKNOWN else json.loads(columns.values[code]))
    rows = np.flatnonzero((columns.label != UNKNOWN) & columns.with_feedback)
    pairs, place = distinct_rows(np.column_stack([columns.label, output, several.astype(np.int32)])[rows])
    compared = [_loss(kind, value(label), value(said), several=bool(many)) for label, said, many in pairs.tolist()]
    losses = np.full(len(columns), np.nan)
    losses[rows] = np.array(compared, np.float64)[place]
    return losses


def _loss(kind: str, label: Any, output: Any, *, several: bool) -> float:
    """1 for an output that the label cannot be compared with: it must not gain by it."""
    try:
        return loss_of_rows(kind, label, output) if several and output is not None else loss_of(kind, label, output)
    except InvalidLabel:
        return _FAILED
