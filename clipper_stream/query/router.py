"""The router's state, and the steps by which a caller takes queries through it.

Rules of this file:
- A query is answered exactly once: when its last slot is filled, or at its deadline, whichever is first.
- A query past its deadline on arrival, or so near to it that no model answers by then, asks nobody: overload never
  piles up.
- A query that is in flight already waits for its own answer; another application's query of the same id is another.
- What is asked for the log only, an audit, joins caches and rows in flight as any other, ends when its own last slot is
  filled or at the same deadline, and the query waits for none of it.
- Nothing here waits, reads a clock, sends or calls back: what the caller is to do is in `Effects`, which `end_turn`,
  `gather`, `expire` and `end_audits` return.
"""

from collections.abc import Collection, Container, Iterable, Sequence
from itertools import islice
from typing import Any

from clipper_stream.errors import shown
from clipper_stream.query.admission import UNBOUNDED, Admission
from clipper_stream.query.answers import Answers, conclude, refuse
from clipper_stream.query.application import Application
from clipper_stream.query.batch import OPEN, PLAIN, Failure, QueryBatch
from clipper_stream.query.deadlines import DeadlineQueue, ShortestTrips
from clipper_stream.query.effects import Effects, count_in
from clipper_stream.query.planner import Choices, Planner, audited_models
from clipper_stream.query.queries_in_flight import QueriesInFlight, Repetition
from clipper_stream.query.requests import OutputPiece, Part
from clipper_stream.query.rows_in_flight import Lookup, RowsInFlight
from clipper_stream.query.lifecycle import QueryState, set_state
from clipper_stream.selection.distribution import Decision

MOST_LEAD_RATIO = 0.1
MOST_AUDITS_RATIO = 0.5
LOST_AUDIT = Failure("late", "the router that asked ended before the outputs were in the log; nobody was asked again")


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

    @property
    def surplus_audits(self) -> int:
        """Number of audits beyond half of what may wait; below 1 for none."""
        return len(self._audits) - int(MOST_AUDITS_RATIO * self.admission.most)

    @property
    def next_deadline_s(self) -> float | None:
        """The earliest time at which `expire` has something to do, seconds since the epoch."""
        return self._deadlines.next_s

    def has_id(self, partition: int, query_id: str) -> bool:
        """Whether a query with this id was read, of any application, and its prediction is not recorded yet."""
        return self._queries.has_id(partition, query_id)

    def traces(self) -> list[Any]:
        """The traces of sampled queries in flight, and of those that were in a batch with one."""
        return [trace for batch in self._queries.batches() for trace in batch.traces.values()]

    def is_audited(self, partition: int, offset: int) -> bool:
        """Whether an audit of the query is in flight: its prediction may be recorded, its audit is not."""
        return (partition, offset) in self._audits

    # --- a turn: admit, plan, look up, request --------------------------------------------------------------------
    def admit(self, batch: QueryBatch, known: Collection[int] = ()) -> None:
        """Take in the queries of a batch that are neither in flight nor `known` to be answered."""
        self._queries.admit(batch, known)

    def plan(
        self, batch: QueryBatch, application: Application | None, choices: Choices, now_s: float
    ) -> Sequence[Lookup]:
        """Decide about the new queries of a batch; the rows whose outputs may be in the cache.

        Args:
            batch: Queries that were admitted.
            application: Theirs; None: it is not registered.
            choices: What its policy chooses in each context of the queries, and without one.
            now_s: The time, seconds since the epoch.

        Returns:
            Rows to look up in the cache; `found` takes what it has.
        """
        effects, new = self._effects, len(batch.new)
        if not new:
            return ()
        if application is None:
            count_in(effects.queries, None, new)
            why = Failure("unknown_application", f"application {shown(batch.application)} is not registered")
            self._refuse(batch, dict.fromkeys(batch.new, why), now_s)
            return ()
        batch.is_registered, batch.manifest, name = True, application, application.name
        trip_s = self._trips.least_s(application.refs, now_s)
        plan = Planner(batch, application, choices, self.admission.room(name), now_s, trip_s).decide()
        count_in(effects.queries, name, new - len(plan.deferred))
        if plan.behind:
            count_in(effects.behind, batch.partition, plan.behind)
        if plan.refused:
            self._refuse(batch, plan.refused, now_s)
        if plan.deferred:
            self._defer(batch, plan.deferred)
        if not plan.asked:
            return ()
        self.admission.enter(name, batch.waiting)
        for query, entry in batch.audit.items():
            self._audits[batch.partition, batch.offsets[query]] = batch, entry
        self._wake_for(batch)
        return self._lookups(batch, application)

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

    def _lookups(self, batch: QueryBatch, application: Application) -> list[Lookup]:
        lookups: list[Lookup] = []
        for ref, slots in batch.slots_by_ref.items():
            candidate = application.by_ref[ref]
            if candidate.deterministic:
                lookups.append(Lookup(ref, Part(batch, slots, batch.row_keys(candidate.digest, slots))))
            else:
                self._rows.ask(ref, Part(batch, slots, ()))
        return lookups

    def found(self, lookup: Lookup, outputs: Sequence[Any] | None) -> None:
        """Take what the cache has: by key, an output or OPEN; None where it has nothing."""
        ref, part = lookup
        batch, slots, keys = part
        effects, count = self._effects, len(slots)
        count_in(effects.lookups, ref, count)
        if outputs is not None:
            hits = [place for place, output in enumerate(outputs) if output is not OPEN]
            count_in(effects.hits, ref, len(hits))
            self._fill(batch, [slots[place] for place in hits], [outputs[place] for place in hits], 0.0)
            missed = [place for place, output in enumerate(outputs) if output is OPEN]
            part = Part(batch, [slots[place] for place in missed], [keys[place] for place in missed])
        if part.slots:
            effects.coalesced += self._rows.join(ref, part)

    def end_turn(self, now_s: float) -> Effects:
        """Answer what is complete, ask for what is not, and hand over what there is to do."""
        for batch, entries in self._complete.items():
            self._conclude(batch, entries, now_s)
        self._complete = {}
        effects, self._effects = self._effects, Effects()
        effects.requests = self._rows.requests(now_s, self.lead_s + self.return_s)
        return effects

    # --- gather ---------------------------------------------------------------------------------------------------
    def gather(self, pieces: Iterable[OutputPiece], now_s: float) -> Effects:
        """Take outputs in; queries that have all of theirs are answered."""
        for piece in pieces:
            ref, found = self._rows.take(piece)
            if len(piece.failures) < sum(len(part.slots) for part, _ in found):
                self._trips.observe(ref, now_s - found[0][0].batch.asked_at_s, now_s)
            for part, outputs in found:
                if piece.failures and Failure in map(type, outputs):
                    self._fill_each(ref, part, outputs, now_s)
                else:
                    self._fill_all(part, outputs, now_s)
        return self.end_turn(now_s)

    def _fill_all(self, part: Part, outputs: Sequence[Any], now_s: float) -> None:
        """Give outputs to the slots that asked, and to those that wait besides."""
        batch, slots, keys = part
        self._fill(batch, slots, outputs, now_s)
        for place, (other, slot) in self._rows.arrived(part):
            self._fill(other, (slot,), (outputs[place],), now_s)
        if keys:
            self._effects.entries.setdefault(batch.partition, []).extend(zip(keys, outputs, strict=True))

    def _fill_each(self, ref: str, part: Part, outputs: Sequence[Any], now_s: float) -> None:
        batch, slots, keys = part
        for place, (slot, output) in enumerate(zip(slots, outputs, strict=True)):
            key = keys[place] if keys else None
            if output.__class__ is not Failure:
                self._fill_all(Part(batch, (slot,), (key,) if key else ()), (output,), now_s)
                continue
            for other, its in self._rows.failed(ref, (batch, slot), key, output, now_s):
                self._fill(other, (its,), (output,), now_s)

    def _fill(self, batch: QueryBatch, slots: Sequence[int], outputs: Sequence[Any], now_s: float) -> None:
        complete = batch.fill(slots, outputs, now_s)
        if complete:
            self._complete.setdefault(batch, []).extend(complete)

    # --- deadlines ------------------------------------------------------------------------------------------------
    def expire(self, now_s: float) -> Effects:
        """Answer every query whose deadline has come, from what arrived."""
        for batch in self._deadlines.pop_due(now_s):
            due_s, asked_at_s = batch.due_s, batch.asked_at_s
            entries = [(self._led_s(due_s[batch.query_of(entry)], asked_at_s), entry) for entry in batch.open_entries()]
            self._end(batch, [entry for led_s, entry in entries if led_s <= now_s], now_s)
        effects = self.end_turn(now_s)
        effects.forgotten = self._rows.forget(now_s)
        return effects

    def end_audits(self, now_s: float) -> Effects:
        """End the oldest audits with what is there, so that no more than half of what is in flight are audits.

        A version on trial that hangs would otherwise, without deadlines, take all the room that queries have.
        """
        oldest: dict[QueryBatch, list[int]] = {}
        for batch, entry in islice(self._audits.values(), max(0, self.surplus_audits)):
            if batch.states[entry] == QueryState.WAITING:
                oldest.setdefault(batch, []).append(entry)
        for batch, entries in oldest.items():
            self._end(batch, entries, now_s)
        return self.end_turn(now_s)

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

    def _conclude(self, batch: QueryBatch, entries: list[int], now_s: float) -> None:
        count, effects = len(batch), self._effects
        if batch.audit:
            audits = [entry for entry in entries if entry >= count]
            entries = [entry for entry in entries if entry < count]
            if audits:
                set_state(batch.states, audits, QueryState.NOTED)
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

    # --- record ---------------------------------------------------------------------------------------------------
    def recorded(self, batch: QueryBatch, queries: Sequence[int]) -> Sequence[Repetition]:
        """End queries whose predictions are in the log; the records of them that were read meanwhile."""
        set_state(batch.states, queries, QueryState.RECORDED)
        return self._queries.remove(batch, queries)

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
            asked = audited_models(batch, 0, application, choices[batch.options.get(0, PLAIN).context])
        lost = {ref: chance for ref, chance in asked.items() if ref not in answered}
        decision = Decision(models=(*lost,), propensities=(*lost.values(),), served=(), served_propensity=1.0)
        batch.first_row = (0,)
        batch.ask([None], [{}], {0: decision}, (), now_s)
        batch.fill(range(len(batch.outputs)), [LOST_AUDIT] * len(batch.outputs), 0.0)
        entry = batch.audit[0]
        self._audits[batch.partition, batch.offsets[0]] = batch, entry
        set_state(batch.states, (0,), QueryState.KNOWN)
        set_state(batch.states, (entry,), QueryState.NOTED)
        return Answers(batch, [entry], now_s)

    def audits_recorded(self, batch: QueryBatch, entries: Sequence[int]) -> None:
        """End audits: they are in the log."""
        set_state(batch.states, entries, QueryState.RECORDED)
        for entry in entries:
            self._audits.pop((batch.partition, batch.offsets[batch.query_of(entry)]), None)
