"""From queries of a batch to decisions: refuse what cannot be asked, convert inputs, choose models.

Rules of this file:
- Pure: the caller gives the choices of the policy, by context, and how much room there is.
- A step looks at all queries together, and one by one only where a look at all of them says that one is unusual.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipper_stream.errors import InvalidInput, shown
from clipper_stream.query.application import Application
from clipper_stream.query.batch import PLAIN, Failure, QueryBatch
from clipper_stream.query.inputs import convert, to_matrix, to_rows
from clipper_stream.selection.contextual import ContextualChoice
from clipper_stream.selection.distribution import ActionDistribution, Decision, forced_decision
from clipper_stream.selection.rng import first_numbers as first_draws
from clipper_stream.selection.rng import query_rng
from clipper_stream.selection.trials import PolicyChoice

Choices = Mapping[str | None, PolicyChoice]
"""The policy's choice by context, from the totals known now."""
THROUGHPUT_WAIT_S = 60.0
"""How long a query without a deadline waits for a model: long for any batch, and short enough to bound memory."""
NO_MODELS = Failure("no_models", "no model of the application is deployed")
OVERLOADED = Failure(
    "overloaded", "as many queries of the application wait for its models as may, beside those of other applications"
)
NEAR_S = 2.0
"""A deadline that is so near is not waited for in the log: what is read again then could not be answered in time."""
LARGEST_FEATURE = 1e6
"""In size: sums of products of millions of them stay exact enough."""


@dataclass(slots=True)
class QueryPlanner:
    """Decides about the new queries of one batch; those that ask have open slots then.

    Attributes:
        batch: The queries.
        application: Theirs.
        choices: Of every context of the queries.
        room: How many may ask; the others are deferred, and those refused whose deadline is near.
        now_s: The time, seconds since the epoch.
        trip_s: Of a query that was read late: with less than this left no model answers, so none is asked.
        asked: Those that wait for models now.
        refused: Those that get the default at once, and why.
        deferred: Those for which there is no room, each with the time until which it may be, seconds since the epoch.
        behind: How many with a deadline have waited for longer than they may still wait.
    """

    batch: QueryBatch
    application: Application
    choices: Choices
    room: int
    now_s: float
    trip_s: float = 0.0
    asked: Sequence[int] = ()
    refused: dict[int, Failure] = field(default_factory=dict)
    deferred: dict[int, float] = field(default_factory=dict)
    behind: int = 0

    def decide(self) -> None:
        batch, application, now_s = self.batch, self.application, self.now_s
        batch.due_s = due_times_s(batch, application, now_s)
        asked, left_s = batch.new, min(batch.due_s) - now_s
        if left_s < now_s - min(batch.queried_at_s):
            self.behind = self._count_behind()
        if left_s <= self.trip_s or batch.options or not application.answers or self.room < len(asked):
            asked = self._refuse()
        if asked:
            asked = self._convert(asked)
        if asked:
            asked = self._choose(asked)
        if not asked:
            batch.rows = []
        self.asked = asked

    # --- who is asked at all --------------------------------------------------------------------------------------
    def _has_deadline(self, query: int) -> bool:
        return self.application.objective_s is not None or query in self.batch.bounds_s

    def _count_behind(self) -> int:
        due_s, at_s, now_s = self.batch.due_s, self.batch.queried_at_s, self.now_s
        return len([n for n in self.batch.new if due_s[n] - now_s < now_s - at_s[n] and self._has_deadline(n)])

    def _refuse(self) -> Sequence[int]:
        new, due_s = self.batch.new, self.batch.due_s
        self.refused = failures = self._failures()
        left = [query for query in new if query not in failures] if failures else new
        for query in left[self.room :]:
            until_s = due_s[query] - NEAR_S if self._has_deadline(query) else math.inf
            if until_s > self.now_s:
                self.deferred[query] = until_s
            else:
                failures[query] = OVERLOADED
        return left[: self.room]

    def _failures(self) -> dict[int, Failure]:
        batch, now_s, trip_s = self.batch, self.now_s, self.trip_s
        new, due_s, at_s, options = batch.new, batch.due_s, batch.queried_at_s, batch.options
        if self.application.answers:
            failures = {
                query: Failure("arrived_late", _why_late(due_s[query], at_s[query], now_s))
                for query in new
                if due_s[query] <= now_s or due_s[query] - now_s < min(trip_s, now_s - at_s[query])
            }
        else:
            failures = dict.fromkeys(new, NO_MODELS)
        for query in options and new:
            invalid = options.get(query, PLAIN).invalid
            if invalid is not None:
                failures[query] = Failure("invalid_input", invalid)
        return failures

    # --- inputs ---------------------------------------------------------------------------------------------------
    def _convert(self, asked: Sequence[int]) -> Sequence[int]:
        """Convert the rows of the queries that ask, together if they fit together; the rows of others are forgotten."""
        batch, spec = self.batch, self.application.spec
        rows, start = batch.rows, batch.row_start
        batch.first_row = start
        if batch.options.get(0, PLAIN).raw:  # so large that it is alone, and no two are objects at the same time
            try:
                rows = [row.decode(spec) for row in rows]
            except InvalidInput as error:
                self.refused[0] = Failure("invalid_input", str(error))
                return ()
        elif len(asked) < len(batch):
            rows = [rows[row] for query in asked for row in range(start[query], start[query + 1])]
            self._place(asked)
        try:
            batch.rows = convert(spec, rows)
        except InvalidInput:
            batch.rows, asked = self._converted_apart(asked, rows)
            self._place(asked)
        return asked

    def _place(self, asked: Sequence[int]) -> None:
        first_row, place = [0] * len(self.batch), 0
        for query in asked:
            first_row[query] = place
            place += self.batch.count(query)
        self.batch.first_row = first_row

    def _converted_apart(self, asked: Sequence[int], rows: list[Any]) -> tuple[Any, list[int]]:
        """The rows and the queries of those that fit: a row that does not costs its own query only."""
        batch, spec = self.batch, self.application.spec
        packed = {query for query in asked if batch.options.get(query, PLAIN).packed}
        alone = [query for query in asked if query not in packed]
        found = to_rows(spec, [rows[batch.first_row[query]] for query in alone])
        failed = {alone[place]: error for place, error in found.failed.items()}
        good, converted, fit = iter(found.good), list[Any](), list[int]()
        for query in asked:
            try:
                if query in packed:
                    first = batch.first_row[query]
                    converted.extend(to_matrix(spec, rows[first : first + batch.count(query)]))
                elif query in failed:
                    raise failed[query]
                else:
                    converted.append(next(good))
            except InvalidInput as error:
                self.refused[query] = Failure("invalid_input", str(error))
            else:
                fit.append(query)
        return np.stack(converted) if converted and spec.numeric and spec.shape is not None else converted, fit

    # --- choices --------------------------------------------------------------------------------------------------
    def _choose(self, asked: Sequence[int]) -> Sequence[int]:
        batch, application, choice = self.batch, self.application, self.choices[None]
        if application.policy.asks_again:
            batch.second_choices = self.choices
        count, looks = len(batch), bool(application.input_features) and application.spec.numeric
        decisions: list[Decision | None]
        if batch.options or looks or isinstance(choice, ContextualChoice):
            decisions, weights = self._chosen_each(asked, looks=looks)
        else:
            weights, certain = [choice.weights] * count, choice.certain
            decisions = [certain] * count if certain is not None else self._drawn(choice, asked)
            if len(asked) < count:
                own = {*asked}
                decisions = [one if query in own else None for query, one in enumerate(decisions)]
        audits = self._split(decisions, asked)
        if self.refused:
            asked = [query for query in asked if decisions[query] is not None]
        if asked:
            batch.ask(decisions, weights, audits, asked, self.now_s)
        return asked

    def _drawn(self, choice: PolicyChoice, asked: Sequence[int]) -> list[Decision | None]:
        seed, ids = self.application.seed, self.batch.ids
        if isinstance(choice, ActionDistribution):
            return [*choice.select_each(first_draws(seed, ids))]
        known: dict[Decision, Decision] = {}
        decisions: list[Decision | None] = [None] * len(ids)
        for query in asked:
            drawn = choice.select(query_rng(seed, ids[query]))
            decisions[query] = known.setdefault(drawn, drawn)
        return decisions

    def _chosen_each(
        self, asked: Sequence[int], *, looks: bool
    ) -> tuple[list[Decision | None], list[Mapping[str, float]]]:
        """Decide by each query's context, features and the models that it names."""
        batch, application = self.batch, self.application
        decisions: list[Decision | None] = [None] * len(batch)
        weights: list[Mapping[str, float]] = [{}] * len(batch)
        certain: dict[int, Decision | None] = {}
        for query in asked:
            models = batch.options.get(query, PLAIN).models
            row = batch.rows[batch.first_row[query]] if looks else None
            choice, features = choice_of(batch, query, self.choices, row, application)
            if features:
                batch.features[query] = features
            weights[query] = choice.weights
            if models is not None:
                decisions[query] = self._named(models, query)
                continue
            if id(choice) not in certain:
                certain[id(choice)] = choice.certain
            decisions[query] = certain[id(choice)] or choice.select(query_rng(application.seed, batch.ids[query]))
        return decisions, weights

    def _named(self, models: list[str], query: int) -> Decision | None:
        """The decision of a query that names its models; None, and the query refused, when one is unknown."""
        application = self.application
        refs = {model: application.candidate_ref(model) for model in models}
        unknown = [model for model, ref in refs.items() if ref is None]
        if unknown:
            why = f"{shown(unknown)} are no candidates of {application.name!r}: {', '.join(application.refs)}"
            self.refused[query] = Failure("unknown_model", why)
            return None
        return forced_decision(tuple(dict.fromkeys(ref for ref in refs.values() if ref is not None)))

    def _split(self, decisions: list[Decision | None], asked: Sequence[int]) -> dict[int, Decision]:
        """Leave in each decision whom it serves, and return what is asked for the log only, by query."""
        audits: dict[int, Decision] = {}
        different = {id(one): one for one in decisions if one is not None}
        unusual = {key for key, one in different.items() if not one.served or len(one.models) != len(one.served)}
        parts = {key: different[key].split() for key in unusual if different[key].served}
        for query in asked if unusual else ():
            key = id(decisions[query])
            if key in parts:
                decisions[query], audits[query] = parts[key]
            elif key in unusual:
                self.refused[query], decisions[query] = NO_MODELS, None
        return audits


def due_times_s(batch: QueryBatch, application: Application, now_s: float) -> list[float]:
    """When to answer each query, seconds since the epoch.

    Within the objective, and the query's own bound, of the record's timestamp; a timestamp in the future counts as now,
    lest a client with a wrong clock holds up its partition. Without an objective, a while from now.
    """
    objective_s = application.objective_s
    if objective_s is None:
        due_s = [now_s + THROUGHPUT_WAIT_S] * len(batch)
    else:
        due_s = [min(at_s, now_s) + objective_s for at_s in batch.queried_at_s]
    for query, bound_s in batch.bounds_s.items():
        due_s[query] = min(due_s[query], min(batch.queried_at_s[query], now_s) + bound_s)
    return due_s


def _why_late(due_s: float, queried_at_s: float, now_s: float) -> str:
    late_ms, age_ms = round((now_s - due_s) * 1000), round((now_s - queried_at_s) * 1000)
    when = f"{late_ms} ms after" if due_s <= now_s else f"{-late_ms} ms, too little for any model, before"
    return f"read {when} its deadline, {age_ms} ms after its timestamp; nobody was asked"


def first_numbers(row: Any, count: int) -> list[float] | None:
    """The features that a converted row of numbers has; None when one of them is too large to be a feature."""
    numbers = [float(number) for number in np.ravel(row)[:count].tolist()]
    return numbers if all(abs(number) <= LARGEST_FEATURE for number in numbers) else None


def choice_of(
    batch: QueryBatch, query: int, choices: Choices, row: Any, application: Application
) -> tuple[PolicyChoice, list[float] | None]:
    """The policy's choice for a query and the features that it goes by; `row` is converted, None where it has none."""
    options = batch.options.get(query, PLAIN)
    choice, features = choices[options.context], batch.features.get(query, options.features)
    if features is None and row is not None and not options.packed:
        features = first_numbers(row, application.input_features)
    chosen_by = () if application.policy.asks_again else features or ()
    return choice.given(chosen_by) if isinstance(choice, ContextualChoice) else choice, features


def decide_again(batch: QueryBatch, queries: Sequence[int]) -> dict[int, Decision]:
    """Decide by the confidence of the models that have answered; the decisions of queries that ask one more.

    The confidence is the query's feature then; a model that failed, or gives none, counts as one with confidence 0.
    """
    again: dict[int, Decision] = {}
    for query in queries:
        options = batch.options.get(query, PLAIN)
        choice = batch.second_choices[options.context]
        if options.models is None and isinstance(choice, ContextualChoice):
            confidence = batch.confidence_of(batch.slots_of(query)[0]) or 0.0
            decision = choice.given((confidence,)).select(query_rng(batch.manifest.seed, batch.ids[query]))
            batch.decisions[query], batch.features[query] = decision, [confidence]
            if len(decision.models) > 1:
                again[query] = decision
    return again


def audited_models(batch: QueryBatch, application: Application, choices: Choices) -> dict[str, float]:
    """Propensity of each model that the one query of a batch asks for the log only, as the decision is made now."""
    options, spec, row = batch.options.get(0, PLAIN), application.spec, None
    if options.models is not None:
        return {}
    if application.input_features and spec.numeric and batch.rows:
        with suppress(InvalidInput):
            row = convert(spec, [batch.rows[0].decode(spec) if options.raw else batch.rows[0]])[0]
    choice, _ = choice_of(batch, 0, choices, row, application)
    besides = choice.select(query_rng(application.seed, batch.ids[0])).split()[1]
    return dict(zip(besides.models, besides.propensities, strict=True))
