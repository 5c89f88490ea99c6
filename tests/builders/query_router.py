"""Applications, queries and a router in memory, for tests of routing."""

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from builders.cache_store import DictCache
from clipper_stream.caching.cache import version_digest
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query import (
    Application,
    CandidateModel,
    Effects,
    Failure,
    OptionalFields,
    OutputPiece,
    QueryBatch,
    Router,
    TrialModel,
)
from clipper_stream.query.batch import OPEN, PLAIN
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState

NOW_S = 1_000_000.0
"""When the tests begin, seconds since the epoch."""


class OutputCache(DictCache):
    """The cache of a partition, with outputs as JSON."""

    def get_many(self, keys):
        return [OPEN if value is None else json.loads(value) for value in map(self.values.get, keys)]

    def put_many(self, outputs):
        self.put({key: json.dumps(output).encode() for key, output in outputs})


def application(name="app", refs=("a:1",), policy="exp4", parameters=(), **changes):
    """An application of deterministic models over rows of one number, that answers within a second.

    `canaries` and `shadows` are shares by reference.
    """
    volatile = changes.pop("volatile", ())

    def candidate(ref):
        return CandidateModel(ref=ref, digest=version_digest(ref, None), deterministic=ref not in volatile)

    candidates = tuple(map(candidate, refs))
    changes["trials"] = tuple(
        TrialModel(candidate=candidate(ref), stage=stage, share=share)
        for stage, shares in (("canary", changes.pop("canaries", {})), ("shadow", changes.pop("shadows", {})))
        for ref, share in shares.items()
    )
    settings = dict(spec=RowSpec("float32", (1,)), objective_s=1.0, default_output="default")
    return Application(
        name=name, candidates=candidates, policy=make_policy(policy, dict(parameters)), **(settings | changes)
    )


class Query(NamedTuple):
    """A query as a test says it; of the fields see `QueryBatch` and `OptionalFields`."""

    query_id: str
    application: str
    rows: list
    queried_at_s: float
    partition: int = 0
    offset: int = 0
    generation: int = 0
    packed: bool = False
    context: str | None = None
    deadline_s: float | None = None
    models: list | None = None
    key: bytes | None = None
    content_type: str = "application/json"
    echoed: tuple = ()
    invalid: str | None = None
    features: list | None = None
    raw: bool = False

    @property
    def options(self):
        return OptionalFields(self.packed, self.context, self.models, self.features, self.invalid, self.raw)


def query(query_id, *values, **changes):
    settings = dict(application="app", rows=[[value] for value in values], packed=len(values) > 1, queried_at_s=NOW_S)
    return Query(query_id=query_id, **(settings | changes))


def batches_of(queries):
    """Batches of queries, as they are decoded: an id that comes again begins new ones, and a large query is alone."""
    batches, filling, ids = [], {}, set()
    for one in queries:
        if one.query_id in ids:
            filling, ids = {}, set()
        ids.add(one.query_id)
        key = one.application, one.partition, one.content_type, one.generation
        batch = None if one.raw else filling.get(key)
        if batch is None:
            batches.append(batch := QueryBatch(one.application, one.partition, one.generation, one.content_type))
            if not one.raw:
                filling[key] = batch
        index = len(batch)
        batch.extend([(one.query_id, one.offset, one.queried_at_s, one.key, one.rows)])
        if one.options != PLAIN:
            batch.options[index] = one.options
        if one.deadline_s is not None:
            batch.bounds_s[index] = one.deadline_s
        if one.echoed:
            batch.echoed[index] = one.echoed
    return batches


def query_at(batch, index):
    """A query of a batch, without its rows."""
    packed, context, models, features, invalid, raw = batch.options.get(index, PLAIN)
    return Query(
        batch.ids[index], batch.application, [], batch.queried_at_s[index], batch.partition, batch.offsets[index],
        batch.generation, packed, context, batch.bounds_s.get(index), models, batch.keys[index], batch.content_type,
        batch.echoed.get(index, ()), invalid, features, raw,
    )  # fmt: skip


def prepare(app, partition, context):
    """The choice of an application that has learned nothing."""
    return app.choice(SelectionState())


def make_caches(budget_bytes=1_000_000):
    """A cache of each partition."""
    return defaultdict(lambda: OutputCache(budget_bytes))


class ModelUse(NamedTuple):
    """What a model said, at least for one row."""

    ref: str
    propensity: float
    served: bool
    outputs: list
    latency_s: float
    cached: bool
    failures: dict


class MissingModel(NamedTuple):
    """A model that was asked and answered no row in time."""

    ref: str
    propensity: float
    served: bool
    failure: Failure


@dataclass
class Answer:
    """The answer to one query, or its audit, with what the models said.

    Attributes:
        batch: The query's.
        entry: Of the query, or of its audit, in the batch.
        outputs: One a row.
    """

    batch: QueryBatch
    entry: int
    query: Query
    outputs: list
    confidence: float
    failure: Failure | None
    served_propensity: float | None
    used: list
    missing: list

    @property
    def default(self):
        return self.failure is not None


def answers_of(some):
    """The answers to queries, or audits, of a batch one by one."""
    return [_answer_at(some, place) for place in range(len(some.entries))]


def _answer_at(some, place):
    batch, entry = some.batch, some.entries[place]
    is_query, decision = entry < len(batch), batch.decision_of(entry)
    asked, used, missing = query_at(batch, batch.query_of(entry) if not is_query else entry), [], []
    slots_of = zip(decision.models, decision.propensities, batch.slots_of(entry), strict=True) if decision else ()
    for ref, propensity, slots in slots_of:
        failures = {row: one for row, one in enumerate(batch.outputs[slots]) if isinstance(one, Failure)}
        if len(failures) == slots.stop - slots.start:
            missing.append(MissingModel(ref, propensity, ref in decision.served, failures[0]))
            continue
        outputs = [None if row in failures else one for row, one in enumerate(batch.outputs[slots])]
        arrived_s = max(batch.arrived_s[slots])
        latency_s = arrived_s - batch.asked_at_s if arrived_s else 0.0
        used.append(ModelUse(ref, propensity, ref in decision.served, outputs, latency_s, not arrived_s, failures))
    outputs = some.outputs[place] if is_query else []
    return Answer(
        batch, entry, asked, outputs if asked.packed or not is_query else [outputs],
        some.confidences[place] if is_query else 0.0, some.failures.get(entry),
        decision and decision.served_propensity, used, missing,
    )  # fmt: skip


@dataclass
class Seen:
    """Effects, with the answers one by one; all else as it is."""

    effects: Effects

    def __post_init__(self):
        self.answers = [one for some in self.effects.answers for one in answers_of(some)]
        self.audits = [one for some in self.effects.audits for one in answers_of(some)]
        self.deferred = [(query_at(batch, index), until_s) for batch, index, until_s in self.effects.deferred]

    def __getattr__(self, name):
        return getattr(self.effects, name)


class CalledRouter:
    """A router with the stores around it, that is called as a whole.

    Attributes:
        known: Applications by name.
        choice: Of an application, a partition and a context.
    """

    def __init__(self, known, choice=prepare, budget_bytes=1_000_000, **settings):
        vars(self).update(known=known, choice=choice, caches=make_caches(budget_bytes), router=Router(**settings))

    def receive(self, queries, now_s):
        """Decide about queries, or about batches of them, with none of them in the log."""
        for batch in queries if isinstance(queries[0], QueryBatch) else batches_of(queries):
            cache = self.caches[batch.partition]
            for lookup in self.router.decide(batch, (), *self.choices(batch), cache.entries, now_s):
                self.router.take_cached(lookup, cache.get_many(lookup.part.keys))
        return self._seen(self.router.end_turn(now_s), now_s)

    def choices(self, batch):
        app, contexts = self.known.get(batch.application), {None, *(one.context for one in batch.options.values())}
        return app, {context: self.choice(app, batch.partition, context) for context in contexts if app}

    def __getattr__(self, name):
        return getattr(self.router, name)

    def __setattr__(self, name, value):
        setattr(self.router, name, value)

    def lost_audit(self, query, answered, now_s):
        """The audit of a query whose prediction is in the log."""
        (batch,) = batches_of([query])
        (audit,) = answers_of(self.router.lost_audit(batch, *self.choices(batch), answered, now_s))
        return audit

    def is_audited(self, query):
        return self.router.is_audited(query.partition, query.offset)

    def gather(self, pieces, now_s):
        return self._seen(self.router.gather(pieces, now_s), now_s)

    def expire(self, now_s):
        return self._seen(self.router.expire(now_s), now_s)

    def end_turn(self, now_s):
        return self._seen(self.router.end_turn(now_s), now_s)

    @property
    def next_deadline_s(self):
        return self.router._deadlines.next_s

    def recorded(self, answer):
        """The queries that were read again meanwhile."""
        again = self.router.recorded(answer.batch, [answer.entry])
        return [query_at(batch, index) for batch, index in again]

    def audit_recorded(self, audit):
        self.router.audits_recorded(audit.batch, [audit.entry])

    def _seen(self, effects, now_s):
        for partition, outputs in effects.outputs.items():
            self.caches[partition].put_many(outputs)
        for batch, slots in effects.unsure:
            cache = self.caches[batch.partition]
            for lookup in self.router.look_up(batch, slots, cache.entries):
                self.router.take_cached(lookup, cache.get_many(lookup.part.keys))
        if effects.unsure:
            then = self.router.end_turn(now_s)
            effects.requests += then.requests
            effects.answers += then.answers
        return Seen(effects)


def make_router(*applications, known=None, **settings):
    """A router of these applications, with a cache a partition."""
    return CalledRouter({app.name: app for app in applications} if known is None else known, **settings)


def outputs_of(request, model, failed=None, rows=None):
    first, last = rows or (0, len(request.rows))
    failed = {row: Failure(*why) for row, why in (failed or {}).items()}
    outputs = [None if row in failed else model(float(request.rows[row][0])) for row in range(first, last)]
    return OutputPiece(request.frame, first, outputs, failed)
