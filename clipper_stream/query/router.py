"""The router's decisions, from a batch of queries to requests and answers.

Rules of this file:
- A query is answered exactly once: when its last place is filled, or at its deadline, whichever is first.
- A query past its deadline on arrival asks nobody: overload never piles up.
- A query that is in flight already waits for its own answer; another application's query of the same id is another.
- What is asked for the log only is a query of its own beside it, an audit: it joins caches and rows in flight as any
  other, ends when its own last place is filled or at the same deadline, and the query waits for none of it.
- Nothing here waits, reads a clock or sends; time comes in, `Effects` go out.
"""

from collections.abc import Callable, Iterable, Sequence
from itertools import islice
from typing import Any, Protocol

from clipper_stream.caching.clock import ClockCache
from clipper_stream.query.answer import QueryAnswer, conclude, conclude_audit, lost_audit
from clipper_stream.query.application import Application, CandidateModel
from clipper_stream.query.cache_lookup import Hashes, by_cache
from clipper_stream.query.deadlines import DeadlineQueue
from clipper_stream.query.decoded_query import DecodedQuery
from clipper_stream.query.effects import Effects, OutputPiece
from clipper_stream.query.in_flight import Failure, InFlightQuery
from clipper_stream.query.lifecycle import COMPLETE, DUPLICATED, EXPIRED, QueryState, TransitionPath
from clipper_stream.query.planner import Planner, Prepare, asked_besides, refuse_unknown
from clipper_stream.query.request_tracker import Arrived, RequestTracker, RowBatch, Waiter

AsksByRef = dict[str, RowBatch]
"""Rows to ask for, by model reference."""
Key = tuple[int, str] | tuple[int, str, str]
"""Partition and query id; and the application, of a query whose id another application's query in flight has too."""
Paths = tuple[TransitionPath, ...]
"""How a query ends: with the combined outputs, with the default, or (an audit) with a list of the outputs."""
MOST_LEAD_RATIO = 0.1
Pairs = dict[int, list[tuple[bytes, bytes]]]
"""Entries for the cache, by partition."""


class OutputCodec(Protocol):
    """Outputs to bytes and back, for the cache."""

    def dumps(self, output: Any, /) -> bytes: ...
    def loads(self, value: bytes, /) -> Any: ...


class Router:
    """Queries in, requests and answers out; one object a router process.

    Args:
        application: Finds a registered application by name.
        prepare: Gives the policy's choice.
        cache: Gives a partition's cache.
        codec: Turns outputs into bytes for the cache.

    Attributes:
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
    ) -> None:
        self._application, self._prepare, self._cache, self._codec = application, prepare, cache, codec
        self._in_flight: dict[Key, InFlightQuery] = {}
        self._audits: dict[tuple[int, int], InFlightQuery] = {}
        """By partition and offset of the query."""
        self._repeats = self._sharing = 0
        self._deadlines: DeadlineQueue[InFlightQuery] = DeadlineQueue()
        self._asking = RequestTracker()

    # --- what the agents ask --------------------------------------------------------------------------------------
    @property
    def in_flight(self) -> int:
        """Queries and audits not yet recorded, and records of queries that were read again."""
        return len(self._in_flight) + self._repeats + len(self._audits)

    @property
    def audits(self) -> int:
        """Audits among them."""
        return len(self._audits)

    @property
    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do."""
        return self._deadlines.next_s

    def is_in_flight(self, query: DecodedQuery) -> bool:
        """Whether the query was read, and its prediction is not recorded yet."""
        return self._key(query) in self._in_flight

    def receive(self, queries: Iterable[DecodedQuery], now_s: float) -> Effects:
        """Decide about queries; a query that is in flight already waits for its own answer.

        Args:
            queries: Taken one by one, so that an iterator that decodes them keeps few in memory at a time.
            now_s: The time, seconds since the epoch.
        """
        effects = Effects(now_s=now_s)
        by_application: dict[str, Planner | None] = {}
        for query in queries:
            pending = self._enter(query)
            if pending is None:
                continue
            name = query.application
            if name not in by_application:
                application = self._application(name)
                by_application[name] = None if application is None else Planner(application, self._prepare, now_s)
            deciding = by_application[name]
            if deciding is not None:
                deciding.add(pending)
            else:
                effects.count_queries(None, 1)
                effects.answers.append(refuse_unknown(pending, now_s))
        for deciding in by_application.values():
            if deciding is not None:
                self._ask(deciding, effects)
        return effects

    def gather(self, pieces: Iterable[OutputPiece], now_s: float) -> Effects:
        """Outputs arrived."""
        effects = Effects(now_s=now_s)
        found: Pairs = {}
        again: AsksByRef = {}
        for piece in pieces:
            arrived = self._asking.take(piece)
            if arrived is not None:
                for owner, place, key, failure in arrived.failed:
                    self._fail(arrived.asks.candidate, owner, place, key, failure, again, effects)
                self._fill(arrived, found, effects)
        for partition, pairs in found.items():
            self._cache(partition).put_many(pairs)
        self._send(self._still_wanted(again), effects)
        return effects

    def expire(self, now_s: float) -> Effects:
        """Answer every query whose deadline has come, from what arrived."""
        effects = Effects(now_s=now_s)
        self._end(self._deadlines.pop_due(now_s), effects)
        effects.forgotten = self._asking.forget(now_s)
        return effects

    def end_audits(self, most: int, now_s: float) -> Effects:
        """End the oldest audits with what is there, so that no more than `most` are under way.

        A version on trial that hangs would otherwise, without deadlines, take all the room that queries have.
        """
        effects = Effects(now_s=now_s)
        excess = len(self._audits) - most
        if excess > 0:
            oldest = islice(self._audits.values(), excess)
            self._end([audit for audit in oldest if audit.state is QueryState.WAITING], effects)
        return effects

    def _end(self, pendings: Iterable[InFlightQuery], effects: Effects) -> None:
        again: AsksByRef = {}
        for pending in pendings:
            orphans = self._asking.abandon(pending)
            self._conclude(pending, EXPIRED, effects)
            for key, waiting in orphans:
                self._ask_again(_candidate(*waiting[0]), key, waiting, again, effects)
        self._send(self._still_wanted(again), effects)

    def recorded(self, query: DecodedQuery) -> Sequence[DecodedQuery]:
        """The query's prediction is in the log: it is in flight no more. Records of it that were read meanwhile."""
        key: Key = (query.partition, query.query_id)
        pending = self._in_flight.get(key)
        if pending is None or pending.query is not query:
            key = self._key(query)
        pending = self._in_flight.pop(key, None)
        self._sharing -= pending is not None and len(key) > 2  # noqa: PLR2004 (with the application)
        if pending is None or pending.repeats is None:
            return ()
        self._repeats -= len(pending.repeats)
        return pending.repeats

    def is_audited(self, query: DecodedQuery) -> bool:
        """Whether an audit of the query is under way: its prediction may be recorded, its audit is not."""
        return (query.partition, query.offset) in self._audits

    def audit_recorded(self, query: DecodedQuery) -> None:
        """The query's audit is in the log."""
        self._audits.pop((query.partition, query.offset), None)

    def lost_audit(self, query: DecodedQuery, answered: Iterable[str], now_s: float) -> QueryAnswer:
        """The audit of a query whose prediction is in the log, from a process that ended before its audit was.

        Whom it asked is the decision made again: the trials are the same, and the policy's choice is as far as its
        state is.

        Args:
            query: The query, read again.
            answered: References of the models that the prediction names.
            now_s: The time, seconds since the epoch.
        """
        pending = self._audits[query.partition, query.offset] = InFlightQuery(query)
        pending.move(DUPLICATED)
        application = self._application(query.application)
        asked: dict[str, float] = {}
        if application is not None:
            asked = asked_besides(query, application, self._prepare(application, query.partition, query.context))
        known = {*answered}
        return lost_audit(pending, application, {ref: p for ref, p in asked.items() if ref not in known}, now_s)

    def reset(self) -> None:
        """Forget every query in flight: partitions were taken away, and what was not acknowledged is read again."""
        self._in_flight.clear()
        self._audits.clear()
        self._repeats = self._sharing = 0
        self._deadlines = DeadlineQueue()
        self._asking.clear()

    def _key(self, query: DecodedQuery) -> Key:
        """Under which a query is in flight, or would be."""
        key = (query.partition, query.query_id)
        own = (*key, query.application)
        holder = self._in_flight.get(key)
        other = holder is not None and holder.query.application != query.application
        return own if other or (self._sharing and own in self._in_flight) else key

    # --- asking ---------------------------------------------------------------------------------------------------
    def _enter(self, query: DecodedQuery) -> InFlightQuery | None:
        """The query is in flight from now on; None when it was already."""
        key: Key = (query.partition, query.query_id)
        if key in self._in_flight or self._sharing:
            return self._enter_beside(query, self._key(query))
        pending = self._in_flight[key] = InFlightQuery(query)
        return pending

    def _enter_beside(self, query: DecodedQuery, key: Key) -> InFlightQuery | None:
        """The same, where a query with the same id is in flight: this one again, or another application's."""
        known = self._in_flight.get(key)
        if known is not None:
            known.repeats = [*(known.repeats or ()), query]
            self._repeats += 1
            return None
        pending = self._in_flight[key] = InFlightQuery(query)
        if len(key) > 2:  # noqa: PLR2004 (with the application)
            self._in_flight[key[:2]].shares_id = pending.shares_id = True
            self._sharing += 1
        return pending

    def _ask(self, deciding: Planner, effects: Effects) -> None:
        application, decided = deciding.application, deciding.decided()
        effects.count_queries(application.name, deciding.count)
        effects.answers += decided.refusals
        push, lead_s, now_s = self._deadlines.push, self.lead_s, effects.now_s
        for pending in decided.pendings:
            due_s = pending.deadline_s
            push(due_s - min(lead_s, MOST_LEAD_RATIO * (due_s - now_s)) if lead_s else due_s, pending)
        for audit in decided.audits:
            self._audits[audit.query.partition, audit.query.offset] = audit
            push(audit.deadline_s, audit)
        self._look_up(application, decided.pendings + decided.audits if decided.audits else decided.pendings, effects)

    def _look_up(self, application: Application, pendings: Sequence[InFlightQuery], effects: Effects) -> None:
        """Look for the outputs in the caches, and ask for those that are not there."""
        asks: AsksByRef = {}
        hashes = Hashes()
        for (partition, ref), (owners, places) in by_cache(pendings).items():
            candidate = application.by_ref[ref]
            if candidate.deterministic:
                keys = hashes.keys(candidate.digest, owners, places)
                missed = self._missed(candidate, partition, owners, places, keys, effects)
            else:
                missed = RowBatch(candidate, owners, places, [None] * len(owners))
            known = asks.get(ref)
            if known is None:
                asks[ref] = missed
            else:
                known.extend(missed)
        self._send(asks, effects)

    def _missed(
        self,
        candidate: CandidateModel,
        partition: int,
        owners: list[InFlightQuery],
        places: list[int],
        keys: list[bytes],
        effects: Effects,
    ) -> RowBatch:
        missed = RowBatch(candidate)
        values = self._cache(partition).get_many(keys)
        hits = coalesced = 0
        for owner, place, key, value in zip(owners, places, keys, values, strict=True):
            if value is not None:
                hits += 1
                if owner.fill_cached(place, self._codec.loads(value)):
                    self._conclude(owner, COMPLETE, effects)
            elif self._asking.join(key, owner, place):
                missed.add(owner, place, key)
            else:
                coalesced += 1
        effects.count_lookups(candidate.ref, len(keys), hits, coalesced)
        return missed

    def _ask_again(
        self, candidate: CandidateModel, key: bytes, waiting: Iterable[Waiter], again: AsksByRef, effects: Effects
    ) -> None:
        """Rows whose first asker ran out of time, for those who still have some."""
        for owner, place in waiting:
            in_time = owner.wants(place) and owner.deadline_s > effects.now_s
            if in_time and self._asking.join(key, owner, place):
                again.setdefault(candidate.ref, RowBatch(candidate)).add(owner, place, key)

    def _still_wanted(self, again: AsksByRef) -> AsksByRef:
        """Rows to ask for anew, after all that came in the same call: what nobody waits for any more is not asked."""
        wanted: AsksByRef = {}
        for ref, asks in again.items():
            for owner, place, key in zip(asks.owners, asks.places, asks.keys, strict=True):
                heir = (owner, place) if owner.wants(place) else self._asking.inherit(owner, key)
                if heir is not None:
                    wanted.setdefault(ref, RowBatch(asks.candidate)).add(*heir, key)
        return wanted

    def _send(self, asks: AsksByRef, effects: Effects) -> None:
        for rows in asks.values():
            if rows.owners:
                effects.requests += self._asking.requests(rows, effects.now_s, self.lead_s + self.return_s)

    # --- answering ------------------------------------------------------------------------------------------------
    def _fill(self, arrived: Arrived, found: Pairs, effects: Effects) -> None:
        """Outputs go to everybody who waits for them, and those that may be shared into the cache."""
        asks, outputs, now_s = arrived.asks, arrived.outputs, effects.now_s
        dumps, resolve = self._codec.dumps, self._asking.resolve
        for owner, place, key, output in zip(asks.owners, asks.places, asks.keys, outputs, strict=True):
            if key is None:
                if owner.fill(place, output, now_s):
                    self._conclude(owner, COMPLETE, effects)
                continue
            pairs = found.get(owner.query.partition)
            if pairs is None:
                pairs = found[owner.query.partition] = []
            pairs.append((key, dumps(output)))
            for waiter, where in resolve(key):
                if waiter.fill(where, output, now_s):
                    self._conclude(waiter, COMPLETE, effects)

    def _fail(
        self,
        candidate: CandidateModel,
        owner: InFlightQuery,
        place: int,
        key: bytes | None,
        failure: Failure,
        again: AsksByRef,
        effects: Effects,
    ) -> None:
        """A row has no output: an error is everybody's; lateness is the asker's own, and the others ask anew."""
        late = failure[0] == "late"
        if late and self._asking.superseded(owner, key):
            return
        waiting = [(owner, place)] if key is None else self._asking.resolve(key)
        for waiter, where in [(owner, place)] if late else waiting:
            if waiter.fail(where, failure):
                self._conclude(waiter, COMPLETE, effects)
        if late and key is not None:
            self._ask_again(candidate, key, waiting, again, effects)

    def _conclude(self, pending: InFlightQuery, paths: Paths, effects: Effects) -> None:
        combined, defaulted, noted = paths
        if pending.audit_of is None:
            answer = conclude(pending, effects.now_s)
            pending.move(combined if answer.reason is None else defaulted)
            effects.answers.append(answer)
        else:
            effects.audits.append(conclude_audit(pending, effects.now_s))
            pending.move(noted)
        pending.close()
        self._deadlines.discard(pending)


def _candidate(owner: InFlightQuery, place: int) -> CandidateModel:
    return owner.application.by_ref[owner.decision.models[place // owner.count]]
