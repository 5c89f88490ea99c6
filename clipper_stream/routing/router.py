"""The router's decisions, from a batch of queries to requests and answers.

Rules of this file:
- A query is answered exactly once: when its last slot is filled, or at its deadline, whichever is first.
- A query past its deadline on arrival asks nobody: overload never piles up.
- Nothing here waits, reads a clock or sends; time comes in, `Effects` go out.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import numpy as np

from clipper_stream.caching.clock import ClockCache
from clipper_stream.caching.keys import row_keys
from clipper_stream.deadlines import DeadlineQueue
from clipper_stream.errors import InvalidInput
from clipper_stream.inputs import Rows, to_matrix, to_rows
from clipper_stream.query_life import Event
from clipper_stream.routing.answer import conclude, refusal
from clipper_stream.routing.application import Application, Candidate
from clipper_stream.routing.asking import Ask, Asking, Slot
from clipper_stream.routing.effects import Effects, OutputPiece
from clipper_stream.routing.life import Life
from clipper_stream.routing.pending import THROUGHPUT_WAIT_S, Pending
from clipper_stream.routing.received import Received
from clipper_stream.selection.decision import Prepared, named
from clipper_stream.selection.rng import query_rng


class OutputCodec(Protocol):
    """Outputs to bytes and back, for the cache."""

    def dumps(self, output: Any) -> bytes: ...
    def loads(self, value: bytes) -> Any: ...


Prepare = Callable[[Application, int, str | None], Prepared]
"""The policy's choice for (application, partition, context), from the totals known now."""


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
        self._in_flight: dict[tuple[int, str], Life] = {}
        self._deadlines: DeadlineQueue[Pending] = DeadlineQueue()
        self._asking = Asking()

    # --- what the agents ask --------------------------------------------------------------------------------------
    @property
    def in_flight(self) -> int:
        """Queries read and not yet recorded."""
        return len(self._in_flight)

    @property
    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do."""
        return self._deadlines.next_s

    def is_in_flight(self, partition: int, query_id: str) -> bool:
        """Whether the query was read, and its prediction is not recorded yet."""
        return (partition, query_id) in self._in_flight

    def receive(self, queries: Iterable[Received], now_s: float) -> Effects:
        """Decide about queries; a query that is in flight already waits for its own answer."""
        effects = Effects(now_s=now_s)
        by_application: dict[str, list[Life]] = {}
        for query in queries:
            key = (query.partition, query.query_id)
            known = self._in_flight.get(key)
            if known is not None:
                known.repeats.append(query)
            else:
                life = self._in_flight[key] = Life(query)
                by_application.setdefault(query.application, []).append(life)
        for name, group in by_application.items():
            self._receive_application(name, group, effects)
        return effects

    def gather(self, pieces: Iterable[OutputPiece], now_s: float) -> Effects:
        """Outputs arrived."""
        effects = Effects(now_s=now_s)
        found: dict[int, list[tuple[bytes, bytes]]] = {}
        again: dict[str, tuple[Candidate, list[Ask]]] = {}
        for piece in pieces:
            frame = self._asking.frame(piece.frame)
            if frame is None:
                continue
            for index, output in enumerate(piece.outputs, piece.row0):
                ask = frame.asks[index]
                failure = piece.failed.get(index)
                slots = self._asking.resolve(ask)
                if failure is None:
                    if ask.key is not None:
                        value = self._codec.dumps(output)
                        found.setdefault(ask.slot.pending.query.partition, []).append((ask.key, value))
                    self._fill(slots, output, effects)
                elif failure[0] == "late":
                    self._ask_again(frame.candidate, ask.key, slots, now_s, again)
                else:
                    self._fail(slots, failure, effects)
            self._asking.answered(piece.frame, len(piece.outputs))
        for partition, pairs in found.items():
            self._cache(partition).put_many(pairs)
        self._send(again, effects)
        return effects

    def expire(self, now_s: float) -> Effects:
        """Answer every query whose deadline has come, from what arrived."""
        effects = Effects(now_s=now_s)
        again: dict[str, tuple[Candidate, list[Ask]]] = {}
        for pending in self._deadlines.pop_due(now_s):
            self._conclude(pending, Event.PASS_DEADLINE, effects)
            for key, slots in self._asking.abandon(pending):
                candidate = self._candidate(slots[0])
                self._ask_again(candidate, key, slots, now_s, again)
        self._asking.forget(now_s)
        self._send(again, effects)
        return effects

    def recorded(self, partition: int, query_id: str) -> list[Received]:
        """The query's prediction is in the log: it is in flight no more. Records of it that were read meanwhile."""
        life = self._in_flight.pop((partition, query_id), None)
        return life.repeats if life else []

    def reset(self) -> None:
        """Forget every query in flight: partitions were taken away, and what was not acknowledged is read again."""
        self._in_flight.clear()
        self._deadlines = DeadlineQueue()
        self._asking.clear()

    # --- deciding -------------------------------------------------------------------------------------------------
    def _receive_application(self, name: str, lives: list[Life], effects: Effects) -> None:
        application = self._application(name)
        if application is None:
            for life in lives:
                self._refuse(life, None, "unknown_application", f"application {name!r} is not registered", effects)
            return
        for life in lives:
            if life.query.invalid is not None:
                self._refuse(life, application, "invalid_input", life.query.invalid, effects)
        lives = [life for life in lives if life.query.invalid is None]
        in_time = [life for life in lives if not self._refused_as_late(life, application, effects)]
        pendings = [
            pending
            for life, rows in self._converted(application, in_time, effects)
            if (pending := self._decide(life, application, rows, effects)) is not None
        ]
        self._look_up(pendings, effects)

    def _refused_as_late(self, life: Life, application: Application, effects: Effects) -> bool:
        late_s = effects.now_s - _deadline_s(life.query, application, effects.now_s)
        if late_s < 0:
            return False
        why = f"read {round(late_s * 1000)} ms after its deadline; nobody was asked"
        self._refuse(life, application, "arrived_late", why, effects, Event.ARRIVE_LATE)
        return True

    def _converted(self, application: Application, lives: list[Life], effects: Effects) -> Iterable[tuple[Life, Any]]:
        single = [life for life in lives if not life.query.packed]
        rows = to_rows(application.spec, [life.query.rows[0] for life in single])
        for index, error in rows.failed.items():
            self._refuse(single[index], application, "invalid_input", str(error), effects)
        good = [life for index, life in enumerate(single) if index not in rows.failed]
        yield from zip(good, _each(rows), strict=True)
        for life in lives:
            if life.query.packed:
                try:
                    yield life, to_matrix(application.spec, life.query.rows)
                except InvalidInput as error:
                    self._refuse(life, application, "invalid_input", str(error), effects)

    def _decide(self, life: Life, application: Application, rows: Any, effects: Effects) -> Pending | None:
        query = life.query
        if not application.refs:
            self._refuse(life, application, "no_models", "no model of the application is deployed", effects)
            return None
        prepared = self._prepare(application, query.partition, query.context)
        if query.models is None:
            decision = prepared.select(query_rng(application.seed, query.query_id))
        else:
            refs = [(model, application.named(model)) for model in query.models]
            unknown = [model for model, ref in refs if ref is None]
            if unknown:
                why = f"{unknown} are no candidates of {application.name!r}: {', '.join(application.refs)}"
                self._refuse(life, application, "unknown_model", why, effects)
                return None
            decision = named(tuple(dict.fromkeys(ref for _, ref in refs if ref is not None)))
        life.move(Event.SELECT)
        deadline_s = _deadline_s(query, application, effects.now_s)
        pending = Pending(
            life, application, decision, prepared.weights, rows, deadline_s=deadline_s, now_s=effects.now_s
        )
        self._deadlines.push(deadline_s, pending)
        return pending

    # --- asking ---------------------------------------------------------------------------------------------------
    def _look_up(self, pendings: Sequence[Pending], effects: Effects) -> None:
        groups: dict[tuple[int, str], list[tuple[Pending, int]]] = {}
        for pending in pendings:
            for model, ref in enumerate(pending.decision.models):
                groups.setdefault((pending.query.partition, ref), []).append((pending, model))
        asks: dict[str, tuple[Candidate, list[Ask]]] = {}
        for pending in pendings:
            pending.life.move(Event.ASK)
        for (partition, ref), members in groups.items():
            candidate = members[0][0].application.by_ref[ref]
            slots = [Slot(pending, model, row) for pending, model in members for row in range(pending.count)]
            missed = self._missed(candidate, partition, slots, effects) if candidate.deterministic else [
                Ask(slot, None) for slot in slots
            ]  # fmt: skip
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
        self,
        candidate: Candidate,
        key: bytes | None,
        slots: list[Slot],
        now_s: float,
        again: dict[str, tuple[Candidate, list[Ask]]],
    ) -> None:
        """Rows whose first asker ran out of time, for those who still have some."""
        for slot in slots:
            if slot.wanted and slot.pending.deadline_s > now_s and (key is None or self._asking.join(key, slot)):
                again.setdefault(candidate.ref, (candidate, []))[1].append(Ask(slot, key))

    def _send(self, asks: dict[str, tuple[Candidate, list[Ask]]], effects: Effects) -> None:
        for candidate, rows in asks.values():
            effects.requests += self._asking.requests(candidate, rows)

    # --- answering ------------------------------------------------------------------------------------------------
    def _fill(self, slots: list[Slot], output: Any, effects: Effects) -> None:
        for slot in slots:
            if slot.pending.fill(slot.model, slot.row, output, effects.now_s, cached=False):
                self._conclude(slot.pending, Event.HAVE_ALL, effects)

    def _fail(self, slots: list[Slot], failure: tuple[str, str], effects: Effects) -> None:
        for slot in slots:
            if slot.pending.fail(slot.model, slot.row, *failure):
                self._conclude(slot.pending, Event.HAVE_ALL, effects)

    def _conclude(self, pending: Pending, event: Event, effects: Effects) -> None:
        pending.life.move(event)
        answer = conclude(pending, effects.now_s)
        pending.life.move(Event.DEFAULT if answer.default else Event.COMBINE)
        pending.answered = True
        self._deadlines.discard(pending)
        effects.answers.append(answer)

    def _refuse(
        self,
        life: Life,
        application: Application | None,
        reason: str,
        why: str,
        effects: Effects,
        event: Event = Event.REFUSE,
    ) -> None:
        life.move(event)
        life.move(Event.DEFAULT)
        effects.answers.append(refusal(life, application, reason, why, effects.now_s))

    def _candidate(self, slot: Slot) -> Candidate:
        return slot.pending.application.by_ref[slot.pending.decision.models[slot.model]]


def _deadline_s(query: Received, application: Application, now_s: float) -> float:
    """By when to answer: within the objective of the record's timestamp; without one, a while from now."""
    bounds = [bound for bound in (query.deadline_s, application.objective_s) if bound is not None]
    return query.queried_at_s + min(bounds) if bounds else now_s + THROUGHPUT_WAIT_S


def _each(rows: Rows) -> Iterable[Any]:
    """Each row as a matrix, or list, of one row."""
    if isinstance(rows.good, np.ndarray):
        return (rows.good[index : index + 1] for index in range(len(rows.good)))
    return (row[np.newaxis] if isinstance(row, np.ndarray) else [row] for row in rows.good)


def _rows_of(slots: list[Slot]) -> Iterable[Any]:
    """The rows of consecutive slots, query by query."""
    last: Pending | None = None
    for slot in slots:
        if slot.pending is not last:
            last = slot.pending
            yield slot.pending.rows
