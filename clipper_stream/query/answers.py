"""The answers to queries of a batch, from what is in their slots.

Rules of this file:
- A packed query is answered row by row: a row that one model failed on is combined from the others, and only a row that
  nobody answered gets the default.
- What each model said is in the slots of the batch and is not repeated here.
"""

import marshal
from collections.abc import Mapping, Sequence
from functools import lru_cache
from types import MappingProxyType
from typing import Any, NamedTuple

from clipper_stream.caching.cache import MARSHAL_FORMAT
from clipper_stream.combining.combiner import VOTE, Combined, combine
from clipper_stream.errors import ModelFailed, shown
from clipper_stream.query.batch import LATE, PLAIN, Failure, QueryBatch

_NO_FAILURES: Mapping[int, Failure] = MappingProxyType({})
Answer = tuple[Any, float, Failure | None]
"""The output of one query, or its list of outputs; its confidence; and why the default was given."""


class Answers(NamedTuple):
    """The answers to entries of a batch; of audits only that they ended, and when.

    Attributes:
        entries: Queries or audits, by their index.
        decided_at_s: When, seconds since the epoch.
        outputs: One a query; of a packed one the list of its outputs.
        confidences: Least agreement over the rows, in [0, 1].
        failures: Why the default was given, for one row at least, by entry.
    """

    batch: QueryBatch
    entries: Sequence[int]
    decided_at_s: float
    outputs: Sequence[Any] = ()
    confidences: Sequence[float] = ()
    failures: Mapping[int, Failure] = _NO_FAILURES


def refuse(batch: QueryBatch, why: Mapping[int, Failure], now_s: float) -> Answers:
    """The default output for queries, without asking a model."""
    default = batch.manifest.default_output if batch.is_registered else None
    outputs = [default] * len(why)
    if batch.options:
        for place, query in enumerate(why):
            if batch.options.get(query, PLAIN).packed:
                outputs[place] = [default] * max(1, batch.count(query))
    return Answers(batch, [*why], now_s, outputs, [0.0] * len(why), why)


def conclude(batch: QueryBatch, entries: Sequence[int], now_s: float) -> Answers:
    """Answer queries of which no slot is open."""
    given, start, decisions = batch.outputs, batch.slot_start, batch.decisions
    if batch.single and not batch.failed and len(given) == len(batch):  # the only output is the answer
        only = [given[entry] for entry in entries]
        if batch.options:
            asked = [batch.options.get(entry, PLAIN) for entry in entries]
            only = [[output] if query.packed else output for output, query in zip(only, asked, strict=True)]
        return Answers(batch, entries, now_s, only, [1.0] * len(entries))
    outputs, confidences, failures = list[Any](), list[float](), dict[int, Failure]()
    votes: dict[Any, Answer] = {}
    is_vote, default, again = batch.manifest.combiner == VOTE, batch.manifest.default_output, batch.again
    for entry in entries:
        slots = given[start[entry] : start[entry + 1]]
        slots += given[start[again[entry]] : start[again[entry] + 1]] if entry in again else ()
        packed = entry in batch.options and batch.options[entry].packed
        has_failed, decision = entry in batch.failed, decisions[entry]
        if has_failed and not packed and decision is not None and slots.count(LATE) == len(slots):
            outputs.append(default)
            confidences.append(0.0)
            bound_s = batch.due_s[entry] - batch.queried_at_s[entry]
            failures[entry] = _no_output(decision.served, round(bound_s * 1000))
            continue
        ballots = b"" if has_failed or not is_vote else _ballots(slots)
        key = id(decision), packed, ballots
        answer = votes.get(key) if ballots else None
        if answer is None:
            answer = _answer(batch, entry, slots, packed=packed)
            if ballots and answer[2] is None:  # a failure names the query's own times
                votes[key] = answer
        outputs.append(answer[0])
        confidences.append(answer[1])
        if answer[2] is not None:
            failures[entry] = answer[2]
    return Answers(batch, entries, now_s, outputs, confidences, failures)


def _answer(batch: QueryBatch, entry: int, slots: list[Any], *, packed: bool) -> Answer:
    if len(slots) == 1 and not packed and slots[0].__class__ is not Failure:
        return slots[0], 1.0, None
    manifest = batch.manifest
    count = 1 if batch.single else batch.count(entry)
    rows = [slots[row::count] for row in range(count)]
    combined, failure = _combined(batch, entry, rows)
    confidence = min((one.confidence if one else 0.0) for one in combined)
    empty = [row for row, one in enumerate(combined) if one is None]
    if failure is None and empty:
        failure = _why_nobody(batch, entry, [output for row in empty for output in rows[row]], empty if packed else [])
    elif failure is None and confidence < manifest.confidence_threshold:
        bound = manifest.confidence_threshold
        why = f"confidence {confidence:.3f} is below the application's threshold {bound}"
        failure, combined = Failure("low_confidence", why), [None] * count
    outputs = [one.output if one else manifest.default_output for one in combined]
    return outputs if packed else outputs[0], confidence, failure


def _combined(batch: QueryBatch, entry: int, rows: list[list[Any]]) -> tuple[list[Combined | None], Failure | None]:
    """Each row's answer, None where nobody served it; and why outputs that are here cannot be combined."""
    decision, kind, weights, why = batch.decisions[entry], batch.manifest.combiner, batch.weights[entry], None
    refs, served = (decision.models, decision.served) if decision else ((), ())
    combined: list[Combined | None] = []
    for row in rows:
        outputs = {
            ref: output
            for ref, output in zip(refs, row, strict=True)
            if output is not None and output.__class__ is not Failure
        }
        one, asked = None, len(refs)
        if served != refs and (own := {ref: outputs[ref] for ref in served if ref in outputs}):
            outputs, asked = own, len(served)
        try:
            one = combine(kind, outputs, weights, asked) if outputs else None
        except ModelFailed as error:
            why = Failure("errors", str(error))
        combined.append(one)
    return combined, why


def _ballots(outputs: list[Any]) -> bytes:
    """What is equal for the same outputs alone: 1, 1.0 and true are one label, and three outputs. Empty: unknown."""
    try:
        return marshal.dumps(outputs, MARSHAL_FORMAT)
    except ValueError:
        return b""


def _why_nobody(batch: QueryBatch, entry: int, outputs: list[Any], rows: list[int]) -> Failure:
    """Why there is no output of a served model, of a packed query for these rows."""
    decision, where = batch.decisions[entry], f" for rows {shown(rows)}" if rows else ""
    served = decision.served if decision else ()
    failures = [output if output.__class__ is Failure else LATE for output in outputs]
    if any(failure.reason == "late" for failure in failures):
        return _no_output(served, round((batch.due_s[entry] - batch.queried_at_s[entry]) * 1000), where)
    return Failure("errors", f"{', '.join(served)} failed{where}: {failures[0].explanation}")


@lru_cache(maxsize=1024)
def _no_output(served: tuple[str, ...], bound_ms: int, where: str = "") -> Failure:
    return Failure("late", f"no output of {', '.join(served)} within {bound_ms} ms of the query's timestamp{where}")
