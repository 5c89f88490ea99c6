"""The router's decisions, from a batch of queries to requests and answers.

Rules of this file:
- A query is answered exactly once: when its last slot is filled, or at its deadline, whichever is first.
- A query past its deadline on arrival asks nobody: overload never piles up.
- A query that is in flight already waits for its own answer; another application's query of the same id is another.
- What is asked for the log only is a query of its own beside it, an audit: it joins caches and rows in flight as any
  other, ends when its own last slot is filled or at the same deadline, and the query waits for none of it.
- Nothing here waits, reads a clock or sends; time comes in, `Effects` go out.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Protocol

from clipper_stream.caching.clock import ClockCache
from clipper_stream.errors import shown
from clipper_stream.query.admission import UNBOUNDED, Admission
from clipper_stream.query.answer import QueryAnswer, conclude, conclude_audit, lost_audit, refuse
from clipper_stream.query.application import Application
from clipper_stream.query.deadlines import DeadlineQueue
from clipper_stream.query.in_flight import DecodedQuery, Failure, InFlightQuery, QueriesInFlight
from clipper_stream.query.lifecycle import COMPLETE, DUPLICATED, EXPIRED, QueryState, TransitionPath
from clipper_stream.query.planner import Planner, Prepare, audited_models
from clipper_stream.query.request_tracker import OutputPiece, Request, RequestTracker, Waiter
from clipper_stream.query.row_batch import RowBatch, rows_by_cache

MOST_LEAD_RATIO = 0.1
MOST_AUDITS_RATIO = 0.5
Entries = defaultdict[int, list[tuple[bytes, bytes]]]
"""Entries for the cache, by partition."""


@dataclass(slots=True)
class Effects:
    """What one call of the router asks its caller to carry out.

    Attributes:
        audits: Audits to record once the answers to their queries are.
        lookups: Rows looked up in the cache, by model reference; `hits`: rows found there.
        coalesced: Rows that joined an identical row in flight.
        forgotten: Tokens of requests whose answer is awaited no more.
        deferred: Queries for which there was no room, each with a time, seconds since the epoch: give them to `receive`
            again when there is room, or at that time.
        queries: Queries that were new, by application; None: it is not registered.
        behind: Queries with a deadline that had waited for longer than they may still wait, by partition.
    """

    now_s: float
    requests: list[Request] = field(default_factory=list)
    answers: list[QueryAnswer] = field(default_factory=list)
    audits: list[QueryAnswer] = field(default_factory=list)
    lookups: dict[str, int] = field(default_factory=dict)
    hits: dict[str, int] = field(default_factory=dict)
    coalesced: int = 0
    forgotten: list[int] = field(default_factory=list)
    deferred: list[tuple[DecodedQuery, float]] = field(default_factory=list)
    queries: dict[str | None, int] = field(default_factory=dict)
    behind: Counter[int] = field(default_factory=Counter)

    def count_queries(self, application: str | None, count: int) -> None:
        """Count queries that were new."""
        self.queries[application] = self.queries.get(application, 0) + count

    def count_lookups(self, ref: str, rows: int, hits: int, coalesced: int) -> None:
        """Count rows that were looked up in the cache: some were there, some are in flight already."""
        self.lookups[ref] = self.lookups.get(ref, 0) + rows
        self.hits[ref] = self.hits.get(ref, 0) + hits
        self.coalesced += coalesced


class OutputCodec(Protocol):
    """Outputs to bytes and back, for the cache."""

    def dumps(self, output: Any, /) -> bytes: ...
    def loads(self, value: bytes, /) -> Any: ...


class Router:
    """Queries in, requests and answers out; one object a router process.

    Attributes:
        admission: Bounds the queries that wait for models, `most_waiting` of them.
        lead_s: How long before its deadline a query is answered from what is there, so that the answer has arrived by
            then; at most `MOST_LEAD_RATIO` of the time that the query has. Whoever sends the answers measures it.
        return_s: How long outputs are on their way back from a host, in seconds: hosts are told deadlines that are so
            much earlier, so that no model works on rows that nobody waits for. Whoever reads the outputs measures it.
    """

    lead_s: float = 0.0
    return_s: float = 0.0

    def __init__(
        self,
        application: Callable[[str], Application | None],
        prepare: Prepare,
        cache: Callable[[int], ClockCache],
        codec: OutputCodec,
        most_waiting: int = UNBOUNDED,
    ) -> None:
        self._application, self._prepare, self._cache, self._codec = application, prepare, cache, codec
        self.admission = Admission(most_waiting)
        self._queries = QueriesInFlight()
        self._audits: dict[tuple[int, int], InFlightQuery] = {}
        """By partition and offset of the query."""
        self._deadlines: DeadlineQueue[InFlightQuery] = DeadlineQueue()
        self._tracker = RequestTracker()

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
    def audits(self) -> int:
        """Number of audits not yet recorded."""
        return len(self._audits)

    @property
    def surplus_audits(self) -> int:
        """Number of audits beyond half of what may wait; below 1 for none."""
        return len(self._audits) - int(MOST_AUDITS_RATIO * self.admission.most)

    @property
    def next_deadline_s(self) -> float | None:
        """The earliest time at which `expire` has something to do, seconds since the epoch."""
        return self._deadlines.next_s

    def is_in_flight(self, query: DecodedQuery) -> bool:
        """Whether the query was read, and its prediction is not recorded yet."""
        return query in self._queries

    def is_audited(self, query: DecodedQuery) -> bool:
        """Whether an audit of the query is in flight: its prediction may be recorded, its audit is not."""
        return (query.partition, query.offset) in self._audits

    # --- stages: admit, plan, look up, request --------------------------------------------------------------------
    def receive(self, queries: Iterable[DecodedQuery], now_s: float) -> Effects:
        """Decide about queries; a query that is in flight already waits for its own answer.

        They are taken one by one, so that an iterator that decodes them keeps few in memory at a time.
        """
        effects = Effects(now_s=now_s)
        planners: dict[str, Planner | None] = {}
        for query in queries:
            pending = self._queries.admit(query)
            if pending is None:
                continue
            name = query.application
            if name not in planners:
                application = self._application(name)
                room = self.admission.room(name)
                planners[name] = (
                    None if application is None else Planner(application, self._prepare, now_s, room, effects.behind)
                )
            planner = planners[name]
            if planner is not None:
                planner.add(pending)
            else:
                effects.count_queries(None, 1)
                why = Failure("unknown_application", f"application {shown(name)} is not registered")
                effects.answers.append(refuse(pending, None, why, now_s))
        for planner in planners.values():
            if planner is not None:
                self._carry_out(planner, effects)
        return effects

    def _carry_out(self, planner: Planner, effects: Effects) -> None:
        planner.finish()
        asked, audits = planner.asked, planner.audits
        effects.count_queries(planner.application.name, planner.count)
        effects.answers += planner.refusals
        for pending, until_s in planner.deferred:
            effects.deferred += ((one, until_s) for one in (pending.query, *self._queries.remove(pending.query)))
        self.admission.enter(planner.application.name, len(asked) + len(audits))
        push, lead_s, now_s = self._deadlines.push, self.lead_s, effects.now_s
        for pending in asked:
            due_s = pending.deadline_s
            push(due_s - min(lead_s, MOST_LEAD_RATIO * (due_s - now_s)) if lead_s else due_s, pending)
        for audit in audits:
            self._audits[audit.query.partition, audit.query.offset] = audit
            push(audit.deadline_s, audit)
        self._request(self._look_up(planner.application, asked + audits if audits else asked, effects), effects)

    def _look_up(
        self, application: Application, pendings: Sequence[InFlightQuery], effects: Effects
    ) -> Iterable[RowBatch]:
        """Look for the outputs in the caches; the rows to ask for, those of one model version together."""
        asked: dict[str, RowBatch] = {}
        for (partition, ref), rows in rows_by_cache(pendings).items():
            candidate = application.by_ref[ref]
            if candidate.deterministic:
                missed = self._missed(rows, rows.set_keys(candidate.digest), self._cache(partition), effects)
            else:
                missed = rows
                missed.keys = [None] * len(rows.owners)
            if ref in asked:
                asked[ref].extend(missed)
            else:
                asked[ref] = missed
        return asked.values()

    def _missed(self, rows: RowBatch, keys: list[bytes], cache: ClockCache, effects: Effects) -> RowBatch:
        """Fill what the cache has; the rows that are neither there nor in flight."""
        missed = RowBatch(rows.ref)
        add, join, loads = missed.add, self._tracker.flight.join, self._codec.loads
        hits = coalesced = 0
        for owner, slot, key, value in zip(rows.owners, rows.slots, keys, cache.get_many(keys), strict=True):
            if value is not None:
                hits += 1
                if owner.fill_cached(slot, loads(value)):
                    self._conclude(owner, COMPLETE, effects)
            elif join(key, (owner, slot)):
                add(owner, slot, key)
            else:
                coalesced += 1
        effects.count_lookups(rows.ref, len(keys), hits, coalesced)
        return missed

    def _request(self, batches: Iterable[RowBatch], effects: Effects) -> None:
        for rows in batches:
            if rows.owners:
                effects.requests += self._tracker.requests(rows, effects.now_s, self.lead_s + self.return_s)

    # --- stages: gather, combine ----------------------------------------------------------------------------------
    def gather(self, pieces: Iterable[OutputPiece], now_s: float) -> Effects:
        """Take outputs in; queries that have all of theirs are answered."""
        effects = Effects(now_s=now_s)
        entries: Entries = defaultdict(list)
        for piece in pieces:
            rows = self._tracker.take(piece)
            if rows is not None:
                self._fill(rows, entries, effects)
        for partition, found in entries.items():
            self._cache(partition).put_many(found)
        self._request(self._tracker.rows_to_ask_again(), effects)
        return effects

    def _fill(self, rows: RowBatch, entries: Entries, effects: Effects) -> None:
        """Give outputs to all who wait for them, and note those that may be shared for the cache."""
        now_s, dumps, resolve = effects.now_s, self._codec.dumps, self._tracker.flight.resolve
        for owner, slot, key, output in zip(rows.owners, rows.slots, rows.keys, rows.outputs, strict=True):
            if output.__class__ is Failure:
                self._fail(self._tracker.failed(rows.ref, owner, slot, key, output, now_s), output, effects)
            elif key is not None:
                entries[owner.query.partition].append((key, dumps(output)))
                for waiter, where in resolve(key):
                    if waiter.fill(where, output, now_s):
                        self._conclude(waiter, COMPLETE, effects)
            elif owner.fill(slot, output, now_s):
                self._conclude(owner, COMPLETE, effects)

    def _fail(self, waiters: Iterable[Waiter], failure: Failure, effects: Effects) -> None:
        for waiter, slot in waiters:
            if waiter.fail(slot, failure):
                self._conclude(waiter, COMPLETE, effects)

    def expire(self, now_s: float) -> Effects:
        """Answer every query whose deadline has come, from what arrived."""
        effects = Effects(now_s=now_s)
        self._end(self._deadlines.pop_due(now_s), effects)
        effects.forgotten = self._tracker.forget(now_s)
        return effects

    def end_audits(self, now_s: float) -> Effects:
        """End the oldest audits with what is there, so that no more than half of what is in flight are audits.

        A version on trial that hangs would otherwise, without deadlines, take all the room that queries have.
        """
        effects = Effects(now_s=now_s)
        excess = self.surplus_audits
        if excess > 0:
            oldest = islice(self._audits.values(), excess)
            self._end([audit for audit in oldest if audit.state is QueryState.WAITING], effects)
        return effects

    def _end(self, pendings: Iterable[InFlightQuery], effects: Effects) -> None:
        for pending in pendings:
            self._tracker.abandon(pending, effects.now_s)
            self._conclude(pending, EXPIRED, effects)
        self._request(self._tracker.rows_to_ask_again(), effects)

    def _conclude(self, pending: InFlightQuery, paths: tuple[TransitionPath, ...], effects: Effects) -> None:
        combined, defaulted, noted = paths
        if pending.open_slots:
            pending.close()
        if pending.audit_of is None:
            answer = conclude(pending, effects.now_s)
            pending.move(combined if answer.failure is None else defaulted)
            effects.answers.append(answer)
        else:
            effects.audits.append(conclude_audit(pending, effects.now_s))
            pending.move(noted)
        self._deadlines.discard(pending)
        self.admission.leave(pending.application.name)

    # --- stage: record --------------------------------------------------------------------------------------------
    def recorded(self, query: DecodedQuery) -> Sequence[DecodedQuery]:
        """End a query whose prediction is in the log; the records of it that were read meanwhile."""
        return self._queries.remove(query)

    def audit_recorded(self, query: DecodedQuery) -> None:
        """End the audit of a query: it is in the log."""
        self._audits.pop((query.partition, query.offset), None)

    def lost_audit(self, query: DecodedQuery, answered: Iterable[str], now_s: float) -> QueryAnswer:
        """The audit of a query whose prediction is in the log, from a process that ended before its audit was.

        Whom it asked is the decision made again: the trials are the same, and the policy's choice is as far as its
        state is. `answered` are the models that the prediction names.
        """
        pending = self._audits[query.partition, query.offset] = InFlightQuery(query)
        pending.move(DUPLICATED)
        application = self._application(query.application)
        asked: dict[str, float] = {}
        if application is not None:
            asked = audited_models(query, application, self._prepare(application, query.partition, query.context))
        known = {*answered}
        return lost_audit(pending, application, {ref: p for ref, p in asked.items() if ref not in known}, now_s)

    def reset(self) -> None:
        """Forget every query in flight: partitions were taken away, and what was not acknowledged is read again."""
        self._queries.clear()
        self._audits.clear()
        self._deadlines = DeadlineQueue()
        self._tracker.clear()
        self.admission.clear()
