"""The router's decisions, from a batch of queries to requests and answers.

Rules of this file:
- A query is answered exactly once: when its last slot is filled, or at its deadline, whichever is first.
- A query past its deadline on arrival, or so near to it that no model answers by then, asks nobody: overload never
  piles up.
- A query that is in flight already waits for its own answer; another application's query of the same id is another.
- What is asked for the log only is a query of its own beside it, an audit: it joins caches and rows in flight as any
  other, ends when its own last slot is filled or at the same deadline, and the query waits for none of it.
- Nothing here waits, reads a clock or sends; time comes in, `Effects` go out.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any

from clipper_stream.caching.clock import ClockCache, OutputCodec
from clipper_stream.errors import shown
from clipper_stream.query.admission import UNBOUNDED, Admission
from old_core.answer import (
    QueryAnswer,
    conclude,
    conclude_audit,
    conclude_block,
    conclude_silent,
    lost_audit,
    refuse,
)
from clipper_stream.query.application import Application
from clipper_stream.query.deadlines import DeadlineQueue
from old_core.effects import Arrived, Effects
from old_core.in_flight import DecodedQuery, Failure, InFlightQuery
from old_core.planner import Planner, Prepare, audited_models
from old_core.queries_in_flight import QueriesInFlight
from old_core.query_block import BlockAnswers, DecodedBlock, QueryBlock
from old_core.request_tracker import OutputPiece, RequestTracker, ShortestTrips, Waiter
from old_core.row_batch import Owner, RowBatch, rows_by_cache
from clipper_stream.query.status import Status, move

MOST_LEAD_RATIO = 0.1
MOST_AUDITS_RATIO = 0.5


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
        self._deadlines: DeadlineQueue[Owner] = DeadlineQueue()
        self._tracker = RequestTracker()
        self._trips = ShortestTrips()

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

    def is_in_flight(self, query: DecodedQuery) -> bool:
        """Whether the query was read, and its prediction is not recorded yet."""
        return query in self._queries

    def has_id(self, partition: int, query_id: str) -> bool:
        """Whether a query with this id was read, of any application, and its prediction is not recorded yet."""
        return self._queries.has_id(partition, query_id)

    def traces(self) -> list[Any]:
        """The traces of sampled queries in flight."""
        return [*self._queries.traces()]

    def is_audited(self, query: DecodedQuery) -> bool:
        """Whether an audit of the query is in flight: its prediction may be recorded, its audit is not."""
        return (query.partition, query.offset) in self._audits

    # --- stages: admit, plan, look up, request --------------------------------------------------------------------
    def receive(self, queries: Iterable[DecodedQuery | DecodedBlock], now_s: float) -> Effects:
        """Decide about queries; a query that is in flight already waits for its own answer.

        They are taken one by one, so that an iterator that decodes them keeps few in memory at a time.
        """
        effects = Effects(now_s=now_s)
        planners: dict[str, Planner | None] = {}
        for one in queries:
            planner = self._planner(one.application, planners, effects)
            if isinstance(one, DecodedQuery):
                self._receive_one(one, planner, effects)
            elif not self._receive_together(one, planner):
                for query in one:
                    self._receive_one(query, planner, effects)
        for planner in planners.values():
            if planner is not None:
                self._carry_out(planner, effects)
        return effects

    def _planner(self, name: str, planners: dict[str, Planner | None], effects: Effects) -> Planner | None:
        if name not in planners:
            planners[name], application = None, self._application(name)
            if application is not None:
                room, now_s = self.admission.room(name), effects.now_s
                trip_s = self._trips.least_s(application.refs, now_s)
                planners[name] = Planner(application, self._prepare, now_s, room, effects.behind, trip_s)
        return planners[name]

    def _receive_together(self, queries: DecodedBlock, planner: Planner | None) -> bool:
        """Decide about queries together; False, and nothing is decided, where that does not do."""
        if planner is None or not self._queries.is_new(queries.partition, queries.query_ids):
            return False
        blocks = planner.add_together(queries)
        for block in blocks:
            self._queries.admit_block(block)
        return bool(blocks)

    def _receive_one(self, query: DecodedQuery, planner: Planner | None, effects: Effects) -> None:
        pending = self._queries.admit(query)
        if pending is None:
            return
        if planner is not None:
            planner.add(pending)
        else:
            effects.count_queries(None, 1)
            why = Failure("unknown_application", f"application {shown(query.application)} is not registered")
            effects.answers.append(refuse(pending, None, why, effects.now_s))

    def _carry_out(self, planner: Planner, effects: Effects) -> None:
        planner.finish()
        asked, audits = planner.asked, planner.audits
        effects.count_queries(planner.application.name, planner.count)
        effects.answers += planner.refusals
        effects.block_answers += planner.block_refusals
        for pending, until_s in planner.deferred:
            effects.deferred += ((one, until_s) for one in (pending.query, *self._queries.remove(pending.query)))
        together = sum(block.count for block in planner.blocks)
        self.admission.enter(planner.application.name, len(asked) + len(audits) + together)
        push, now_s = self._deadlines.push, effects.now_s
        for block in planner.blocks:
            push(self._led(block.next_due_s(), now_s), block)
        for pending in asked:
            push(self._led(pending.deadline_s, now_s), pending)
        for audit in audits:
            self._audits[audit.query.partition, audit.query.offset] = audit
            push(audit.deadline_s, audit)
        self._request(self._look_up(planner, effects), effects)

    def _led(self, deadline_s: float, now_s: float) -> float:
        """When to answer so that the answer has arrived by the deadline."""
        lead_s = self.lead_s
        return deadline_s - min(lead_s, MOST_LEAD_RATIO * (deadline_s - now_s)) if lead_s else deadline_s

    def _look_up(self, planner: Planner, effects: Effects) -> Iterable[RowBatch]:
        """Look for the outputs in the caches; the rows to ask for, those of one model version together."""
        application, asked = planner.application, dict[str, RowBatch]()
        for (partition, ref), rows in rows_by_cache([*planner.asked, *planner.audits], planner.blocks).items():
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
        values, flight = cache.get_many(keys), self._tracker.flight
        if values.count(None) == len(keys) and flight.join_all(keys, zip(rows.owners, rows.slots, strict=True)):
            effects.count_lookups(rows.ref, len(keys), 0, 0)
            return rows
        missed, arrived = RowBatch(rows.ref), Arrived(effects)
        add, join, loads = missed.add, flight.join, self._codec.loads
        hits = coalesced = 0
        for owner, slot, key, value in zip(rows.owners, rows.slots, keys, values, strict=True):
            if value is not None:
                hits += 1
                if owner.fill_cached(slot, loads(value)):
                    self._complete(owner, slot, arrived)
            elif join(key, (owner, slot)):
                add(owner, slot, key)
            else:
                coalesced += 1
        effects.count_lookups(rows.ref, len(keys), hits, coalesced)
        self._conclude_blocks(arrived)
        return missed

    def _request(self, batches: Iterable[RowBatch], effects: Effects) -> None:
        for rows in batches:
            if rows.owners:
                effects.requests += self._tracker.requests(rows, effects.now_s, self.lead_s + self.return_s)

    # --- stages: gather, combine ----------------------------------------------------------------------------------
    def gather(self, pieces: Iterable[OutputPiece], now_s: float) -> Effects:
        """Take outputs in; queries that have all of theirs are answered."""
        arrived = Arrived(effects := Effects(now_s=now_s))
        for piece in pieces:
            rows = self._tracker.take(piece)
            if rows is not None:
                if len(piece.failures) < len(rows.owners):
                    self._trips.observe(rows.ref, now_s - rows.owners[0].asked_at_s, now_s)
                self._fill(rows, arrived)
        self._conclude_blocks(arrived)
        for partition, found in arrived.entries.items():
            self._cache(partition).put_many(found)
        self._request(self._tracker.rows_to_ask_again(), effects)
        return effects

    def _fill(self, rows: RowBatch, arrived: Arrived) -> None:
        """Give outputs to all who wait for them, and note those that may be shared for the cache."""
        for first, some in rows.runs():
            if isinstance(first, QueryBlock) and Failure not in map(type, rows.outputs[some]):
                self._fill_together(first, rows, some, arrived)
            else:
                self._fill_each(rows, some, arrived)

    def _fill_together(self, block: QueryBlock, rows: RowBatch, some: slice, arrived: Arrived) -> None:
        """Outputs that queries of a block have asked for, most of them nobody else."""
        slots, outputs = rows.slots[some], rows.outputs[some]
        keys = [key for key in rows.keys[some] if key is not None]  # all of a version, or none
        arrived.entries[block.partition] += zip(keys, map(self._codec.dumps, outputs), strict=False)
        waiting = map(self._tracker.flight.resolve, keys)
        for slot, output, waiters in zip(slots, outputs, waiting, strict=False):
            if waiters != [(block, slot)]:
                self._give(output, waiters, arrived)
        arrived.completed[block] += block.fill_together(slots, outputs, arrived.effects.now_s)

    def _fill_each(self, rows: RowBatch, some: slice, arrived: Arrived) -> None:
        columns = (column[some] for column in (rows.owners, rows.slots, rows.keys, rows.outputs))
        for owner, slot, key, output in zip(*columns, strict=True):
            if output.__class__ is Failure:
                now_s = arrived.effects.now_s
                self._fail(self._tracker.failed(rows.ref, owner, slot, key, output, now_s), output, arrived)
            elif key is None:
                self._give(output, ((owner, slot),), arrived)
            else:
                arrived.entries[owner.partition].append((key, self._codec.dumps(output)))
                self._give(output, self._tracker.flight.resolve(key), arrived)

    def _give(self, output: Any, waiters: Iterable[Waiter], arrived: Arrived) -> None:
        now_s = arrived.effects.now_s
        for owner, slot in waiters:
            if owner.fill(slot, output, now_s):
                self._complete(owner, slot, arrived)

    def _fail(self, waiters: Iterable[Waiter], failure: Failure, arrived: Arrived) -> None:
        for owner, slot in waiters:
            if owner.wants(slot) and owner.fail(slot, failure):
                self._complete(owner, slot, arrived)

    def _complete(self, owner: Owner, slot: int, arrived: Arrived) -> None:
        if isinstance(owner, QueryBlock):
            arrived.completed[owner].append(slot % owner.count)
        else:
            self._conclude(owner, arrived.effects)

    def _conclude_blocks(self, arrived: Arrived) -> None:
        effects = arrived.effects
        for block, indices in arrived.completed.items():
            answers, unusual = conclude_block(block, indices, effects.now_s)
            if answers.indices:
                effects.block_answers.append(answers)
                self.admission.leave(block.application.name, len(answers.indices))
            for index in unusual:
                self._conclude(self._leave(block, index), effects)
            if not block.open_queries:
                self._deadlines.discard(block)

    def _leave(self, block: QueryBlock, index: int) -> InFlightQuery:
        pending = block.leave(index)
        self._queries.leave_block(pending)
        return pending

    def expire(self, now_s: float) -> Effects:
        """Answer every query whose deadline has come, from what arrived."""
        effects = Effects(now_s=now_s)
        due: list[InFlightQuery] = []
        for owner in self._deadlines.pop_due(now_s):
            due += self._due_of(owner, effects) if isinstance(owner, QueryBlock) else (owner,)
        self._end(due, effects)
        effects.forgotten = self._tracker.forget(now_s)
        return effects

    def _due_of(self, block: QueryBlock, effects: Effects) -> list[InFlightQuery]:
        """Answer the queries of a block whose deadline has come, but those of which something has come.

        Those are returned; those that are open still are looked at again.
        """
        due_s, now_s = block.deadlines_s, effects.now_s
        indices = [index for index in block.open() if self._led(due_s[index], block.asked_at_s) <= now_s]
        self._tracker.abandon(block, block.open_rows(indices), now_s)
        silent = block.expire(indices)
        if silent:
            effects.block_answers.append(conclude_silent(block, silent, now_s))
            self.admission.leave(block.application.name, len(silent))
        due = [self._leave(block, index) for index in sorted({*indices}.difference(silent))]
        if block.open_queries:
            self._deadlines.push(self._led(block.next_due_s(), block.asked_at_s), block)
        return due

    def end_audits(self, now_s: float) -> Effects:
        """End the oldest audits with what is there, so that no more than half of what is in flight are audits.

        A version on trial that hangs would otherwise, without deadlines, take all the room that queries have.
        """
        effects = Effects(now_s=now_s)
        excess = self.surplus_audits
        if excess > 0:
            oldest = islice(self._audits.values(), excess)
            self._end([audit for audit in oldest if audit.status[0] == Status.WAITING], effects)
        return effects

    def _end(self, pendings: Iterable[InFlightQuery], effects: Effects) -> None:
        for pending in pendings:
            self._tracker.abandon(pending, pending.open_rows(), effects.now_s)
            self._conclude(pending, effects)
        self._request(self._tracker.rows_to_ask_again(), effects)

    def _conclude(self, pending: InFlightQuery, effects: Effects) -> None:
        if pending.open_slots:
            pending.close()
        if pending.audit_of is None:
            answer = conclude(pending, effects.now_s)
            pending.move(Status.ANSWERED if answer.failure is None else Status.DEFAULTED)
            effects.answers.append(answer)
        else:
            effects.audits.append(conclude_audit(pending, effects.now_s))
            pending.move(Status.NOTED)
        self._deadlines.discard(pending)
        self.admission.leave(pending.application.name)

    # --- stage: record --------------------------------------------------------------------------------------------
    def recorded(self, query: DecodedQuery) -> Sequence[DecodedQuery]:
        """End a query whose prediction is in the log; the records of it that were read meanwhile."""
        return self._queries.remove(query)

    def block_recorded(self, answers: BlockAnswers) -> Sequence[DecodedQuery]:
        """End queries of a block whose predictions are in the log; the records of them that were read meanwhile."""
        move(answers.block.status, answers.indices, Status.RECORDED)
        return self._queries.remove_block(answers.block, answers.indices)

    def audit_recorded(self, query: DecodedQuery) -> None:
        """End the audit of a query: it is in the log."""
        self._audits.pop((query.partition, query.offset), None)

    def lost_audit(self, query: DecodedQuery, answered: Iterable[str], now_s: float) -> QueryAnswer:
        """The audit of a query whose prediction is in the log, from a process that ended before its audit was.

        Whom it asked is the decision made again: the trials are the same, and the policy's choice is as far as its
        state is. `answered` are the models that the prediction names.
        """
        pending = self._audits[query.partition, query.offset] = InFlightQuery(query)
        pending.move(Status.NOTED)
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
