"""From queries of one application to decisions: refuse what cannot be asked, convert inputs, choose models."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clipper_stream.errors import InvalidInput
from clipper_stream.inputs import Rows, to_matrix, to_rows
from clipper_stream.query_life import Event
from clipper_stream.routing.answer import Answer, refusal
from clipper_stream.routing.application import Application
from clipper_stream.routing.life import Life
from clipper_stream.routing.pending import THROUGHPUT_WAIT_S, Pending
from clipper_stream.routing.received import Received
from clipper_stream.selection.decision import Decision, Prepared, named
from clipper_stream.selection.rng import query_rng

Prepare = Callable[[Application, int, str | None], Prepared]
"""The policy's choice for (application, partition, context), from the totals known now."""


@dataclass(slots=True)
class Decided:
    """What became of queries: waiting for models, or answered at once."""

    pendings: list[Pending] = field(default_factory=list)
    refusals: list[Answer] = field(default_factory=list)


def refuse_unknown(name: str, lives: Iterable[Life], now_s: float) -> list[Answer]:
    """Answers to queries of an application that is not registered."""
    why = f"application {name!r} is not registered"
    return [_refused(life, None, "unknown_application", why, now_s) for life in lives]


class Deciding:
    """Decides about queries of one application, all at one time."""

    def __init__(self, application: Application, prepare: Prepare, now_s: float) -> None:
        self._application, self._prepare, self._now_s = application, prepare, now_s
        self._decided = Decided()

    def decide(self, lives: Iterable[Life]) -> Decided:
        """Decide about these queries."""
        asking = [life for life in lives if self._may_ask(life)]
        for life, rows in self._converted(asking):
            self._choose(life, rows)
        return self._decided

    def _may_ask(self, life: Life) -> bool:
        late_s = self._now_s - deadline_s(life.query, self._application, self._now_s)
        if life.query.invalid is not None:
            self._refuse(life, "invalid_input", life.query.invalid)
        elif not self._application.refs:
            self._refuse(life, "no_models", "no model of the application is deployed")
        elif late_s >= 0:
            why = f"read {round(late_s * 1000)} ms after its deadline; nobody was asked"
            self._refuse(life, "arrived_late", why, Event.ARRIVE_LATE)
        else:
            return True
        return False

    def _converted(self, lives: list[Life]) -> Iterable[tuple[Life, Any]]:
        """Inputs as rows: those of single-row queries together, those of packed ones each by itself."""
        single = [life for life in lives if not life.query.packed]
        rows = to_rows(self._application.spec, [life.query.rows[0] for life in single])
        for index, error in rows.failed.items():
            self._refuse(single[index], "invalid_input", str(error))
        good = [life for index, life in enumerate(single) if index not in rows.failed]
        yield from zip(good, _each(rows), strict=True)
        for life in lives:
            if life.query.packed:
                try:
                    yield life, to_matrix(self._application.spec, life.query.rows)
                except InvalidInput as error:
                    self._refuse(life, "invalid_input", str(error))

    def _choose(self, life: Life, rows: Any) -> None:
        application, query = self._application, life.query
        prepared = self._prepare(application, query.partition, query.context)
        if query.models is None:
            decision: Decision | None = prepared.select(query_rng(application.seed, query.query_id))
        else:
            decision = self._as_named(life, query.models)
        if decision is not None:
            life.move(Event.SELECT)
            due_s = deadline_s(query, application, self._now_s)
            self._decided.pendings.append(
                Pending(life, application, decision, prepared.weights, rows, deadline_s=due_s, now_s=self._now_s)
            )

    def _as_named(self, life: Life, models: list[str]) -> Decision | None:
        application = self._application
        refs = {model: application.named(model) for model in models}
        unknown = [model for model, ref in refs.items() if ref is None]
        if unknown:
            why = f"{unknown} are no candidates of {application.name!r}: {', '.join(application.refs)}"
            self._refuse(life, "unknown_model", why)
            return None
        return named(tuple(dict.fromkeys(ref for ref in refs.values() if ref is not None)))

    def _refuse(self, life: Life, reason: str, why: str, event: Event = Event.REFUSE) -> None:
        self._decided.refusals.append(_refused(life, self._application, reason, why, self._now_s, event))


def deadline_s(query: Received, application: Application, now_s: float) -> float:
    """By when to answer, seconds since the epoch.

    Within the objective, and the query's own bound, of the record's timestamp; a timestamp in the future counts as now,
    lest a client with a wrong clock holds up its partition. Without an objective, a while from now.
    """
    asked_at_s = min(query.queried_at_s, now_s)
    latest_s = now_s + THROUGHPUT_WAIT_S if application.objective_s is None else asked_at_s + application.objective_s
    return latest_s if query.deadline_s is None else min(latest_s, asked_at_s + query.deadline_s)


def _refused(
    life: Life, application: Application | None, reason: str, why: str, now_s: float, event: Event = Event.REFUSE
) -> Answer:
    life.move(event)
    life.move(Event.DEFAULT)
    return refusal(life, application, reason, why, now_s)


def _each(rows: Rows) -> Iterable[Any]:
    """Each row as a matrix, or list, of one row."""
    if isinstance(rows.good, np.ndarray):
        return (rows.good[index : index + 1] for index in range(len(rows.good)))
    return (row[np.newaxis] if isinstance(row, np.ndarray) else [row] for row in rows.good)
