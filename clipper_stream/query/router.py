"""The router's state, and the steps by which a caller takes queries through it.

| the caller has | step | the caller gets |
|---|---|---|
| queries that were read | `decide`, `take_cached`, `end_turn` | rows to read from the cache; `Effects` |
| `Effects.unsure` | `look_up`, `take_cached`, `end_turn` | rows to read from the cache; `Effects` |
| outputs that arrived | `gather` | `Effects` |
| the time of the next deadline | `expire` | `Effects` |
| predictions and audits in the log | `recorded`, `audits_recorded` | records of the same queries, to answer likewise |

Rules of this file:
- A query is answered exactly once: when its last slot is filled, or at its deadline, whichever is first.
- A query past its deadline on arrival, or so near to it that no model answers by then, asks nobody: overload never
  piles up.
- A query that is in flight already waits for its own answer; another application's query of the same id is another.
- What is asked for the log only, an audit, joins caches and rows in flight as any other, ends when its own last slot is
  filled or at the same deadline, and the query waits for none of it.
- Nothing here waits, reads a clock, sends or calls back.
"""

from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from typing import Any

from clipper_stream.caching.cache import ClockCache
from clipper_stream.errors import shown
from clipper_stream.query.answers import Answers, conclude, refuse
from clipper_stream.query.application import Application
from clipper_stream.query.batch import OPEN, Failure, QueryBatch, QueryState, set_state
from clipper_stream.query.in_flight import (
    UNBOUNDED,
    Admission,
    DeadlineQueue,
    QueriesInFlight,
    Repetition,
    ShortestTrips,
)
from clipper_stream.query.planner import Choices, QueryPlanner, audited_models, decide_again
from clipper_stream.query.requests import Lookup, OutputPiece, Part, Request, RowsInFlight
from clipper_stream.selection.distribution import Decision

MOST_LEAD_RATIO = 0.1
MOST_AUDITS_RATIO = 0.5
LOST_AUDIT = Failure("late", "the router that asked ended before the outputs were in the log; nobody was asked again")

_counts: Any = partial(defaultdict, int)


@dataclass(slots=True)
class Effects:
    """What the caller is to carry out after a step.

    Attributes:
        audits: Audits to record once the answers to their queries are.
        outputs: For the cache: keys and outputs, by partition.
        lookups: Rows looked up in the cache, by model reference; `hits`: rows found there.
        coalesced: Rows that joined an identical row in flight.
        unsure: Slots of models that are asked because the first one was unsure, by model: look them up.
        forgotten: Tokens of requests whose answer is awaited no more.
        deferred: Queries for which there was no room, each with a time, seconds since the epoch: read them again when
            there is room, or at that time.
        queries: Queries that were new, by application; None: it is not registered.
        behind: Queries with a deadline that had waited for longer than they may still wait, by partition.
        is_full: Whether nothing more is to be read before something is answered.
        next_deadline_s: The earliest time at which `expire` has something to do, seconds since the epoch.
    """

    requests: list[Request] = field(default_factory=list)
    answers: list[Answers] = field(default_factory=list)
    audits: list[Answers] = field(default_factory=list)
    outputs: dict[int, list[tuple[bytes, Any]]] = field(default_factory=dict)
    lookups: dict[str, int] = field(default_factory=_counts)
    hits: dict[str, int] = field(default_factory=_counts)
    coalesced: int = 0
    unsure: list[tuple[QueryBatch, Mapping[str, Sequence[int]]]] = field(default_factory=list)
    forgotten: list[int] = field(default_factory=list)
    deferred: list[tuple[QueryBatch, int, float]] = field(default_factory=list)
    queries: dict[str | None, int] = field(default_factory=_counts)
    behind: dict[int, int] = field(default_factory=_counts)
    is_full: bool = False
    next_deadline_s: float | None = None


class Router:
    """Queries in, requests and answers out; one object a router process.

    Attributes:
        admission: Bounds the queries that wait for models, `most_waiting` of them.
        lead_s: How long before its deadline a query is answered from what is there, so that the answer has arrived by
            then; at most `MOST_LEAD_RATIO` of the time that the query has.
        return_s: How long outputs are on their way back from a host: hosts are told deadlines that are so much earlier.
    """

    lead_s: float = 0.0
    return_s: float = 0.0

    def __init__(self, most_waiting: int = UNBOUNDED) -> None:
        self.admission = Admission(most_waiting)
        self._trips = ShortestTrips()
        self.reset()

    def reset(self) -> None:
        """Forget every query in flight: partitions were taken away, and what was not acknowledged is read again."""
        self._queries = QueriesInFlight()
        self._audits: dict[tuple[int, int], tuple[QueryBatch, int]] = {}
        """By partition and offset of the query."""
        self._deadlines: DeadlineQueue[QueryBatch] = DeadlineQueue()
        self._rows = RowsInFlight()
        self._complete: dict[QueryBatch, list[int]] = {}
        self._effects = Effects()
        self.admission.clear()

    # --- what is in flight ----------------------------------------------------------------------------------------
    @property
    def in_flight(self) -> int:
        """Number of queries and audits not yet recorded, and of records of queries that were read again."""
        return len(self._queries) + len(self._audits)

    @property
    def is_full(self) -> bool:
        """Whether nothing more is to be read before something is answered."""
        return self.admission.is_full or self._queries.repeats >= self.admission.most

    def has_id(self, partition: int, query_id: str) -> bool:
        """Whether a query with this id was read, of any application, and its prediction is not recorded yet."""
        return self._queries.has_id(partition, query_id)

    def traces(self) -> list[Any]:
        """The traces of sampled queries in flight, and of those that were in a batch with one."""
        return [trace for batch in self._queries.batches() for trace in batch.traces.values()]

    def is_audited(self, partition: int, offset: int) -> bool:
        """Whether an audit of the query is in flight: its prediction may be recorded, its audit is not."""
        return (partition, offset) in self._audits

    # --- queries come ---------------------------------------------------------------------------------------------
    def decide(
        self,
        batch: QueryBatch,
        known: Collection[int],
        application: Application | None,
        choices: Choices,
        cache: ClockCache,
        now_s: float,
    ) -> list[Lookup]:
        """Decide about the queries of a batch that are neither in flight nor answered before.

        Args:
            batch: As it was decoded.
            known: The queries whose predictions are in the log.
            application: Theirs; None: it is not registered.
            choices: What its policy chooses in each context of the queries, and without one.
            cache: Knows which outputs are in the cache of the partition.
            now_s: The time, seconds since the epoch.

        Returns:
            Rows whose outputs are in the cache; `take_cached` takes them.
        """
        self._queries.admit(batch, known)
        effects, new = self._effects, len(batch.new)
        if not new:
            return []
        if application is None:
            effects.queries[None] += new
            why = Failure("unknown_application", f"application {shown(batch.application)} is not registered")
            self._refuse(batch, dict.fromkeys(batch.new, why), now_s)
            return []
        batch.is_registered, batch.manifest, name = True, application, application.name
        trip_s = self._trips.least_s(application.refs, now_s)
        plan = QueryPlanner(batch, application, choices, self.admission.room(name), now_s, trip_s)
        plan.decide()
        effects.queries[name] += new - len(plan.deferred)
        if plan.behind:
            effects.behind[batch.partition] += plan.behind
        if plan.refused:
            self._refuse(batch, plan.refused, now_s)
        if plan.deferred:
            self._defer(batch, plan.deferred)
        if not plan.asked:
            return []
        self.admission.enter(name, batch.waiting)
        for query, entry in batch.audit.items():
            self._audits[batch.partition, batch.offsets[query]] = batch, entry
        self._wake_for(batch)
        return self.look_up(batch, batch.slots_by_ref, cache)

    def _refuse(self, batch: QueryBatch, why: dict[int, Failure], now_s: float) -> None:
        if len(why) == len(batch):
            batch.rows = []
        set_state(batch.states, [*why], QueryState.DEFAULTED)
        self._effects.answers.append(refuse(batch, why, now_s))

    def _defer(self, batch: QueryBatch, until_s: dict[int, float]) -> None:
        set_state(batch.states, [*until_s], QueryState.DEFERRED)
        for query, at_s in until_s.items():
            records = ((batch, query), *self._queries.remove(batch, (query,)))
            self._effects.deferred += ((*record, at_s) for record in records)

    def look_up(self, batch: QueryBatch, slots_by_ref: Mapping[str, Sequence[int]], cache: ClockCache) -> list[Lookup]:
        """Ask for the rows that are not in the cache of the partition; return those that are."""
        effects, lookups = self._effects, list[Lookup]()
        for ref, slots in slots_by_ref.items():
            candidate = batch.manifest.by_ref[ref]
            if not candidate.deterministic:
                self._rows.ask(ref, Part(batch, slots, ()))
                continue
            keys = batch.row_keys(candidate.digest, slots)
            part = Part(batch, slots, keys)
            effects.lookups[ref] += len(slots)
            cached = {*cache.hits(keys)}
            if cached:
                lookups.append(Lookup(ref, part.at([place for place, key in enumerate(keys) if key in cached])))
                part = part.at([place for place, key in enumerate(keys) if key not in cached])
            if part.slots:
                effects.coalesced += self._rows.join(ref, part)
        return lookups

    def take_cached(self, lookup: Lookup, outputs: Sequence[Any]) -> None:
        """Take what the cache has, by key of the lookup: an output, or OPEN where it is gone."""
        ref, part = lookup
        hits = [place for place, output in enumerate(outputs) if output is not OPEN]
        self._effects.hits[ref] += len(hits)
        self._fill(part.batch, [part.slots[place] for place in hits], [outputs[place] for place in hits], 0.0)
        if len(hits) < len(outputs):
            missed = [place for place, output in enumerate(outputs) if output is OPEN]
            self._effects.coalesced += self._rows.join(ref, part.at(missed))

    def end_turn(self, now_s: float) -> Effects:
        """Answer what is complete, ask for what is not, and hand over what there is to do since the last step."""
        surplus = len(self._audits) - int(MOST_AUDITS_RATIO * self.admission.most)
        if surplus > 0:
            self._end_audits(surplus, now_s)
        for batch, entries in self._complete.items():
            self._conclude(batch, self._ask_again(batch, entries, now_s) if batch.second_choices else entries, now_s)
        self._complete = {}
        effects, self._effects = self._effects, Effects()
        effects.requests = self._rows.requests(now_s, self.lead_s + self.return_s)
        effects.is_full, effects.next_deadline_s = self.is_full, self._deadlines.next_s
        return effects

    # --- outputs come ---------------------------------------------------------------------------------------------
    def gather(self, pieces: Iterable[OutputPiece], now_s: float) -> Effects:
        """Take outputs in; queries that have all of theirs are answered."""
        for piece in pieces:
            ref, answered = self._rows.take(piece)
            if len(piece.failures) < sum(len(part.slots) for part, _ in answered):
                self._trips.observe(ref, now_s - answered[0][0].batch.asked_at_s, now_s)
            for part, outputs in answered:
                if piece.failures and Failure in map(type, outputs):
                    self._fill_each(ref, part, outputs, now_s)
                else:
                    self._fill_all(part, outputs, now_s)
        return self.end_turn(now_s)

    def _fill_all(self, part: Part, outputs: Sequence[Any], now_s: float) -> None:
        batch, slots, keys = part
        self._fill(batch, slots, outputs, now_s)
        for place, (other, slot) in self._rows.arrived(part):
            self._fill(other, (slot,), (outputs[place],), now_s)
        if keys:
            self._effects.outputs.setdefault(batch.partition, []).extend(zip(keys, outputs, strict=True))

    def _fill_each(self, ref: str, part: Part, outputs: Sequence[Any], now_s: float) -> None:
        for place, output in enumerate(outputs):
            own = part.at((place,))
            if output.__class__ is not Failure:
                self._fill_all(own, (output,), now_s)
                continue
            for other, slot in self._rows.failed(ref, own, output, now_s):
                self._fill(other, (slot,), (output,), now_s)

    def _fill(self, batch: QueryBatch, slots: Sequence[int], outputs: Sequence[Any], now_s: float) -> None:
        if dict in map(type, outputs):
            outputs = batch.labels(slots, outputs)
        complete = batch.fill(slots, outputs, now_s)
        if complete:
            self._complete.setdefault(batch, []).extend(complete)

    # --- time passes ----------------------------------------------------------------------------------------------
    def expire(self, now_s: float) -> Effects:
        """Answer every query whose deadline has come, from what arrived."""
        for batch in self._deadlines.pop_due(now_s):
            due_s, entries = batch.due_s, batch.open_entries()
            if batch.query_behind:
                due_s = [due_s[batch.query_of(entry)] for entry in range(len(batch.decisions))]
            if self.lead_s:
                due_s = [self._led_s(at_s, batch.asked_at_s) for at_s in due_s]
            self._end(batch, [entry for entry in entries if due_s[entry] <= now_s], now_s)
        effects = self.end_turn(now_s)
        effects.forgotten = self._rows.forget(now_s)
        return effects

    def _end_audits(self, surplus: int, now_s: float) -> None:
        """End the oldest audits with what is there, so that no more than half of what may wait are audits.

        A version on trial that hangs would otherwise, without deadlines, take all the room that queries have.
        """
        oldest: dict[QueryBatch, list[int]] = {}
        for batch, entry in islice(self._audits.values(), surplus):
            if batch.states[entry] == QueryState.WAITING:
                oldest.setdefault(batch, []).append(entry)
        for batch, entries in oldest.items():
            self._end(batch, entries, now_s)

    def _end(self, batch: QueryBatch, entries: list[int], now_s: float) -> None:
        self._rows.abandon(batch, entries, now_s)
        batch.close(entries)
        self._complete.setdefault(batch, []).extend(entries)
        if batch.waiting:
            self._wake_for(batch)

    def _led_s(self, due_s: float, asked_at_s: float) -> float:
        """When to answer so that the answer has arrived by the deadline."""
        lead_s = self.lead_s
        return due_s - min(lead_s, MOST_LEAD_RATIO * (due_s - asked_at_s)) if lead_s else due_s

    def _wake_for(self, batch: QueryBatch) -> None:
        """Have `expire` look at a batch when the first of its open entries is due."""
        if batch.single and batch.waiting == len(batch):
            first_s = min(batch.due_s)
        else:
            first_s = min(batch.due_s[batch.query_of(entry)] for entry in batch.open_entries())
        self._deadlines.push(self._led_s(first_s, batch.asked_at_s), batch)

    def _ask_again(self, batch: QueryBatch, entries: list[int], now_s: float) -> list[int]:
        """Decide again about queries whose first model has answered; return queries and audits that end now.

        Where there is no time for the last candidate nothing is decided. Where it fails the first model serves too.
        """
        least_s = max(now_s, batch.asked_at_s + self._trips.least_s(batch.manifest.refs[-1:], now_s))
        first = [entry for entry in entries if entry < len(batch)]
        asking = decide_again(
            batch, [one for one in first if self._led_s(batch.due_s[one], batch.asked_at_s) > least_s]
        )
        if asking:
            self._effects.unsure.append((batch, batch.ask_again(asking)))
        ended = [entry for entry in entries if entry < len(batch) + len(batch.audit) and entry not in asking]
        for entry in [entry for entry in entries if entry >= len(batch) + len(batch.audit)]:
            ended.append(query := batch.query_of(entry))
            decision, outputs = batch.decisions[query], batch.outputs[batch.slots_of(entry)[0]]
            if entry in batch.failed:
                batch.failed.add(query)
            if decision is not None and all(output.__class__ is Failure for output in outputs):
                batch.decisions[query] = replace(decision, served=decision.models)
        return ended

    def _conclude(self, batch: QueryBatch, entries: list[int], now_s: float) -> None:
        count, effects = len(batch), self._effects
        if batch.audit:
            audits = [entry for entry in entries if entry >= count]
            entries = [entry for entry in entries if entry < count]
            if audits:
                set_state(batch.states, audits, QueryState.NOTED)
                batch.noted_at_s.update(dict.fromkeys(audits, now_s))
                effects.audits.append(Answers(batch, audits, now_s))
                self.admission.leave(batch.application, len(audits))
        if entries:
            answers = conclude(batch, entries, now_s)
            good = [entry for entry in entries if entry not in answers.failures] if answers.failures else entries
            set_state(batch.states, good, QueryState.ANSWERED)
            if answers.failures:
                set_state(batch.states, [*answers.failures], QueryState.DEFAULTED)
            effects.answers.append(answers)
            self.admission.leave(batch.application, len(entries))
        if not batch.waiting:
            self._deadlines.discard(batch)

    # --- it is in the log -----------------------------------------------------------------------------------------
    def recorded(self, batch: QueryBatch, queries: Sequence[int]) -> Sequence[Repetition]:
        """End queries whose predictions are in the log; the records of them that were read meanwhile."""
        set_state(batch.states, queries, QueryState.RECORDED)
        return self._queries.remove(batch, queries)

    def audits_recorded(self, batch: QueryBatch, entries: Sequence[int]) -> None:
        set_state(batch.states, entries, QueryState.RECORDED)
        for entry in entries:
            self._audits.pop((batch.partition, batch.offsets[batch.query_of(entry)]), None)

    def lost_audit(
        self,
        batch: QueryBatch,
        application: Application | None,
        choices: Choices,
        answered: Container[str],
        now_s: float,
    ) -> Answers:
        """Begin the audit of a query whose prediction is in the log, from a process that ended before its audit was.

        Whom it asked is the decision made again: the trials are the same, and the policy's choice is as far as its
        state is.

        Args:
            batch: The query alone.
            application: Its application; None: it is not registered any more.
            choices: What the policy chooses now, in the query's context.
            answered: Models that the prediction names.
            now_s: The time, seconds since the epoch.
        """
        asked: dict[str, float] = {}
        if application is not None:
            asked = audited_models(batch, application, choices)
        lost = {ref: chance for ref, chance in asked.items() if ref not in answered}
        decision = Decision(models=(*lost,), propensities=(*lost.values(),), served=(), served_propensity=1.0)
        batch.first_row = (0,)
        batch.ask([None], [{}], {0: decision}, (), now_s)
        batch.fill(range(len(batch.outputs)), [LOST_AUDIT] * len(batch.outputs), 0.0)
        entry = batch.audit[0]
        self._audits[batch.partition, batch.offsets[0]] = batch, entry
        set_state(batch.states, (0,), QueryState.KNOWN)
        set_state(batch.states, (entry,), QueryState.NOTED)
        batch.noted_at_s[entry] = now_s
        return Answers(batch, [entry], now_s)
