"""The router's decisions, from a batch of queries to requests and answers.

Rules of this file:
- A query is answered exactly once: when its last slot is filled, or at its deadline, whichever is first.
- A query past its deadline on arrival asks nobody: overload never piles up.
- A query that is in flight already waits for its own answer; another application's query of the same id is another.
- Nothing here waits, reads a clock or sends; time comes in, `Effects` go out.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

from clipper_stream.caching.clock import ClockCache
from clipper_stream.caching.keys import row_keys
from clipper_stream.deadlines import DeadlineQueue
from clipper_stream.query_life import Event
from clipper_stream.routing.answer import conclude
from clipper_stream.routing.application import Application, Candidate
from clipper_stream.routing.asking import Ask, Asking
from clipper_stream.routing.deciding import Deciding, Prepare, refuse_unknown
from clipper_stream.routing.effects import Effects, OutputPiece
from clipper_stream.routing.life import Life
from clipper_stream.routing.pending import Pending, Slot
from clipper_stream.routing.received import Received

Asks = dict[str, tuple[Candidate, list[Ask]]]
"""Rows to ask for, by model reference."""
Key = tuple[int, str, str]
"""Partition, application and query id."""


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
    """

    def __init__(
        self,
        application: Callable[[str], Application | None],
        prepare: Prepare,
        cache: Callable[[int], ClockCache],
        codec: OutputCodec,
    ) -> None:
        self._application, self._prepare, self._cache, self._codec = application, prepare, cache, codec
        self._in_flight: dict[Key, Life] = {}
        self._repeats = 0
        self._deadlines: DeadlineQueue[Pending] = DeadlineQueue()
        self._asking = Asking()

    # --- what the agents ask --------------------------------------------------------------------------------------
    @property
    def in_flight(self) -> int:
        """Queries read and not yet recorded, and records of them that were read again."""
        return len(self._in_flight) + self._repeats

    @property
    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do."""
        return self._deadlines.next_s

    def is_in_flight(self, query: Received) -> bool:
        """Whether the query was read, and its prediction is not recorded yet."""
        return _key(query) in self._in_flight

    def receive(self, queries: Iterable[Received], now_s: float) -> Effects:
        """Decide about queries; a query that is in flight already waits for its own answer."""
        effects = Effects(now_s=now_s)
        by_application: dict[str, list[Life]] = {}
        for query in queries:
            known = self._in_flight.get(_key(query))
            if known is not None:
                known.repeats.append(query)
                self._repeats += 1
            else:
                life = self._in_flight[_key(query)] = Life(query)
                by_application.setdefault(query.application, []).append(life)
        for name, group in by_application.items():
            self._decide(name, group, effects)
        return effects

    def gather(self, pieces: Iterable[OutputPiece], now_s: float) -> Effects:
        """Outputs arrived."""
        effects = Effects(now_s=now_s)
        found: dict[int, list[tuple[bytes, bytes]]] = {}
        again: Asks = {}
        for piece in pieces:
            candidate = self._asking.candidate(piece.frame)
            for row, output in enumerate(piece.outputs, piece.row0):
                ask = self._asking.answered(piece.frame, row)
                if ask is None or candidate is None:
                    continue
                failure = piece.failed.get(row)
                if failure is not None:
                    self._fail(ask, candidate, failure, again, effects)
                else:
                    if ask.key is not None:
                        value = self._codec.dumps(output)
                        found.setdefault(ask.slot.pending.query.partition, []).append((ask.key, value))
                    self._fill(self._asking.resolve(ask), output, effects)
        for partition, pairs in found.items():
            self._cache(partition).put_many(pairs)
        self._send(self._still_wanted(again), effects)
        return effects

    def expire(self, now_s: float) -> Effects:
        """Answer every query whose deadline has come, from what arrived."""
        effects = Effects(now_s=now_s)
        again: Asks = {}
        for pending in self._deadlines.pop_due(now_s):
            self._conclude(pending, Event.PASS_DEADLINE, effects)
            for key, slots in self._asking.abandon(pending):
                self._ask_again(_candidate(slots[0]), key, slots, again, effects)
        self._send(again, effects)
        effects.forgotten = self._asking.forget(now_s)
        return effects

    def recorded(self, query: Received) -> list[Received]:
        """The query's prediction is in the log: it is in flight no more. Records of it that were read meanwhile."""
        life = self._in_flight.pop(_key(query), None)
        repeats = life.repeats if life else []
        self._repeats -= len(repeats)
        return repeats

    def reset(self) -> None:
        """Forget every query in flight: partitions were taken away, and what was not acknowledged is read again."""
        self._in_flight.clear()
        self._repeats = 0
        self._deadlines = DeadlineQueue()
        self._asking.clear()

    # --- asking ---------------------------------------------------------------------------------------------------
    def _decide(self, name: str, lives: list[Life], effects: Effects) -> None:
        application = self._application(name)
        if application is None:
            effects.answers += refuse_unknown(name, lives, effects.now_s)
            return
        decided = Deciding(application, self._prepare, effects.now_s).decide(lives)
        effects.answers += decided.refusals
        for pending in decided.pendings:
            self._deadlines.push(pending.deadline_s, pending)
            pending.life.move(Event.ASK)
        self._look_up(decided.pendings, effects)

    def _look_up(self, pendings: Sequence[Pending], effects: Effects) -> None:
        groups: dict[tuple[int, str], list[tuple[Pending, int]]] = {}
        for pending in pendings:
            for model, ref in enumerate(pending.decision.models):
                groups.setdefault((pending.query.partition, ref), []).append((pending, model))
        asks: Asks = {}
        for (partition, ref), members in groups.items():
            candidate = members[0][0].application.by_ref[ref]
            slots = [Slot(pending, model, row) for pending, model in members for row in range(pending.count)]
            if candidate.deterministic:
                missed = self._missed(candidate, partition, slots, effects)
            else:
                missed = [Ask(slot, None) for slot in slots]
            if missed:
                asks.setdefault(ref, (candidate, []))[1].extend(missed)
        self._send(asks, effects)

    def _missed(self, candidate: Candidate, partition: int, slots: list[Slot], effects: Effects) -> list[Ask]:
        keys = [key for rows in _rows_of(slots) for key in row_keys(candidate.digest, rows)]
        effects.lookups[candidate.ref] = effects.lookups.get(candidate.ref, 0) + len(slots)
        missed: list[Ask] = []
        for slot, key, value in zip(slots, keys, self._cache(partition).get_many(keys), strict=True):
            if value is not None:
                effects.hits[candidate.ref] = effects.hits.get(candidate.ref, 0) + 1
                if slot.pending.fill(slot.model, slot.row, self._codec.loads(value), effects.now_s, cached=True):
                    self._conclude(slot.pending, Event.HAVE_ALL, effects)
            elif self._asking.join(key, slot):
                missed.append(Ask(slot, key))
            else:
                effects.coalesced += 1
        return missed

    def _ask_again(
        self, candidate: Candidate, key: bytes, slots: Iterable[Slot], again: Asks, effects: Effects
    ) -> None:
        """Rows whose first asker ran out of time, for those who still have some."""
        for slot in slots:
            if slot.wanted and slot.pending.deadline_s > effects.now_s and self._asking.join(key, slot):
                again.setdefault(candidate.ref, (candidate, []))[1].append(Ask(slot, key))

    def _still_wanted(self, again: Asks) -> Asks:
        """Rows to ask for anew, after all that came in the same call: what nobody waits for any more is not asked."""
        wanted: Asks = {}
        for ref, (candidate, asks) in again.items():
            for ask in asks:
                heir = ask.slot if ask.slot.wanted else self._asking.inherit(ask)
                if heir is not None:
                    wanted.setdefault(ref, (candidate, []))[1].append(Ask(heir, ask.key))
        return wanted

    def _send(self, asks: Asks, effects: Effects) -> None:
        for candidate, rows in asks.values():
            effects.requests += self._asking.requests(candidate, rows)

    # --- answering ------------------------------------------------------------------------------------------------
    def _fill(self, slots: list[Slot], output: Any, effects: Effects) -> None:
        for slot in slots:
            if slot.pending.fill(slot.model, slot.row, output, effects.now_s, cached=False):
                self._conclude(slot.pending, Event.HAVE_ALL, effects)

    def _fail(self, ask: Ask, candidate: Candidate, failure: tuple[str, str], again: Asks, effects: Effects) -> None:
        """A row has no output: an error is everybody's; lateness is the asker's own, and the others ask anew."""
        late = failure[0] == "late"
        if late and ask.superseded:
            return
        slots = self._asking.resolve(ask)
        for slot in [ask.slot] if late else slots:
            if slot.pending.fail(slot.model, slot.row, *failure):
                self._conclude(slot.pending, Event.HAVE_ALL, effects)
        if late and ask.key is not None:
            self._ask_again(candidate, ask.key, slots, again, effects)

    def _conclude(self, pending: Pending, event: Event, effects: Effects) -> None:
        pending.life.move(event)
        answer = conclude(pending, effects.now_s)
        pending.life.move(Event.DEFAULT if answer.default else Event.COMBINE)
        pending.answered = True
        self._deadlines.discard(pending)
        effects.answers.append(answer)


def _key(query: Received) -> Key:
    return query.partition, query.application, query.query_id


def _candidate(slot: Slot) -> Candidate:
    return slot.pending.application.by_ref[slot.pending.decision.models[slot.model]]


def _rows_of(slots: list[Slot]) -> Iterable[Any]:
    """The rows of consecutive slots, query by query."""
    last: Pending | None = None
    for slot in slots:
        if slot.pending is not last:
            last = slot.pending
            yield slot.pending.rows
