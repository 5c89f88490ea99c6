"""The laws that a host relies on, each a function that looks at one of them.

Rules of this file:
- A law says what was found, with the value and the bound. It raises `Broken` with what to do, or `NotSeen` with the
  reason why it could not be looked at; that it holds is never said of what was not tried.
- The host batches rows of different applications together, in any order, splits a batch when it fails, caches outputs,
  and asks from another thread than the one that loaded the model. Each law is one thing that it takes for granted.
"""

import random
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from clipper_stream.errors import shown
from clipper_stream.models.runner import BatchOutcome
from clipper_stream.models.testing.subject import Subject, copied, equal_rows, joined, odd_rows, picked
from clipper_stream.models.testing.subprocess_check import outputs_elsewhere

MAX_OUTPUT_BYTES = 512 * 1024
"""Of one output as it is sent from a host to a router: half of what a broker takes by default."""


class Broken(Exception):
    """A law does not hold: what was found, with the value and the bound, and what to do."""

    def __init__(self, found: str, advice: str) -> None:
        super().__init__(found)
        self.advice = advice


class NotSeen(Exception):
    """A law could not be looked at; the message says why."""


def answers_every_sample(subject: Subject) -> str:
    """Every sample has an output, in one call."""
    outcome = subject.ask(subject.rows)
    _check_answered(outcome)
    return f"{len(subject.rows)} rows answered in one call"


def one_output_a_row(subject: Subject) -> str:
    """As many outputs as rows, whatever the size of the batch."""
    for rows in sorted({1, 2, len(subject.rows)}):
        found = len(subject.model.predict_batch(copied(subject.rows[:rows])))
        if found != rows:
            raise Broken(f"{found} outputs for {rows} rows", "give a list or an array with one output a row")
    return f"one output a row, in batches of 1, 2 and {len(subject.rows)} rows"


def an_empty_batch_is_empty(subject: Subject) -> str:
    """No output for no row. The host sends none, so an error is fine, and outputs out of nothing are not."""
    try:
        found = len(subject.model.predict_batch(copied(subject.rows[:0])))
    except Exception as error:  # noqa: BLE001 - whatever a model raises about nothing
        return f"refused with {type(error).__name__}, and the host sends none"
    if found:
        raise Broken(f"{found} outputs for no row", "make the outputs out of the rows, so that none give none")
    return "no output for no row"


def inputs_are_left_alone(subject: Subject) -> str:
    """The rows are afterwards what they were: a part of a failed batch is asked again, with the same rows."""
    rows = copied(subject.rows)
    subject.model.predict_batch(rows)
    if not equal_rows(rows, subject.rows):
        raise Broken("the model wrote into its rows", "copy what it changes: rows = rows.copy()")
    return f"{len(rows)} rows unchanged"


def a_batch_is_as_row_by_row(subject: Subject) -> str:
    """A row has the output in a batch that it has alone: neighbours are chance, and outputs are cached."""
    together, alone = _answered(subject), subject.one_by_one()
    where = f"in a batch of {len(together)}", f"alone; equal within {subject.tolerance:g}"
    advice = "let an output depend on its row only (no mean or maximum over the batch), or raise the tolerance"
    _check_same(subject, together, alone, where, advice)
    return f"{len(alone)} rows, within {subject.tolerance:g}"


def order_does_not_matter(subject: Subject) -> str:
    """A row has the same output wherever it stands in the batch."""
    order = list(range(len(subject.rows)))
    random.Random(subject.seed).shuffle(order)  # noqa: S311 - an order, no secret
    if order == sorted(order):
        order.reverse()
    first, moved = _answered(subject), subject.ask(picked(subject.rows, order)).outputs
    back = [output for _, output in sorted(zip(order, moved, strict=True), key=lambda pair: pair[0])]
    advice = "give outputs in the order of the rows, and keep nothing from row to row"
    _check_same(subject, first, back, ("in the order of the samples", "in another order"), advice)
    return f"{len(order)} rows in another order"


def the_same_row_has_the_same_output(subject: Subject) -> str:
    """Twice in this process: outputs of a deterministic model are cached."""
    if not subject.deterministic:
        raise NotSeen("the model says deterministic = false: nothing is cached")
    first, again = _answered(subject), subject.ask(subject.rows).outputs
    advice = "seed what is random, keep no state, or say deterministic = false"
    _check_same(subject, first, again, ("at first", "when it is asked again"), advice)
    return f"{len(first)} rows asked twice"


def another_process_has_the_same_output(subject: Subject) -> str:
    """In a process of its own with another hash seed: replicas, and hosts after a restart, share a cache."""
    if not subject.deterministic:
        raise NotSeen("the model says deterministic = false: nothing is cached")
    if subject.source is None:
        raise NotSeen("the model was made here, and no other process can load it: give a URI")
    here = _answered(subject)
    try:
        there = outputs_elsewhere(subject.source, subject.spec, subject.rows)
    except OSError as error:
        raise Broken(f"another process cannot ask it: {error}", "let it need only its file and its module") from error
    advice = "seed what is random, do not use hash() of text, or say deterministic = false"
    _check_same(subject, here, there, ("here", "in another process"), advice)
    return f"{len(here)} rows asked in another process"


def another_thread_can_ask(subject: Subject) -> str:
    """From a thread that did not load it: the host asks from one thread at a time, and not always from the same."""
    _answered(subject)
    here = subject.ask(subject.rows)
    with ThreadPoolExecutor(max_workers=1) as thread:
        there = thread.submit(subject.ask, subject.rows).result()
    advice = "keep nothing that belongs to the loading thread"
    lost = next(iter(set(there.failed) - set(here.failed)), None)
    if lost is not None:
        raise Broken(f"in another thread: {there.failed[lost]}", advice)
    if subject.deterministic:
        _check_same(subject, here.outputs, there.outputs, ("here", "in another thread"), advice)
    return f"{len(here.outputs)} rows asked in another thread"


def a_bad_row_fails_alone(subject: Subject) -> str:
    """Good rows keep their outputs beside rows that the model does not expect."""
    bad = subject.bad_rows if len(subject.bad_rows) else odd_rows(subject.spec, subject.rows)
    if not len(bad):
        raise NotSeen("no rows that are bad for this model: give bad_rows")
    alone = _answered(subject)
    with np.errstate(all="ignore"):  # what such rows overflow is no news
        outcome = subject.ask(joined(subject.rows, bad))
    advice = "let an output depend on its row only, and raise rather than keep what a bad row left"
    where = "in a batch of samples", f"beside {len(bad)} odd rows"
    _check_same(subject, alone, outcome.outputs[: len(alone)], where, advice)
    refused = sum(failed >= len(alone) for failed in outcome.failed)
    if len(subject.bad_rows) and refused < len(bad):
        raise Broken(f"{len(bad) - refused} of {len(bad)} bad rows were answered", "raise, or give null, for a bad row")
    return f"{len(alone)} rows beside {len(bad)} odd ones, of which {refused} failed"


def outputs_can_be_written(subject: Subject) -> str:
    """In JSON and msgpack, read back as they were, and small enough for a record."""
    outcome = subject.ask(subject.rows)
    _check_answered(outcome)
    sizes = []
    for row, output in enumerate(outcome.outputs):
        packed, text = msgspec.msgpack.encode(output), msgspec.json.encode(output)
        sizes.append(len(packed))
        if not msgspec.msgpack.decode(packed) == output == msgspec.json.decode(text):
            raise Broken(f"the output of row {row} is read back otherwise", "give numbers, text, lists or dicts")
        if len(packed) > MAX_OUTPUT_BYTES:
            found = f"the output of row {row} takes {len(packed)} bytes, a record has at most {MAX_OUTPUT_BYTES}"
            raise Broken(found, "give less, for example the best ten of all classes")
    return f"at most {max(sizes)} bytes a row, of {MAX_OUTPUT_BYTES}"


def _answered(subject: Subject) -> list[Any]:
    """The outputs of the samples, of which at least one has one: nothing can be compared with nothing."""
    outcome = subject.ask(subject.rows)
    if len(outcome.failed) == len(outcome.outputs):
        raise NotSeen("no sample was answered")
    return outcome.outputs


def _check_same(subject: Subject, first: list[Any], then: list[Any], where: tuple[str, str], advice: str) -> None:
    for row, (one, other) in enumerate(zip(first, then, strict=True)):
        if not subject.same(one, other):
            raise Broken(f"row {row} has {shown(one)} {where[0]}, {shown(other)} {where[1]}", advice)


def _check_answered(outcome: BatchOutcome) -> None:
    if outcome.failed:
        row, why = next(iter(outcome.failed.items()))
        found = f"{len(outcome.failed)} of {len(outcome.outputs)} rows failed, row {row} with {why}"
        raise Broken(found, "correct the model, or give samples that fit it (dtype, shape)")
    if outcome.calls > 1:
        found = f"the batch failed as a whole and took {outcome.calls} calls"
        raise Broken(found, "let predict_batch take any number of rows")


LAWS: Mapping[str, Callable[[Subject], str]] = MappingProxyType(
    {
        law.__name__: law
        for law in (
            answers_every_sample,
            one_output_a_row,
            an_empty_batch_is_empty,
            inputs_are_left_alone,
            a_batch_is_as_row_by_row,
            order_does_not_matter,
            the_same_row_has_the_same_output,
            another_process_has_the_same_output,
            another_thread_can_ask,
            a_bad_row_fails_alone,
            outputs_can_be_written,
        )
    }
)
"""Every law by its name. A new one is added here."""
