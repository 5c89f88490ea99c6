"""The laws that a host relies on, each a function that looks at one of them.

Rules of this file:
- A law says what was found, with the value and the bound. It raises `Broken` with what to do, or `NotSeen` with the
  reason why it could not be looked at; that it holds is never said of what was not tried.
- The host batches rows of different applications together, in any order, splits a batch when it fails, caches outputs,
  and asks from another thread than the one that loaded the model. Each law is one thing that it takes for granted.
"""

import copy
import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from clipper_stream.errors import shown
from clipper_stream.models.model import Model, Rows
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.models.runner import BatchOutcome, predict_rows
from clipper_stream.models.testing.subprocess_check import load_in_subprocess

MAX_OUTPUT_BYTES = 512 * 1024
"""Of one output as it is sent from a host to a router: half of what a broker takes by default."""
_ODD: dict[str, list[Any]] = {
    "text": ["", "\x00", "\U0001f600" * 50, "1e999", "x" * 10_000],
    "bytes": [b"", b"\x00" * 16, b"\xff" * 1000],
    "json": [None, {}, [], "", -1, {"unexpected": [None]}],
}
_ODD_CELLS = {"number": -1e300, "text": "x" * 10_000, "date": "9999-12-31T00:00:00"}


class Broken(Exception):
    """A law does not hold: what was found, with the value and the bound, and what to do."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(f"{found}; {advice}")


class NotSeen(Exception):
    """A law could not be looked at; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A model with the rows that the laws try it with; as `check_model` has them, rows converted.

    Attributes:
        source: Arguments of `load_model` for another process; None for a model that was made here.
    """

    model: Model
    rows: Rows
    spec: RowSpec
    source: Mapping[str, Any] | None
    deterministic: bool
    tolerance: float

    def ask(self, rows: Rows) -> BatchOutcome:
        """Run a batch as a host would; the model gets its own copy of the rows."""
        return predict_rows(self.model, copy.deepcopy(rows))

    def outputs(self) -> list[Any]:
        """The outputs of the samples, of which at least one has one: nothing can be compared with nothing."""
        outcome = self.ask(self.rows)
        if len(outcome.failed) == len(outcome.outputs):
            raise NotSeen("no sample was answered")
        return outcome.outputs

    def compare(self, first: list[Any], then: list[Any], where: tuple[str, str], advice: str) -> None:
        """Raise `Broken` unless both are the same, numbers within the tolerance."""
        for row, (one, other) in enumerate(zip(first, then, strict=True)):
            if not self._same(one, other):
                raise Broken(f"row {row} has {shown(one)} {where[0]}, {shown(other)} {where[1]}", advice)

    def _same(self, one: Any, other: Any) -> bool:
        if _is_number(one) and _is_number(other):
            return math.isclose(one, other, rel_tol=self.tolerance, abs_tol=self.tolerance)
        if isinstance(one, list) and isinstance(other, list):
            return len(one) == len(other) and all(map(self._same, one, other))
        if isinstance(one, dict) and isinstance(other, dict):
            return one.keys() == other.keys() and all(self._same(one[key], other[key]) for key in one)
        return type(one) is type(other) and bool(one == other)


def answers_every_sample(subject: Subject) -> str:
    """Every sample has an output, in one call."""
    outcome = subject.ask(subject.rows)
    if outcome.failed:
        row, why = next(iter(outcome.failed.items()))
        found = f"{len(outcome.failed)} of {len(outcome.outputs)} rows failed, row {row} with {why}"
        raise Broken(found, "correct the model, or give samples that fit it (dtype, shape)")
    if outcome.calls > 1:
        found = f"the batch failed as a whole and took {outcome.calls} calls"
        raise Broken(found, "let predict_batch take any number of rows, and give one output a row")
    return f"{len(subject.rows)} rows answered in one call"


def inputs_are_left_alone(subject: Subject) -> str:
    """The rows are afterwards what they were: a part of a failed batch is asked again, with the same rows."""
    rows = copy.deepcopy(subject.rows)
    subject.model.predict_batch(rows)
    if not np.array_equal(rows, subject.rows) if isinstance(rows, np.ndarray) else rows != subject.rows:
        raise Broken("the model wrote into its rows", "copy what it changes: rows = rows.copy()")
    return f"{len(rows)} rows unchanged"


def a_batch_is_as_row_by_row(subject: Subject) -> str:
    """A row has the output in a batch that it has alone: neighbours are chance, and outputs are cached."""
    rows = subject.rows
    together, alone = subject.outputs(), [subject.ask(rows[row : row + 1]).outputs[0] for row in range(len(rows))]
    where = f"in a batch of {len(together)}", f"alone; equal within {subject.tolerance:g}"
    advice = "let an output depend on its row only (no mean or maximum over the batch), or raise the tolerance"
    subject.compare(together, alone, where, advice)
    return f"{len(alone)} rows, within {subject.tolerance:g}"


def the_same_row_has_the_same_output(subject: Subject) -> str:
    """Twice in this process: outputs of a deterministic model are cached."""
    if not subject.deterministic:
        raise NotSeen("the model says deterministic = false: nothing is cached")
    first, again = subject.outputs(), subject.ask(subject.rows).outputs
    advice = "seed what is random, keep no state, or say deterministic = false"
    subject.compare(first, again, ("at first", "when it is asked again"), advice)
    return f"{len(first)} rows asked twice"


def another_process_has_the_same_output(subject: Subject) -> str:
    """In a process of its own with another hash seed: replicas, and hosts after a restart, share a cache."""
    if not subject.deterministic:
        raise NotSeen("the model says deterministic = false: nothing is cached")
    if subject.source is None:
        raise NotSeen("the model is an object of this process: give its URI")
    here = subject.outputs()
    try:
        there, _ = load_in_subprocess(subject.source, subject.spec, subject.rows)
    except OSError as error:
        raise Broken(f"another process cannot ask it: {error}", "let it need only its file and its module") from error
    advice = "seed what is random, do not use hash() of text, or say deterministic = false"
    subject.compare(here, there, ("here", "in another process"), advice)
    return f"{len(here)} rows asked in another process"


def another_thread_can_ask(subject: Subject) -> str:
    """From a thread that did not load it: the host asks from one thread at a time, and not always from the same."""
    subject.outputs()
    here = subject.ask(subject.rows)
    with ThreadPoolExecutor(max_workers=1) as thread:
        there = thread.submit(subject.ask, subject.rows).result()
    advice = "keep nothing that belongs to the loading thread"
    lost = next(iter(set(there.failed) - set(here.failed)), None)
    if lost is not None:
        raise Broken(f"in another thread: {there.failed[lost]}", advice)
    if subject.deterministic:
        subject.compare(here.outputs, there.outputs, ("here", "in another thread"), advice)
    return f"{len(here.outputs)} rows asked in another thread"


def a_bad_row_fails_alone(subject: Subject) -> str:
    """Good rows keep their outputs beside rows that the model does not expect."""
    bad = _odd_rows(subject.spec, subject.rows)
    alone, rows = subject.outputs(), subject.rows
    with np.errstate(all="ignore"):  # what such rows overflow is no news
        outcome = subject.ask(np.concatenate([rows, bad]) if isinstance(rows, np.ndarray) else [*rows, *bad])
    advice = "let an output depend on its row only, and raise rather than keep what a bad row left"
    where = "in a batch of samples", f"beside {len(bad)} odd rows"
    subject.compare(alone, outcome.outputs[: len(alone)], where, advice)
    refused = sum(failed >= len(alone) for failed in outcome.failed)
    return f"{len(alone)} rows beside {len(bad)} odd ones, of which {refused} failed"


def outputs_can_be_written(subject: Subject) -> str:
    """In JSON and msgpack, read back as they were, and small enough for a record."""
    answers_every_sample(subject)
    sizes = []
    for row, output in enumerate(subject.outputs()):
        packed, text = msgspec.msgpack.encode(output), msgspec.json.encode(output)
        sizes.append(len(packed))
        if not msgspec.msgpack.decode(packed) == output == msgspec.json.decode(text):
            raise Broken(f"the output of row {row} is read back otherwise", "give numbers, text, lists or dicts")
        if len(packed) > MAX_OUTPUT_BYTES:
            found = f"the output of row {row} takes {len(packed)} bytes, a record has at most {MAX_OUTPUT_BYTES}"
            raise Broken(found, "give less, for example the best ten of all classes")
    return f"at most {max(sizes)} bytes a row, of {MAX_OUTPUT_BYTES}"


LAWS = {
    law.__name__: law
    for law in (
        answers_every_sample,
        inputs_are_left_alone,
        a_batch_is_as_row_by_row,
        the_same_row_has_the_same_output,
        another_process_has_the_same_output,
        another_thread_can_ask,
        a_bad_row_fails_alone,
        outputs_can_be_written,
    )
}
"""Every law by its name. A new one is added here."""


def _odd_rows(spec: RowSpec, like: Rows) -> Rows:
    """Rows that fit the spec and that few models expect: zeros, extremes, empty texts; numeric ones like others."""
    if spec.columns:
        return [{name: _ODD_CELLS[dtype] for name, dtype in spec.columns}, *(spec.sample(1) or ())]
    if not isinstance(like, np.ndarray):
        return _ODD[spec.dtype]
    kind = np.finfo(like.dtype) if like.dtype.kind == "f" else np.iinfo(like.dtype)
    return np.stack([np.full(like.shape[1:], value, like.dtype) for value in (0, kind.max, kind.min, 1)])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
