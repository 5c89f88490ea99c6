"""What lets queries of a run through, and what an observer of it is told; no Kafka."""

import asyncio
import math

import numpy as np
import pytest

from clipper_loadgen import Dataset, LoadPlan
from clipper_loadgen.answers import ANSWER_STATUSES, AnswerStatus
from clipper_loadgen.preparation import encode_load, intended_times
from clipper_loadgen.run import LoadRun
from clipper_topics import codec

ROWS = Dataset(np.eye(4), labels=[0, 1, 2, 3])


class Observer:
    """Keeps what it is told."""

    answers = ANSWER_STATUSES

    def __init__(self):
        self.released, self.answers_of, self.run = [], {}, None

    def begun(self, run):
        self.run = run

    def releasing(self, count):
        self.released.append(count)

    def answered(self, query, answer):
        self.answers_of[query] = answer


def run_of(plan, observer=None):
    times_s = intended_times(plan)
    prepared = encode_load(plan, ROWS, times_s, np.arange(len(times_s)), partitions=2)
    return LoadRun(plan, prepared, feedback=None, clock=lambda: 0.0, observer=observer)


def bounded(application="digits", **changes):
    return LoadPlan(
        application, mode="bounded", rate_per_s=10.0, duration_s=2.0, outstanding=5, dataset=ROWS, **changes
    )


def answer_to(run, query, **fields):
    return AnswerStatus(run._script.query_id(query), **fields)


def test_a_bounded_run_lets_through_what_is_due_and_not_more_than_may_be_outstanding():
    run = run_of(bounded(arrivals="constant"))
    run._release(3)
    assert asyncio.run(run._gate.beyond(2)) == 3
    run._release(20)
    assert asyncio.run(run._gate.beyond(3)) == 5
    run._on_answers([answer_to(run, query) for query in range(4)], 0.1)
    assert asyncio.run(run._gate.beyond(5)) == 9


def test_a_bounded_run_counts_latencies_from_when_a_query_was_sent():
    run = run_of(bounded(arrivals="constant"))
    run.ledger.sent(0, began_s=7.0, now_s=7.1)
    run._on_answers([answer_to(run, 0)], 7.5)
    assert run.ledger.latencies_s()[:2].tolist() == [0.5, math.inf]


def test_an_open_loop_lets_through_what_is_due_whatever_the_answers_do():
    run = run_of(LoadPlan("digits", rate_per_s=10.0, duration_s=2.0, outstanding=5, arrivals="constant", dataset=ROWS))
    run._release(20)
    assert asyncio.run(run._gate.beyond(0)) == 20


def test_an_observer_is_told_of_queries_before_the_gate_opens_and_of_first_answers():
    observer = Observer()
    run = run_of(bounded(arrivals="constant"), observer)
    run._release(2)
    assert observer.released == [2]
    first = answer_to(run, 1)
    run._on_answers([first, answer_to(run, 1, default=True), AnswerStatus("0-somebody-else")], 0.1)
    assert observer.answers_of == {1: first}
    assert run.ledger.duplicates() == 1


def test_queries_and_feedback_go_to_several_applications_in_turn():
    plan = bounded(("a", "b", "c"), arrivals="constant", feedback_delay_s=0.0)
    times_s = intended_times(plan)
    prepared = encode_load(plan, ROWS, times_s, np.arange(len(times_s)), partitions=2)
    queries = [codec.queries.decode(prepared.script.value(number)) for number in range(6)]
    assert [query.application for query in queries] == ["a", "b", "c", "a", "b", "c"]
    _, _, value = prepared.feedback_of(4)
    feedback = codec.feedback.decode(value)
    assert (feedback.application, feedback.label) == ("b", prepared.labels[4])


@pytest.mark.parametrize("mode", ["bounded", "saturation"])
def test_queries_may_gather_for_longer_in_modes_that_measure_from_the_sending(mode):
    assert LoadPlan("digits", mode=mode, linger_s=0.02).linger_s == 0.02
