"""From queries of one application to decisions: refuse what cannot be asked, convert inputs, choose models."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from clipper_stream.errors import InvalidInput, shown
from clipper_stream.query.admission import UNBOUNDED
from old_core.answer import QueryAnswer, refuse
from clipper_stream.query.application import Application
from old_core.in_flight import THROUGHPUT_WAIT_S, DecodedQuery, Failure, InFlightQuery, RowBlock
from clipper_stream.query.inputs import UndecodedRow, convert, to_matrix, to_rows
from old_core.query_block import BlockAnswers, DecodedBlock, QueryBlock
from clipper_stream.query.status import Status
from clipper_stream.selection.contextual import ContextualChoice
from clipper_stream.selection.distribution import ActionDistribution, Decision, forced_decision
from clipper_stream.selection.rng import first_numbers as first_draws
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.trials import PolicyChoice

Prepare = Callable[[Application, int, str | None], PolicyChoice]
"""The policy's choice for (application, partition, context), from the totals known now."""
NO_MODELS = Failure("no_models", "no model of the application is deployed")
OVERLOADED = Failure(
    "overloaded", "as many queries of the application wait for its models as may, beside those of other applications"
)
NEAR_S = 2.0
"""A deadline that is so near is not waited for in the log: what is read again then could not be answered in time."""
LARGEST_FEATURE = 1e6
"""In size: sums of products of millions of them stay exact enough."""
CONVERTED_TOGETHER = 128
"""So many queries at a time: enough to spread the cost of a conversion, and few enough that what was decoded
is still in the processor's cache, and is freed before the next ones are decoded."""
ROWS_TOGETHER = 512
"""So many rows of packed queries, likewise; of these several are decoded together."""


class Planner:
    """Decides about queries of one application, all at one time: `asked` wait for models, some with an audit.

    At most `room` queries may ask; the others are `deferred`, and those refused whose deadline is near. Counted in
    `behind`, by partition: those that have waited for longer than they may still wait. Of these, those are refused that
    have less than `trip_s` seconds left, in which no model answers.
    """

    def __init__(
        self,
        application: Application,
        prepare: Prepare,
        now_s: float,
        room: int = UNBOUNDED,
        behind: Counter[int] | None = None,
        trip_s: float = 0.0,
    ) -> None:
        self.application, self._prepare, self._now_s, self._room = application, prepare, now_s, room
        self._behind, self._trip_s = Counter[int]() if behind is None else behind, trip_s
        self._choices: dict[tuple[int, str | None], tuple[PolicyChoice, Decision | None, bool]] = {}
        self._input_features = application.input_features if application.spec.numeric else 0
        self._unconverted: list[InFlightQuery] = []
        self._unconverted_rows = 0
        self.asked: list[InFlightQuery] = []
        self.blocks: list[QueryBlock] = []
        self.block_refusals: list[BlockAnswers] = []
        self.audits: list[InFlightQuery] = []
        self.refusals: list[QueryAnswer] = []
        self.deferred: list[tuple[InFlightQuery, float]] = []
        """Each with the time until which it may be, seconds since the epoch."""
        self.count = 0

    def add(self, pending: InFlightQuery) -> None:
        """Decide about a query, now or together with the next ones; `finish` decides about the last."""
        self.count += 1
        if self._may_ask(pending):
            self._room -= 1
            if pending.query.raw:
                self._add_raw(pending)
                return
            self._unconverted.append(pending)
            self._unconverted_rows += pending.count
            if len(self._unconverted) == CONVERTED_TOGETHER or self._unconverted_rows >= ROWS_TOGETHER:
                self.finish()

    def add_together(self, queries: DecodedBlock) -> list[QueryBlock]:
        """Decide about queries together; none, and about none of them, where one needs to be looked at by itself."""
        now_s = self._now_s
        deadlines_s = block_deadlines_s(queries, self.application, now_s)
        late = self._too_late(deadlines_s, queries.queried_at_s)
        asked, refused = list[QueryBlock](), list[BlockAnswers]()
        if late:
            if not self.application.answers:
                return []
            in_time = sorted({*range(len(queries))}.difference(late))
            refused.append(self._refused_late(queries.at(late), [deadlines_s[index] for index in late]))
            chosen, chosen_s = queries.at(in_time), [deadlines_s[index] for index in in_time]
        else:
            chosen, chosen_s = queries, deadlines_s
        if len(chosen):
            block = self._asked_together(chosen, chosen_s)
            if block is None:
                return []
            asked.append(block)
        self._room -= len(chosen)
        self.count += len(queries)
        self._count_behind(queries, deadlines_s)
        self.blocks += asked
        self.block_refusals += refused
        return [*asked, *(answers.block for answers in refused)]

    def _refused_late(self, queries: DecodedBlock, deadlines_s: list[float]) -> BlockAnswers:
        """The default for queries that are past their deadline; their rows are forgotten."""
        now_s, application = self._now_s, self.application
        block = QueryBlock(queries, application, [], {}, RowBlock([]), deadlines_s, 0.0)
        block.refuse()
        ages = zip(deadlines_s, queries.queried_at_s, strict=True)
        refusals = [Failure("arrived_late", _why_late(due_s, at_s, now_s)) for due_s, at_s in ages]
        return BlockAnswers(block, range(len(queries)), now_s, refusals=refusals)

    def _asked_together(self, queries: DecodedBlock, deadlines_s: list[float]) -> QueryBlock | None:
        application, count = self.application, len(queries)
        choice, certain, looks = self._choice(queries.partition, None)
        if looks or self._room < count or not (isinstance(choice, ActionDistribution) and choice.asks_alike):
            return None
        try:
            rows = RowBlock(convert(application.spec, queries.rows))
        except InvalidInput:
            return None
        if certain is not None:
            decisions = [certain] * count
        else:
            decisions = choice.select_each(first_draws(application.seed, queries.query_ids))
        queries.rows.clear()
        return QueryBlock(queries, application, decisions, choice.weights, rows, deadlines_s, self._now_s)

    def _too_late(self, deadlines_s: Sequence[float], queried_at_s: Sequence[float]) -> list[int]:
        """The indices of those whose deadline has come, or comes before any model answers."""
        now_s, trip_s = self._now_s, self._trip_s
        if min(deadlines_s) - now_s > trip_s:
            return []
        asked = enumerate(zip(deadlines_s, queried_at_s, strict=True))
        return [index for index, (due_s, at_s) in asked if due_s <= now_s or due_s - now_s < min(trip_s, now_s - at_s)]

    def _count_behind(self, queries: DecodedBlock, deadlines_s: list[float]) -> None:
        """Count the queries with a deadline that have waited for longer than they may still wait."""
        own_s, now_s = queries.deadlines_s, self._now_s
        if self.application.objective_s is None and own_s is None:
            return
        objective_s = self.application.objective_s
        bounds_s = own_s if objective_s is None and own_s is not None else repeat(objective_s)
        asked = zip(deadlines_s, queries.queried_at_s, bounds_s, strict=False)
        behind = sum(due_s - now_s < now_s - at_s for due_s, at_s, bound_s in asked if bound_s is not None)
        if behind:
            self._behind[queries.partition] += behind

    def finish(self) -> None:
        """Decide about all queries that were added."""
        if self._unconverted:
            pendings, self._unconverted, self._unconverted_rows = self._unconverted, [], 0
            for pending, block, first in self._converted(pendings):
                self._choose(pending, block, first)

    def _add_raw(self, pending: InFlightQuery) -> None:
        """Decode and convert a large query by itself, so that no two are objects at the same time."""
        self.finish()
        try:
            pending.query.rows[:] = decoded_rows(pending.query, self.application)
        except InvalidInput as error:
            self._refuse(pending, Failure("invalid_input", str(error)))
        else:
            self._unconverted.append(pending)
            self.finish()

    def _may_ask(self, pending: InFlightQuery) -> bool:
        query, now_s = pending.query, self._now_s
        pending.deadline_s = due_s = deadline_s(query, self.application, now_s)
        answers = self.application.answers
        if due_s - now_s < now_s - query.queried_at_s and self._has_deadline(query):
            self._behind[query.partition] += 1
        if query.invalid is None and answers and not self._too_late([due_s], [query.queried_at_s]):
            if self._room > 0:
                return True
            deferred_until_s = self._deferred_until_s(pending)
            if deferred_until_s > now_s:
                self.count -= 1
                pending.move(Status.DEFERRED)
                self.deferred.append((pending, deferred_until_s))
            else:
                self._refuse(pending, OVERLOADED)
            return False
        if query.invalid is not None:
            self._refuse(pending, Failure("invalid_input", query.invalid))
        elif not answers:
            self._refuse(pending, NO_MODELS)
        else:
            why = _why_late(due_s, query.queried_at_s, now_s)
            self._refuse(pending, Failure("arrived_late", why))
        return False

    def _deferred_until_s(self, pending: InFlightQuery) -> float:
        return pending.deadline_s - NEAR_S if self._has_deadline(pending.query) else math.inf

    def _has_deadline(self, query: DecodedQuery) -> bool:
        return query.deadline_s is not None or self.application.objective_s is not None

    def _converted(self, pendings: list[InFlightQuery]) -> Iterable[tuple[InFlightQuery, RowBlock, int]]:
        """Each query with its block and its first row in it: one block for all rows, when they fit together."""
        try:
            rows = convert(self.application.spec, [row for pending in pendings for row in pending.query.rows])
        except InvalidInput:
            yield from self._converted_apart(pendings)
            return
        block, first = RowBlock(rows), 0
        for pending in pendings:
            pending.query.rows.clear()
            yield pending, block, first
            first += pending.count

    def _converted_apart(self, pendings: list[InFlightQuery]) -> Iterable[tuple[InFlightQuery, RowBlock, int]]:
        """The same, with one block for all single-row queries and one for each packed query."""
        spec = self.application.spec
        single = [pending for pending in pendings if not pending.query.packed]
        rows = to_rows(spec, [pending.query.rows[0] for pending in single])
        for index, error in rows.failed.items():
            self._refuse(single[index], Failure("invalid_input", str(error)))
        block = RowBlock(rows.good)
        good = [pending for index, pending in enumerate(single) if index not in rows.failed]
        for index, pending in enumerate(good):
            pending.query.rows.clear()
            yield pending, block, index
        for pending in pendings:
            if pending.query.packed:
                try:
                    block = RowBlock(to_matrix(spec, pending.query.rows))
                except InvalidInput as error:
                    self._refuse(pending, Failure("invalid_input", str(error)))
                else:
                    pending.query.rows.clear()
                    yield pending, block, 0

    def _choose(self, pending: InFlightQuery, block: RowBlock, first: int) -> None:
        application, query = self.application, pending.query
        prepared, certain, looks = self._choice(query.partition, query.context)
        if looks:
            prepared = self._given_features(pending, prepared, block, first)
            certain = prepared.certain
        if query.models is not None:
            decision = self._forced_decision(pending, query.models)
            if decision is None:
                return
        elif certain is not None:
            decision = certain
        else:
            decision = prepared.select(query_rng(application.seed, query.query_id))
        served = decision.served
        if not served:
            self._refuse(pending, NO_MODELS)
            return
        if len(decision.models) != len(served):
            decision, besides = decision.split()
            audit = pending.spawn_audit()
            audit.ask(application, besides, prepared.weights, block, first, self._now_s)
            self.audits.append(audit)
        pending.ask(application, decision, prepared.weights, block, first, self._now_s)
        self.asked.append(pending)

    def _choice(self, partition: int, context: str | None) -> tuple[PolicyChoice, Decision | None, bool]:
        """The policy's choice, its decision where there is only one, and whether it depends on a query's features."""
        found = self._choices.get((partition, context))
        if found is None:
            choice = self._prepare(self.application, partition, context)
            looks = isinstance(choice, ContextualChoice) or self._input_features > 0
            found = self._choices[partition, context] = choice, choice.certain, looks
        return found

    def _given_features(
        self, pending: InFlightQuery, choice: PolicyChoice, block: RowBlock, first: int
    ) -> PolicyChoice:
        """The choice for the query's features, which are logged even if the policy ignores them."""
        if self._input_features and pending.features is None and not pending.query.packed:
            pending.features = first_numbers(block.rows[first], self._input_features)
        return choice.given(pending.features or ()) if isinstance(choice, ContextualChoice) else choice

    def _forced_decision(self, pending: InFlightQuery, models: list[str]) -> Decision | None:
        """The decision of a query that names its models; None, and the query refused, when one is unknown."""
        application = self.application
        refs = {model: application.candidate_ref(model) for model in models}
        unknown = [model for model, ref in refs.items() if ref is None]
        if unknown:
            why = f"{shown(unknown)} are no candidates of {application.name!r}: {', '.join(application.refs)}"
            self._refuse(pending, Failure("unknown_model", why))
            return None
        return forced_decision(tuple(dict.fromkeys(ref for ref in refs.values() if ref is not None)))

    def _refuse(self, pending: InFlightQuery, failure: Failure) -> None:
        self.refusals.append(refuse(pending, self.application, failure, self._now_s))


def _why_late(due_s: float, queried_at_s: float, now_s: float) -> str:
    late_ms, age_ms = round((now_s - due_s) * 1000), round((now_s - queried_at_s) * 1000)
    when = f"{late_ms} ms after" if due_s <= now_s else f"{-late_ms} ms, too little for any model, before"
    return f"read {when} its deadline, {age_ms} ms after its timestamp; nobody was asked"


def audited_models(query: DecodedQuery, application: Application, choice: PolicyChoice) -> dict[str, float]:
    """Propensity of each model that a query asks for the log only, as the decision is made now."""
    if query.models is not None:
        return {}
    if isinstance(choice, ContextualChoice):
        choice = choice.given(_features(query, application) or ())
    besides = choice.select(query_rng(application.seed, query.query_id)).split()[1]
    return dict(zip(besides.models, besides.propensities, strict=True))


def decoded_rows(query: DecodedQuery, application: Application) -> list[Any]:
    """The rows of a query, also of a large one.

    Raises:
        InvalidInput: a row of a large one is none of the application's.
    """
    raw: list[UndecodedRow] = query.rows
    return [row.decode(application.spec) for row in raw] if query.raw else query.rows


def first_numbers(row: Any, count: int) -> list[float] | None:
    """The features that a converted row of numbers has; None when one of them is too large to be a feature."""
    numbers = [float(number) for number in np.ravel(row)[:count].tolist()]
    return numbers if all(abs(number) <= LARGEST_FEATURE for number in numbers) else None


def _features(query: DecodedQuery, application: Application) -> list[float] | None:
    """The features of a query whose rows are not converted."""
    if query.features is not None or query.packed or not (application.input_features and application.spec.numeric):
        return query.features
    try:
        rows = to_rows(application.spec, decoded_rows(query, application)).good
    except InvalidInput:
        return None
    return first_numbers(rows[0], application.input_features) if len(rows) else None


def deadline_s(query: DecodedQuery, application: Application, now_s: float) -> float:
    """The time at which to answer, seconds since the epoch.

    Within the objective, and the query's own bound, of the record's timestamp; a timestamp in the future counts as now,
    lest a client with a wrong clock holds up its partition. Without an objective, a while from now.
    """
    asked_at_s, objective_s = query.queried_at_s, application.objective_s
    asked_at_s = min(asked_at_s, now_s)
    latest_s = now_s + THROUGHPUT_WAIT_S if objective_s is None else asked_at_s + objective_s
    return latest_s if query.deadline_s is None else min(latest_s, asked_at_s + query.deadline_s)


def block_deadlines_s(queries: DecodedBlock, application: Application, now_s: float) -> list[float]:
    """The time at which to answer each query, as `deadline_s`."""
    objective_s, own_s = application.objective_s, queries.deadlines_s
    asked_s = [min(at_s, now_s) for at_s in queries.queried_at_s]
    if objective_s is None:
        latest_s = [now_s + THROUGHPUT_WAIT_S] * len(queries)
    else:
        latest_s = [at_s + objective_s for at_s in asked_s]
    if own_s is None:
        return latest_s
    bounds = zip(latest_s, asked_s, own_s, strict=True)
    return [due_s if bound_s is None else min(due_s, at_s + bound_s) for due_s, at_s, bound_s in bounds]
