"""A query's life in a router, on one page: what is read before each step of the pure core, and carried out after it.

| event | read | step of `clipper_stream.query.Router` | carried out |
|---|---|---|---|
| `receive`: queries were read | index, application, choices, cache | `decide`, `take_cached`, `end_turn` | effects |
| `gather`: outputs arrived | | `gather` | effects |
| `expire`: the next deadline has come | | `expire` | effects |
| `predicted`: predictions are in the log | index | `recorded` | acknowledgements |
| `audited`: audits are in the log | | `audits_recorded` | acknowledgements |

The effects: outputs into the cache, answers to the log, requests to models, queries without room set aside.

Rules of this file:
- Two things are bounded, each for itself: queries that wait for models, and by partition what waits for the broker. So
  a partition without a leader is read no further, and no other is held up.
- A query is acknowledged when its prediction is in the log and indexed, and its audit too where it has one.
- An audit is sent when its prediction is in the log, so that no audit stands in the log without a prediction. It
  belongs to one record of a query.
- Of two predictions about a query the first is the decision, whoever wrote it. Where that says that an audit follows,
  and a process that ended meanwhile has not written it, it is written here, with all its models missing.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import sub
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from faust.types import TP

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.applications import ApplicationRegistry
from clipper_agents.router.colocated_models import ColocatedModels
from clipper_agents.router.decision_index import Asked, PartitionStores
from clipper_agents.router.indexed_log import OutgoingRecords, QueryLogs, WrittenRound
from clipper_agents.router.prediction_records import encode_answers, encode_audits
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.router.requests import RequestSender
from clipper_agents.router.selection_store import SelectionStore
from clipper_agents.router.set_aside import DeferredQueries
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.databases import open_anew
from clipper_stream.caching.cache import ClockCache
from clipper_stream.query import Answers, Application, Effects, Failure, OutputPiece, QueryBatch, Request, Router
from clipper_stream.query.batch import OPEN, QueryState, set_state
from clipper_stream.query.planner import Choices
from clipper_topics.codec import OutputFrame
from clipper_topics.logged_records import LoggedRecord, audit_key, named_models, prediction_head

encode_value, decode_value = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder().decode
ROWS_GATHERED_TOGETHER = 256
"""What an output completes is encoded at once, while it is in the processor's cache."""
MEMORY_ROUNDS = MEMORY_CHUNKS = 10
"""Over which the times of records to the broker, and of outputs on their way back, are smoothed."""
MOST_LEAD_S = 0.010
"""A broker that hesitates must not make the router give up on its models."""
UNKNOWN_APPLICATION = "unknown"
"""Label of all queries to applications that are not registered, lest a typo adds a metric series."""


class PartitionCache:
    """The prediction cache of one partition: its entries in memory, its outputs in a RocksDB database.

    It can be rebuilt, so there is no write-ahead log: after a crash outputs may be missing, never wrong.

    Attributes:
        entries: Which outputs are in the database.
    """

    def __init__(self, path: Path, budget_bytes: int) -> None:
        self._database = open_anew(path, logged=False)
        self.entries = ClockCache(budget_bytes)
        _, deleted = self.entries.put({key: len(value) for key, value in self._database.items()})
        self._write({}, deleted)

    def get_many(self, keys: Sequence[bytes]) -> list[Any]:
        """Return the output of each key, by one multi-get; OPEN where there is none."""
        return [OPEN if value is None else decode_value(value) for value in self._database.get_many(keys)]

    def put_many(self, outputs: Iterable[tuple[bytes, Any]]) -> None:
        """Keep outputs, and delete those that have to make room, in one write."""
        values = {key: encode_value(output) for key, output in outputs}
        written, deleted = self.entries.put({key: len(value) for key, value in values.items()})
        self._write({key: values[key] for key in written}, deleted)

    def close(self) -> None:
        self._database.close()

    def _write(self, values: Mapping[bytes, bytes], deleted: Sequence[bytes]) -> None:
        if values or deleted:
            self._database.write(values.items(), deleted)


def partition_caches(folder: Path, budget_bytes: int) -> PartitionStores[PartitionCache]:
    """The caches of the owned partitions, each with so many bytes."""
    return PartitionStores(lambda partition: PartitionCache(folder / str(partition), budget_bytes))


class QueryStores(NamedTuple):
    """What a query's life reads and writes."""

    registry: ApplicationRegistry
    selection: SelectionStore
    caches: PartitionStores[PartitionCache]
    logs: QueryLogs


class QueryPipeline:
    """Takes queries through their lives, and keeps one timer, at the earliest deadline.

    Outputs come back here from where requests go. So `connect` closes this ring once all of it is built.

    Attributes:
        room: Set while queries may be read: not while as many as may wait for models, nor while the process drains.
    """

    _sender: RequestSender
    _colocated: ColocatedModels
    _deferred: DeferredQueries

    def __init__(
        self,
        router: Router,
        stores: QueryStores,
        app: ClipperApp,
        topic: str,
        metrics: RouterMetrics,
        traces: QueryTraces = UNTRACED,
    ) -> None:
        self.router, self._stores, self._app, self._topic = router, stores, app, topic
        self._predictions, self._audits = stores.logs
        self._metrics, self._traces = metrics, traces
        self.room, self._drained, self._draining = asyncio.Event(), asyncio.Event(), False
        self.room.set()
        self._timer: asyncio.TimerHandle | None = None
        self._due_s = self._delivery_s = 0.0
        self._expiring: asyncio.Task[None] | None = None
        self._predictions.connect(self.predicted)
        self._audits.connect(self.audited)

    def connect(self, sender: RequestSender, colocated: ColocatedModels, deferred: DeferredQueries) -> None:
        """Send requests for models in this process to `colocated` and others to `sender`; set queries aside."""
        self._sender, self._colocated, self._deferred = sender, colocated, deferred

    def has_id(self, partition: int, query_id: str) -> bool:
        """Return whether a query with this id is in flight, or may be among those that wait to be read again."""
        return self.router.has_id(partition, query_id) or self._deferred.has_id(partition, query_id)

    # --- reading ------------------------------------------------------------------------------------------------------
    def acknowledge(self, partition: int, offsets: list[int], generation: int) -> None:
        self._app.consumer.acknowledge(TP(self._topic, partition), offsets, generation)
        if not self.room.is_set():
            self._update_room(self.router.is_full)

    def reset(self) -> None:
        """Forget every query in flight: partitions were taken away."""
        self.router.reset()
        self._update_room(self.router.is_full)

    async def drain(self) -> None:
        """Stop reading queries, and wait until those in flight are finished."""
        self._draining = True
        self._update_room(self.router.is_full)
        await self._drained.wait()

    def _update_room(self, is_full: bool) -> None:
        if self._draining or is_full:
            self.room.clear()
        else:
            self.room.set()
        if self._draining and not self.router.in_flight:
            self._drained.set()

    # --- queries come -------------------------------------------------------------------------------------------------
    def receive(self, batches: Iterable[QueryBatch], now_s: float) -> tuple[Counter[int], Mapping[int, int]]:
        """Decide about all queries that are new, and answer those again that were answered before.

        Returns:
            By partition, how many queries were answered before, and how many with a deadline had waited for longer than
            they may still wait.
        """
        router, repeated = self.router, Counter[int]()
        for batch in batches:
            known = self._known(batch)
            application, choices = self._choices(batch)
            cache = self._stores.caches[batch.partition]
            for lookup in router.decide(batch, known, application, choices, cache.entries, now_s):
                router.take_cached(lookup, cache.get_many(lookup.part.keys))
            if known:
                repeated[batch.partition] += self._repeat(batch, known, now_s)
        effects = router.end_turn(now_s)
        if self._traces.undecided:
            self._traces.decided(effects.requests)
        self.carry_out(effects)
        return repeated, effects.behind

    def _known(self, batch: QueryBatch) -> dict[int, LoggedRecord]:
        """Return the predictions in the log about queries of a batch, by index; note whether others share an id."""
        index = self._predictions.index[batch.partition]
        if len(index.undecided(batch.ids)) == len(batch):
            return {}
        matches = index.decided([_asked(batch, query) for query in range(len(batch))])
        batch.shares_id = any(match is not None and not match.own for match in matches)
        return {query: match.logged for query, match in enumerate(matches) if match is not None and match.own}

    def _choices(self, batch: QueryBatch) -> tuple[Application | None, Choices]:
        application = self._stores.registry.applications.get(batch.application)
        if application is None:
            return None, {}
        contexts = {None, *(given.context for given in batch.options.values())} if batch.options else (None,)
        prepare, partition = self._stores.selection.prepare, batch.partition
        return application, {context: prepare(application, partition, context) for context in contexts}

    def _repeat(self, batch: QueryBatch, known: Mapping[int, LoggedRecord], now_s: float) -> int:
        """Finish queries that were answered before; return how many.

        The same record is acknowledged, once its audit is written; another one with the id is answered likewise.
        """
        again = [query for query in known if batch.states[query] == QueryState.KNOWN]
        for query in again:
            logged = known[query]
            if prediction_head(logged).query_offset != batch.offsets[query]:
                self._predictions.add([OutgoingRecords(batch, [query], [logged.value], logged.content_type)])
            elif not self._owes_audit(batch, query, logged, now_s):
                self.acknowledge(batch.partition, _finish(batch, [query]), batch.generation)
        return len(again)

    # --- outputs come -------------------------------------------------------------------------------------------------
    def gather(self, frames: Iterable[OutputFrame]) -> None:
        """Hand outputs to the waiting queries, a few hundred rows at a time."""
        for pieces in _pieces(frames):
            began_s = time.perf_counter()
            self.carry_out(self.router.gather(pieces, time.time()))
            took_s = time.perf_counter() - began_s
            self._metrics.histogram("clipper_stage_latency_seconds", "combine").observe(took_s)

    def note_return(self, took_s: float) -> None:
        self._metrics.histogram("clipper_stage_latency_seconds", "return").observe(took_s)
        self.router.return_s += (took_s - self.router.return_s) / MEMORY_CHUNKS

    def fail(self, request: Request, reason: str) -> None:
        rows = len(request.rows)
        piece = OutputPiece(request.frame, 0, [None] * rows, dict.fromkeys(range(rows), Failure("error", reason)))
        self.carry_out(self.router.gather([piece], time.time()))

    # --- time passes --------------------------------------------------------------------------------------------------
    async def expire(self) -> None:
        effects = self.router.expire(time.time())
        self._sender.forget(effects.forgotten)
        self.carry_out(effects)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _set_timer(self, due_s: float) -> None:
        if self._timer is not None and self._due_s <= due_s:
            return
        self.stop()
        self._due_s = due_s
        self._timer = asyncio.get_running_loop().call_later(max(0.0, due_s - time.time()), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._expiring = self._app.watched(self.expire())  # a task, so that a bug of ours is heard of

    # --- what there is to do ------------------------------------------------------------------------------------------
    def carry_out(self, effects: Effects) -> None:
        """Carry out all effects but `forgotten`, without waiting."""
        for partition, outputs in effects.outputs.items():
            self._stores.caches[partition].put_many(outputs)
        if effects.answers:
            self._send_answers(effects.answers)
        for audits in effects.audits:
            states, batch = audits.batch.states, audits.batch
            logged = QueryState.RECORDED, QueryState.KNOWN
            self._send_audits(batch, [entry for entry in audits.entries if states[batch.query_of(entry)] in logged])
        here = self._colocated.models
        for request in effects.requests:
            (self._colocated if request.ref in here else self._sender).put(request)
        if effects.queries:
            self._count(effects)
        if effects.deferred:
            self._deferred.put(effects.deferred)
        self._update_room(effects.is_full)
        if effects.next_deadline_s is not None:
            self._set_timer(effects.next_deadline_s)
        self._ask_again(effects)

    def _ask_again(self, effects: Effects) -> None:
        for batch, slots in effects.unsure:
            cache = self._stores.caches[batch.partition]
            for lookup in self.router.look_up(batch, slots, cache.entries):
                self.router.take_cached(lookup, cache.get_many(lookup.part.keys))
        if effects.unsure:
            self.carry_out(self.router.end_turn(time.time()))

    def _count(self, effects: Effects) -> None:
        metrics = self._metrics
        for application, queries in effects.queries.items():
            metrics.counter("clipper_queries_total", application or UNKNOWN_APPLICATION).inc(queries)
        for ref, lookups in effects.lookups.items():
            metrics.counter("clipper_cache_lookups_total", ref).inc(lookups)
            metrics.counter("clipper_cache_hits_total", ref).inc(effects.hits.get(ref, 0))
        if effects.coalesced:
            metrics.counter("clipper_coalesced_total").inc(effects.coalesced)

    def _send_answers(self, answers: Sequence[Answers]) -> None:
        outgoing = []
        for some in answers:
            written, values = encode_answers(some)
            outgoing.append(OutgoingRecords(some.batch, some.entries, values, some.batch.content_type, written))
        self._predictions.add(outgoing)

    def _send_audits(self, batch: QueryBatch, entries: Sequence[int]) -> None:
        for entry in entries:
            audit = Answers(batch, [entry], batch.noted_at_s[entry])
            self._audits.add([OutgoingRecords(batch, [entry], encode_audits(audit), batch.content_type, audit)])

    # --- it is in the log ---------------------------------------------------------------------------------------------
    def predicted(self, written: WrittenRound) -> None:
        """End queries whose predictions are in the log, and acknowledge all but those whose audit follows."""
        done: list[int] = []
        for outgoing in written.outgoing:
            done += self._end(outgoing, alone=written.alone)
        self.acknowledge(written.partition, done, written.generation)
        self.router.lead_s = min(MOST_LEAD_S, 2 * self._delivery_s)  # to the broker, and from there to be read
        self._delivery_s += (written.took_s - self._delivery_s) / MEMORY_ROUNDS
        if self._traces.is_on:
            self._traces.recorded(written.outgoing, written.offsets)
        answered = [outgoing.answers for outgoing in written.outgoing if outgoing.answers is not None]
        if answered:
            _count_answers(self._metrics, answered, written.took_s)

    def audited(self, written: WrittenRound) -> None:
        for outgoing in written.outgoing:
            batch, queries = outgoing.batch, outgoing.queries
            self.router.audits_recorded(batch, outgoing.entries)
            set_state(batch.states, [*outgoing.entries, *queries], QueryState.ACKNOWLEDGED)
            self.acknowledge(written.partition, [batch.offsets[query] for query in queries], written.generation)

    def _end(self, outgoing: OutgoingRecords, *, alone: bool) -> list[int]:
        """End queries whose predictions are in the log; return the offsets that are finished."""
        batch, queries, finished = outgoing.batch, outgoing.entries, list[int]()
        if outgoing.answers is None:
            return _finish(batch, queries)
        again = self.router.recorded(batch, queries)
        for query in queries:
            if query in batch.audit:
                noted = batch.states[batch.audit[query]] == QueryState.NOTED
                self._send_audits(batch, [batch.audit[query]] if noted else ())
            elif alone or not self._owes_another(batch, query):
                finished.append(query)
        done = _finish(batch, finished)
        if again:
            places = {batch.ids[query]: place for place, query in enumerate(queries)}
            for other, query in again:
                done += self._end_repetition(outgoing, places[other.ids[query]], other, query)
        return done

    def _end_repetition(self, outgoing: OutgoingRecords, place: int, other: QueryBatch, query: int) -> list[int]:
        """End a query that was read again while it was in flight; return its offset where it is finished."""
        if other.offsets[query] != outgoing.batch.offsets[outgoing.entries[place]]:
            self._predictions.add([OutgoingRecords(other, [query], [outgoing.values[place]], outgoing.content_type)])
            return []
        return [] if outgoing.entries[place] in outgoing.batch.audit else _finish(other, [query])

    def _owes_another(self, batch: QueryBatch, query: int) -> bool:
        """Return whether another process's prediction about the query came first and its audit is missing."""
        (match,) = self._predictions.index[batch.partition].decided([_asked(batch, query)])
        if match is None or not match.own or prediction_head(match.logged).query_offset != batch.offsets[query]:
            return False
        return self._owes_audit(batch, query, match.logged, time.time())

    def _owes_audit(self, batch: QueryBatch, query: int, logged: LoggedRecord, now_s: float) -> bool:
        """Return whether an answered query waits for its audit; send the audit if nobody else will."""
        if not logged.audited:
            return False
        if self.router.is_audited(batch.partition, batch.offsets[query]):
            return True
        key = audit_key(batch.ids[query], batch.offsets[query])
        (audit,) = self._audits.index[batch.partition].find([key])
        if audit is None:
            alone = batch.alone(query)
            application, choices = self._choices(alone)
            lost = self.router.lost_audit(alone, application, choices, {*named_models(logged)}, now_s)
            self._send_audits(alone, lost.entries)
        return audit is None


def _pieces(frames: Iterable[OutputFrame]) -> Iterator[list[OutputPiece]]:
    pieces, rows = list[OutputPiece](), 0
    for frame in frames:
        failures = {row.row: Failure(row.reason, row.explanation) for row in frame.failed}
        for start in range(0, len(frame.outputs), ROWS_GATHERED_TOGETHER):
            outputs = frame.outputs[start : start + ROWS_GATHERED_TOGETHER]
            pieces.append(OutputPiece(frame.frame, frame.row0 + start, outputs, failures))
            rows += len(outputs)
            if rows >= ROWS_GATHERED_TOGETHER:
                yield pieces
                pieces, rows = [], 0
    if pieces:
        yield pieces


def _asked(batch: QueryBatch, query: int) -> Asked:
    return batch.ids[query], batch.application, batch.queried_at_s[query] * 1000


def _finish(batch: QueryBatch, queries: Sequence[int]) -> list[int]:
    set_state(batch.states, queries, QueryState.ACKNOWLEDGED)
    return [batch.offsets[query] for query in queries]


def _count_answers(metrics: RouterMetrics, answered: Iterable[Answers], recorded_s: float) -> None:
    waited_s, took_s = list[float](), list[float]()
    latencies_s = defaultdict[tuple[str, str | None, float | None], list[float]](list)
    for batch, entries, decided_s, _, _, failures in answered:
        name, objective_s = UNKNOWN_APPLICATION, None
        if batch.is_registered:
            name, objective_s = batch.application, batch.manifest.objective_s
        queried_s = [batch.queried_at_s[query] for query in entries]
        asked_s = [decided_s] * len(entries)
        if batch.asked_at_s:
            asked_s = [decided_s if batch.decisions[query] is None else batch.asked_at_s for query in entries]
        waited_s += map(sub, asked_s, queried_s)
        took_s += [decided_s - at_s for at_s in asked_s]
        whole_s = [max(0.0, decided_s - at_s) for at_s in queried_s]
        if not failures:
            latencies_s[name, None, objective_s] += whole_s
            continue
        for query, latency_s in zip(entries, whole_s, strict=True):
            reason = failures[query].reason if query in failures else None
            latencies_s[name, reason, objective_s].append(latency_s)
    metrics.observe_stages(waited_s, took_s, recorded_s)
    for (name, reason, objective_s), found_s in latencies_s.items():
        metrics.observe_predictions(name, "default" if reason else "model", reason, found_s, objective_s)
