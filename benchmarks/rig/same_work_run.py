"""One run of a contender that does the same work: dedupe, Exp3, cache, deadline, decision log and feedback.

Rules of this file:
- A fifth of the queries is answered before anything is measured; it is written before the system starts, so that some
  of it is past its deadline. What is measured are the others, mixed with feedback for that fifth, some of it twice;
  half of their rows came before, and some ids are repeated.
- A repeat is answered by the record of its first answer, so that the number of records is known in advance.
- Feedback counts exactly once where the propensity of a last query is what Exp3 makes of the log.
"""

import itertools
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rig.backlog import APPLICATION, PARTITIONS, Ends, Shape
from rig.contenders import IN_A_HURRY, Contender
from rig.flood import TopicRecord, produce
from rig.predictions import DecisionFields, decisions
from rig.processes import frozen
from rig.systems import Place
from rig.tasks import Task
from rig.throughput_run import Command, Span, last_words, outcome, started
from rivals.same_work import DEFAULT_OUTPUT, ETA, EXPLORATION, propensities

from clipper_stream.selection.policies.exp3 import Exp3
from clipper_stream.selection.state import SelectionState
from clipper_topics.catalogue import Catalogue

EARLIER = 5
"""One in so many queries is answered before."""
REPEATED, TWICE, OVERDUE = 20, 10, 50
"""One in so many: earlier ids asked again, feedbacks sent twice, earlier queries that are past their deadline."""
LOOK_S = 0.5
PRECISION = 1e-6
"""Of a propensity: the order of a sum is not the same in all systems."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Queries and feedback, and what is right.

    Attributes:
        earlier: Queries that are answered before.
        later: The others, repeats and feedback.
        records: Predictions that stand in the log at the end, by query id.
        labels: Of each model for each query in time, by query id.
        truths: What feedback says about the earlier queries, by query id.
    """

    earlier: list[TopicRecord]
    later: list[TopicRecord]
    records: Counter[str]
    labels: Mapping[str, Mapping[str, int]]
    truths: Mapping[str, int]


def make_workload(catalogue: Catalogue, count: int, shape: Shape) -> Workload:
    """A workload of so many queries; the seed is fixed."""
    rng, task = np.random.default_rng(13), shape.task
    first = count // EARLIER
    rows = task.rows(rng, count)
    known = np.arange(first, count)[rng.random(count - first) < shape.repeat_ratio]
    rows[known] = rows[rng.integers(0, first // PARTITIONS, len(known)) * PARTITIONS + known % PARTITIONS]
    ids = [_query_id(index) for index in range(count)]
    labels = dict(zip(ids, _labels(task, rows), strict=True))
    best = next(iter(task.models))
    overdue = {*ids[:first:OVERDUE]}
    queries = [
        _query(catalogue, shape, query_id, row, IN_A_HURRY if query_id in overdue else APPLICATION)
        for query_id, row in zip(ids, rows, strict=True)
    ]
    truths = {query_id: labels[query_id][best] for query_id in ids[:first] if query_id not in overdue}
    others = [*_feedback(catalogue, truths), *queries[:first:REPEATED]]
    return Workload(
        earlier=queries[:first],
        later=[*_mixed(queries[first:], [others[index] for index in rng.permutation(len(others))])],
        records=Counter(ids) + Counter(ids[:first:REPEATED]),
        labels={query_id: labels[query_id] for query_id in ids if query_id not in overdue},
        truths=truths,
    )


def _query_id(index: int) -> str:
    return f"{index % PARTITIONS}-00c1a55e{index:08x}"


def _labels(task: Task, rows: NDArray[np.float64]) -> list[dict[str, int]]:
    by_model = [task.labels(rows, model).tolist() for model in task.models]
    return [dict(zip(task.models, labels, strict=True)) for labels in zip(*by_model, strict=True)]


def _query(
    catalogue: Catalogue, shape: Shape, query_id: str, row: NDArray[np.float64], application: str = APPLICATION
) -> TopicRecord:
    value = shape.encode(query_id, row[None], application)
    return TopicRecord(catalogue.queries, _partition(query_id), query_id, value, shape.headers)


def _partition(query_id: str) -> int:
    return int(query_id.partition("-")[0])


def _feedback(catalogue: Catalogue, truths: Mapping[str, int]) -> Iterator[TopicRecord]:
    for number, (query_id, label) in enumerate(truths.items()):
        value = msgspec.json.encode({"query_id": query_id, "label": label})
        for _ in range(2 if number % TWICE == 0 else 1):
            yield TopicRecord(catalogue.feedback, _partition(query_id), query_id, value)


def _mixed(queries: list[TopicRecord], others: list[TopicRecord]) -> Iterator[TopicRecord]:
    """The queries, and the others evenly between them."""
    sent = 0
    for number, query in enumerate(queries, 1):
        yield query
        while sent < len(others) and sent * len(queries) < number * len(others):
            yield others[sent]
            sent += 1


def same_work_done(
    contender: Contender, place: Place, broker: list[int], records: int, ends: Ends, command: Command, limit_s: float
) -> dict[str, Any]:
    """Figures of the later queries, and whether all of the work was done."""
    workload = make_workload(place.catalogue, records, contender.shape)
    produce(place.connection, workload.earlier)
    first, expected = len(workload.earlier), workload.records.total()
    with started(*command, place) as process:
        before = Span(process, broker, place.cpus, 0, ends.predictions)
        before.watch(first, limit_s)
        with frozen(process.pid):  # or much would be answered before all is written
            produce(place.connection, workload.later)
        span = Span(process, broker, place.cpus, contender.reads_ahead, lambda: ends.predictions() - first)
        span.note = before.note
        span.watch(expected - first, limit_s)
        checked = _checked(contender, place, workload, 0.0 if span.note else limit_s)
    if span.note.startswith("ended"):
        span.note += f": {last_words(place)}"
    return {**outcome(contender, span, 1, checked), "whole_cpu_us": None}  # the earlier queries are in it


def _checked(contender: Contender, place: Place, workload: Workload, limit_s: float) -> dict[str, Any]:
    """What stands in the log, looked at until it is complete: commits, and the last feedback, come a little later."""
    give_up_s = time.monotonic() + limit_s
    for number in itertools.count():
        last = last_queries(place.catalogue, number, contender.shape)
        produce(place.connection, last)
        time.sleep(LOOK_S)
        checked = check(decisions(place), workload, last, contender)
        if checked["complete"] or time.monotonic() > give_up_s:
            break
    return checked


def last_queries(catalogue: Catalogue, number: int, shape: Shape) -> list[TopicRecord]:
    """A query to each partition whose propensity tells what was learned."""
    row = np.zeros(shape.task.inputs)
    return [_query(catalogue, shape, f"{partition}-last{number}", row) for partition in range(PARTITIONS)]


def check(
    found: list[DecisionFields], workload: Workload, last: list[TopicRecord], contender: Contender
) -> dict[str, Any]:
    """Missing, duplicate, wrong and changed predictions, share of hits, and whether feedback was learned from.

    Args:
        found: All predictions.
        workload: What was asked.
        last: What `last_queries` made, asked after the feedback.
        contender: Who answered.
    """
    answers: dict[str, list[DecisionFields]] = defaultdict(list)
    for one in found:
        answers[one.query_id].append(one)
    asked = {query_id: answers[query_id] for query_id in workload.records}
    seen = Counter({query_id: len(ones) for query_id, ones in asked.items()})
    later = [ones[0] for query_id, ones in asked.items() if ones and ones[0].models and query_id not in workload.truths]
    told: dict[str, Any] = {
        "missing": (workload.records - seen).total(),
        "duplicates": (seen - workload.records).total(),
        "wrong": sum(not _right(one, workload) for ones in asked.values() for one in ones),
        "changed": sum(one != ones[0] for ones in asked.values() for one in ones),
        "unlearned": sum(not _learned(answers, str(one.key), workload, contender) for one in last),
    }
    complete = not any(told.values())
    hits = sum(one.models[0].get("cached", False) for one in later)
    return {**told, "complete": complete, "hit_ratio": round(hits / max(1, len(later)), 4)}


def _right(one: DecisionFields, workload: Workload) -> bool:
    labels = workload.labels.get(one.query_id)
    if labels is None:
        return one.default and one.output == DEFAULT_OUTPUT
    return len(one.models) == 1 and one.output == one.models[0]["output"] == labels[_model(one)]


def _model(one: DecisionFields) -> str:
    return f"{one.models[0]['model']}:{one.models[0]['version']}"


def _learned(answers: Mapping[str, list[DecisionFields]], last: str, workload: Workload, contender: Contender) -> bool:
    """Whether the propensity of this query is what Exp3 makes of the feedback, each counted once."""
    counted = [
        answers[query_id][0]
        for query_id in workload.truths
        if answers[query_id] and (contender.shares_weights or _partition(query_id) == _partition(last))
    ]
    losses = [
        (_model(one), one.models[0]["propensity"], one.output != workload.truths[one.query_id]) for one in counted
    ]
    expected = _library_exp3(losses, [*contender.shape.task.models]) if contender.config else _textbook_exp3(losses)
    return any(abs(one.models[0]["propensity"] - expected[_model(one)]) < PRECISION for one in answers.get(last, []))


Losses = Iterable[tuple[str, float, bool]]
"""Model, propensity and loss of each decision."""


def _textbook_exp3(losses: Losses) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for model, propensity, loss in losses:
        sums[model] += loss / propensity
    return propensities(sums)


def _library_exp3(losses: Losses, models: list[str]) -> dict[str, float]:
    policy, state = Exp3(eta=ETA, exploration=EXPLORATION), SelectionState()
    for model, propensity, loss in losses:
        state = policy.observe(state, {model: float(loss)}, {model: propensity})
    return {one.models[0]: one.propensities[0] for one in policy.prepare(state, models).decisions}
