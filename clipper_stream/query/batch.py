"""Queries that were decoded together, as columns: from the records that were read to the records that are written.

Rules of this file:
- A batch has queries of one application, partition and content type. One query by itself is a batch of one.
- A query is known by its index. What is asked beside it for the log only, its audit, is an entry of its own behind all
  queries, so that one code serves both.
- An entry has a slot for each row of each model that it asks, its models one after another: those of an entry begin at
  `slot_start`. A slot is filled once, by an output or by a `Failure`; of an entry that is answered none is open.
- The slots of a model that is asked after the first has answered are in a further entry of the query, `again`.
- What few queries have is in a map by index; what all have is in a list.

The state of an entry is one byte, and one table says what may follow what:

    READ -- WAITING --+-- ANSWERED --+
      |               |-- DEFAULTED -+-- RECORDED -- ACKNOWLEDGED
      |-- DEFAULTED   '-- NOTED -----+                  |
      |-- NOTED                                         |
      |-- KNOWN, REPEATED ------------------------------+
      '-- DEFERRED                      read again when there is room

- Every query ends ACKNOWLEDGED, or is DEFERRED and read again; one that was decided about only through RECORDED.
- RECORDED means that the broker has acknowledged the prediction and the decision is indexed. Only then may the query's
  offset be acknowledged, so that a crash repeats queries but loses none. A query with an audit is acknowledged when the
  audit is recorded too.
- An audit ends NOTED instead of ANSWERED or DEFAULTED; that of a process that ended before is NOTED at once.
- A move that the table does not have is a bug of ours and raises; nothing is moved silently.

Source: Clipper, section 5.2.2 (at the deadline, combine what arrived); the form of the table is h11's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from itertools import accumulate, chain, islice, pairwise
from types import MappingProxyType
from typing import Any, Final, NamedTuple, TypeAlias

from clipper_stream.caching.cache import row_hashes
from clipper_stream.models.plain_outputs import split_confidence
from clipper_stream.query.application import Application
from clipper_stream.selection.distribution import Decision
from clipper_stream.selection.trials import PolicyChoice


class QueryState(IntEnum):
    """The state of a query or of an audit.

    KNOWN: its id was answered before. REPEATED: it was in flight already, and gets the same prediction. DEFERRED: there
    is no room for it now. WAITING: at least one model was asked. DEFAULTED: for one row at least.
    """

    READ = 0
    KNOWN = 1
    REPEATED = 2
    DEFERRED = 3
    WAITING = 4
    ANSWERED = 5
    DEFAULTED = 6
    NOTED = 7
    RECORDED = 8
    ACKNOWLEDGED = 9


class IllegalTransition(RuntimeError):
    """A query cannot have this state after the one that it has.

    A bug of the caller, so deliberately no `ClipperError`: nothing that answers for bad requests may swallow it.
    """


_S = QueryState
BEFORE: Mapping[QueryState, tuple[QueryState, ...]] = MappingProxyType(
    {
        _S.KNOWN: (_S.READ,),
        _S.REPEATED: (_S.READ,),
        _S.DEFERRED: (_S.READ,),
        _S.WAITING: (_S.READ,),
        _S.ANSWERED: (_S.WAITING,),
        _S.DEFAULTED: (_S.READ, _S.WAITING),
        _S.NOTED: (_S.READ, _S.WAITING),
        _S.RECORDED: (_S.ANSWERED, _S.DEFAULTED, _S.NOTED),
        _S.ACKNOWLEDGED: (_S.RECORDED, _S.KNOWN, _S.REPEATED),
    }
)
"""Every legal move: the state after, and those before."""
_ILLEGAL = 255
_MOVES = {to: bytes(to if before in legal else _ILLEGAL for before in range(256)) for to, legal in BEFORE.items()}


def set_state(column: bytearray, entries: Sequence[int], to: QueryState) -> None:
    """Give entries of a column another state.

    Raises:
        IllegalTransition: the table does not have the move of one of them; nothing was moved.

    >>> set_state(column := bytearray(3), [0, 2], QueryState.WAITING)
    >>> [QueryState(one).name for one in column]
    ['WAITING', 'READ', 'WAITING']
    """
    moves = _MOVES[to]
    if len(entries) == len(column):
        moved = column.translate(moves)
    else:
        moved = column[:]
        for entry in entries:
            moved[entry] = moves[column[entry]]
    if _ILLEGAL in moved:
        before = ", ".join(sorted({QueryState(column[entry]).name for entry in entries}))
        raise IllegalTransition(f"{to.name} after {before}: legal is after {', '.join(one.name for one in BEFORE[to])}")
    column[:] = moved


# --- columns --------------------------------------------------------------------------------------------------------
class Failure(NamedTuple):
    """Why there is no output: of a model for one row, of a model for all rows, or of a query, which gets the default.

    Attributes:
        reason: A word for programs: `late` or `error` of a row or a model; of a query as its prediction has it.
        explanation: A sentence for people.
    """

    reason: str
    explanation: str


OPEN: Final[Any] = object()
"""Stands in a slot whose output is outstanding."""
LATE = Failure("late", "no output by the deadline")


class OptionalFields(NamedTuple):
    """What a query says beside its id, its row and its deadline; most say nothing.

    Attributes:
        packed: Whether it came with `inputs`, and wants `outputs`.
        context: Whose weights to use.
        models: Ask exactly these, when given.
        features: Numbers for a contextual policy to choose by; None: it gives none.
        invalid: What is wrong with it, when it can be read but not answered.
        raw: Whether its rows are each an `UndecodedRow`: it is large, and is alone in its batch.
    """

    packed: bool = False
    context: str | None = None
    models: list[str] | None = None
    features: list[float] | None = None
    invalid: str | None = None
    raw: bool = False


PLAIN = OptionalFields()
ReadQuery: TypeAlias = tuple[str, int, float, bytes | None, Sequence[Any]]
"""A query as it was read: id, offset, when it was asked, key of its record, and rows as decoded."""


@dataclass(slots=True, eq=False, repr=False)
class QueryBatch:
    """Queries of one application, partition and content type.

    Attributes:
        application: Its name.
        generation: Of the consumer when they were read; an acknowledgement of an older generation is void.
        ids, offsets: Of the queries, in the order of the log.
        queried_at_s: When each was asked, seconds since the epoch.
        keys: Of their records; the predictions have the same.
        rows: As decoded, those of all queries; from the decision on as converted, of the queries that ask.
        row_start: Index of each query's first row as decoded, and the number of rows.
        bounds_s: How long a query may take, in seconds, of those that say so.
        echoed: Headers that the prediction of a query repeats, of those that have any.
        options: Of the queries that have any.
        traces: Of sampled queries.
        shares_id: Whether another application's query has the same id as one of these.
        states: The `QueryState` of each entry.
        new: The queries that were not read before.
        is_registered: Whether there is an application of this name, when it is planned.
        manifest: The application as it was then; only where `is_registered`.
        asked_at_s: When the decision was made, seconds since the epoch; 0.0: nobody was asked.
        due_s: When to answer each query with what is there, seconds since the epoch.
        decisions: By entry; None where nobody is asked.
        weights: Trust in each candidate at the decision, by query.
        features: What contextual policies chose by, of the queries that have any.
        first_row: Index of each query's first row as converted.
        audit: The entry of the audit of each query that has one.
        again: The entry of the model that a query asked after the first one had answered.
        query_behind: The query of each entry behind the queries: audits first, then those of `again`.
        second_choices: By context, of a policy that `asks_again`.
        confidences: Of outputs with a confidence, by slot.
        single: Whether every query asks for one row, all as many models, and none has an audit.
        slot_start: First slot of each entry, and the number of slots.
        slot_entry, slot_row: Whose each slot is, and which of the rows it is for.
        slots_by_ref: The slots of each model version.
        outputs: An output, a `Failure` or OPEN, by slot.
        arrived_s: When each output came, seconds since the epoch; 0.0 where it was cached, or did not come.
        open_slots: How many slots of each entry are open; `waiting`: how many entries have any.
        failed: Entries that have a failure in a slot.
        noted_at_s: When each audit was complete or given up, seconds since the epoch.
    """

    application: str
    partition: int
    generation: int
    content_type: str
    ids: list[str] = field(default_factory=list, init=False)
    offsets: list[int] = field(default_factory=list, init=False)
    queried_at_s: list[float] = field(default_factory=list, init=False)
    keys: list[bytes | None] = field(default_factory=list, init=False)
    rows: Any = field(default_factory=list, init=False)
    row_start: list[int] = field(default_factory=lambda: [0], init=False)
    bounds_s: dict[int, float] = field(default_factory=dict, init=False)
    echoed: dict[int, tuple[tuple[str, bytes], ...]] = field(default_factory=dict, init=False)
    options: dict[int, OptionalFields] = field(default_factory=dict, init=False)
    traces: dict[int, Any] = field(default_factory=dict, init=False)
    shares_id: bool = field(default=False, init=False)
    states: bytearray = field(default_factory=bytearray, init=False)
    new: Sequence[int] = field(default=(), init=False)
    is_registered: bool = field(default=False, init=False)
    manifest: Application = field(init=False)
    asked_at_s: float = field(default=0.0, init=False)
    due_s: list[float] = field(init=False)
    decisions: list[Decision | None] = field(init=False)
    weights: list[Mapping[str, float]] = field(init=False)
    features: dict[int, list[float]] = field(default_factory=dict, init=False)
    first_row: Sequence[int] = field(init=False)
    audit: dict[int, int] = field(default_factory=dict, init=False)
    again: dict[int, int] = field(default_factory=dict, init=False)
    query_behind: list[int] = field(default_factory=list, init=False)
    second_choices: Mapping[str | None, PolicyChoice] = field(default_factory=dict, init=False)
    confidences: dict[int, float] = field(default_factory=dict, init=False)
    single: bool = field(init=False)
    slot_start: Sequence[int] = field(default=(0,), init=False)
    slot_entry: Sequence[int] = field(default=(), init=False)
    slot_row: Sequence[int] = field(default=(), init=False)
    slots_by_ref: Mapping[str, Sequence[int]] = field(init=False)
    outputs: list[Any] = field(init=False)
    arrived_s: list[float] = field(init=False)
    open_slots: list[int] = field(default_factory=list, init=False)
    waiting: int = field(default=0, init=False)
    failed: set[int] = field(default_factory=set, init=False)
    noted_at_s: dict[int, float] = field(default_factory=dict, init=False)
    _hashes: list[bytes] | None = field(default=None, init=False)

    def __len__(self) -> int:
        return len(self.ids)

    def extend(self, queries: Sequence[ReadQuery]) -> None:
        if not queries:
            return
        ids, offsets, queried_at_s, keys, rows = zip(*queries, strict=True)
        self.ids += ids
        self.offsets += offsets
        self.queried_at_s += queried_at_s
        self.keys += keys
        starts = accumulate(map(len, rows), initial=len(self.rows))
        self.row_start += islice(starts, 1, None)
        self.rows += chain.from_iterable(rows)
        self.states += bytes([QueryState.READ]) * len(queries)

    def alone(self, query: int) -> "QueryBatch":
        """A batch of one of the queries, as it was read; without its rows where they are converted."""
        own = QueryBatch(self.application, self.partition, self.generation, self.content_type)
        rows = [] if self.asked_at_s else self.rows[self.row_start[query] : self.row_start[query + 1]]
        own.extend([(self.ids[query], self.offsets[query], self.queried_at_s[query], self.keys[query], rows)])
        own.row_start = [0, max(1, self.row_start[query + 1] - self.row_start[query])]
        for all_of, one in zip(self._maps(), own._maps(), strict=True):
            if query in all_of:
                one[0] = all_of[query]
        return own

    def _maps(self) -> tuple[dict[int, Any], ...]:
        return self.bounds_s, self.echoed, self.options, self.traces, self.features

    # --- deciding -------------------------------------------------------------------------------------------------
    def ask(
        self,
        decisions: list[Decision | None],
        weights: list[Mapping[str, float]],
        audits: Mapping[int, Decision],
        asked: Sequence[int],
        now_s: float,
    ) -> None:
        """Open a slot for each row of each model that a query is to ask, and for its audit.

        Args:
            decisions: By query.
            weights: By query.
            audits: What is asked for the log only, by query.
            asked: The queries that have a decision.
            now_s: The time, seconds since the epoch.
        """
        count = len(self.ids)
        self.decisions, self.weights, self.asked_at_s = decisions, weights, now_s
        self.query_behind = [*audits]
        if audits:
            decisions += audits.values()
            self.audit = {query: count + place for place, query in enumerate(audits)}
            self.states.extend(bytes(len(audits)))
            asked = [*asked, *range(count, count + len(audits))]
        self.single = len(asked) == count == len(decisions) == self.row_start[-1] and self._open_alike()
        if not self.single:
            self.slots_by_ref = self._open_each()
        self.outputs, self.arrived_s = [OPEN] * len(self.slot_entry), [0.0] * len(self.slot_entry)
        self.waiting = len(asked)
        set_state(self.states, asked, QueryState.WAITING)

    def _open_alike(self) -> bool:
        """Where every query asks for one row equally many models, the usual case; False where they do not."""
        count, decisions = len(self.ids), [one for one in self.decisions if one is not None]
        models = decisions[0].models
        width, alike = len(models), len({*map(id, decisions)}) == 1
        if not alike and any(len(one.models) != width for one in decisions):
            return False
        self.slot_start, self.open_slots = range(0, count * width + 1, width), [width] * count
        self.slot_entry = range(count) if width == 1 else [entry for entry in range(count) for _ in range(width)]
        self.slot_row = self.slot_entry
        if alike:
            slots = range(count * width)
            self.slots_by_ref = {ref: slots[model::width] for model, ref in enumerate(models)}
        else:
            self.slots_by_ref = _by_ref(ref for one in decisions for ref in one.models)
        return True

    def _open_each(self, since: int = 0) -> dict[str, list[int]]:
        """Open slots for what each entry from one on asks, behind the slots that there are; the slots by model."""
        starts, entries, rows = [*self.slot_start], [*self.slot_entry], [*self.slot_row]
        refs = [""] * len(entries)
        for entry, decision in enumerate(self.decisions[since:], since):
            if decision is not None:
                count, first = self.count(entry), self.first_row[self.query_of(entry)]
                for ref in decision.models:
                    refs += [ref] * count
                    entries += [entry] * count
                    rows += range(first, first + count)
            starts.append(len(entries))
        self.slot_start, self.slot_entry, self.slot_row = starts, entries, rows
        self.open_slots += (stop - start for start, stop in pairwise(starts[since:]))
        opened = _by_ref(refs)
        opened.pop("", None)
        return opened

    def ask_again(self, decisions: Mapping[int, Decision]) -> dict[str, list[int]]:
        """Open slots for the last model of each query's new decision, in an entry of its own; the slots by model."""
        first, known = len(self.decisions), self.slots_by_ref
        self.again |= {query: first + place for place, query in enumerate(decisions)}
        self.query_behind += decisions
        self.decisions += [replace(one, models=one.models[-1:]) for one in decisions.values()]
        opened = self._open_each(first)
        more = sum(map(len, opened.values()))
        self.outputs += [OPEN] * more
        self.arrived_s += [0.0] * more
        self.slots_by_ref = {**known, **{ref: [*known.get(ref, ()), *slots] for ref, slots in opened.items()}}
        self.single, self.waiting = False, self.waiting + len(decisions)
        return opened

    # --- whose is what --------------------------------------------------------------------------------------------
    def query_of(self, entry: int) -> int:
        count = len(self.ids)
        return entry if entry < count else self.query_behind[entry - count]

    def entries_of(self, query: int) -> tuple[int, ...]:
        return (query, self.audit[query]) if query in self.audit else (query,)

    def count(self, entry: int) -> int:
        query = self.query_of(entry)
        return self.row_start[query + 1] - self.row_start[query]

    def due_of(self, slot: int) -> float:
        """When a slot's query is to be answered with what is there, seconds since the epoch."""
        return self.due_s[self.query_of(self.slot_entry[slot])]

    def slots_of(self, entry: int) -> list[slice]:
        """The slots of each model that an entry asked, a slice a model."""
        first, count = self.slot_start[entry], 1 if self.single else self.count(entry)
        found = [slice(start, start + count) for start in range(first, self.slot_start[entry + 1], count)]
        return found + self.slots_of(self.again[entry]) if entry in self.again else found

    def confidence_of(self, slots: slice) -> float | None:
        """Mean confidence of a model's outputs, where one without any counts 0; None where none has any."""
        known = [self.confidences[slot] for slot in range(slots.start, slots.stop) if slot in self.confidences]
        return sum(known) / (slots.stop - slots.start) if known else None

    def decision_of(self, entry: int) -> Decision | None:
        """Whom an entry asked; None: nobody."""
        return self.decisions[entry] if self.asked_at_s else None

    def row_keys(self, digest: bytes, slots: Sequence[int]) -> list[bytes]:
        """The keys that rows have in the cache, for a model version with this digest."""
        hashes = self._hashes
        if hashes is None:
            hashes = self._hashes = row_hashes(self.rows)
        if len(slots) == len(hashes) and self.single:  # of each query, in their order
            return [digest + each for each in hashes]
        row = self.slot_row
        return [digest + hashes[row[slot]] for slot in slots]

    def shareable_rows(self, entries: Sequence[int]) -> Iterator[tuple[str, list[int], list[bytes]]]:
        """The open slots of entries that others may wait for too, by model version, with their keys."""
        own, outputs, entry_of = {*entries}, self.outputs, self.slot_entry
        for ref, slots in self.slots_by_ref.items():
            candidate = self.manifest.by_ref[ref]
            if candidate.deterministic:
                waiting = [slot for slot in slots if outputs[slot] is OPEN and entry_of[slot] in own]
                yield ref, waiting, self.row_keys(candidate.digest, waiting)

    # --- filling --------------------------------------------------------------------------------------------------
    def fill(self, slots: Sequence[int], outputs: Sequence[Any], now_s: float) -> list[int]:
        """Put outputs or failures into slots, where these are open; the entries that are complete by that.

        Of more outputs than slots the last are left out.
        """
        own, arrived_s, left, entry_of = self.outputs, self.arrived_s, self.open_slots, self.slot_entry
        complete: list[int] = []
        for slot, output in zip(slots, outputs, strict=False):
            if own[slot] is OPEN:
                own[slot], entry = output, entry_of[slot]
                if output.__class__ is Failure:
                    self.failed.add(entry)
                else:
                    arrived_s[slot] = now_s
                left[entry] -= 1
                if not left[entry]:
                    complete.append(entry)
        self.waiting -= len(complete)
        return complete

    def labels(self, slots: Sequence[int], outputs: Sequence[Any]) -> list[Any]:
        """The outputs without their confidences, which are noted by slot."""
        labels, confidences = zip(*map(split_confidence, outputs), strict=True)
        for slot, confidence in zip(slots, confidences, strict=False):
            if confidence is not None and self.outputs[slot] is OPEN:
                self.confidences[slot] = confidence
        return [*labels]

    def close(self, entries: Sequence[int]) -> None:
        """Fill the open slots of entries with LATE: nothing is waited for any more."""
        outputs = self.outputs
        for entry in entries:
            for slot in range(self.slot_start[entry], self.slot_start[entry + 1]):
                if outputs[slot] is OPEN:
                    outputs[slot] = LATE
            self.open_slots[entry] = 0
        self.failed.update(entries)
        self.waiting -= len(entries)

    def open_entries(self) -> list[int]:
        return [entry for entry, slots in enumerate(self.open_slots) if slots]


def _by_ref(refs: Iterable[str]) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for slot, ref in enumerate(refs):
        if ref in found:
            found[ref].append(slot)
        else:
            found[ref] = [slot]
    return found
