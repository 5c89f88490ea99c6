"""What lets queries of a run through, and what an observer of it is told; no Kafka."""

import asyncio
import math

import numpy as np
import pytest

from clipper_loadgen import Dataset, LoadPlan
from clipper_loadgen.run import ANSWER_STATUSES, AnswerStatus, LoadRun
from clipper_loadgen.script import write_script

ROWS = Dataset(np.eye(4), labels=[0, 1, 2, 3])


class Observer:
    """Keeps what it is told."""

    answers = ANSWER_STATUSES

    def __init__(self):
        self.released, self.answers_of = [], {}

    def releasing(self, count):
        self.released.append(count)

    def answered(self, query, answer):
        self.answers_of[query] = answer


def run_of(plan, observer=None):
    script = write_script(plan, ROWS, partitions=2, run="0123abcd")
    return LoadRun(plan, script, feedback=None, clock=lambda: 0.0, observer=observer)


def bounded():
    return LoadPlan("digits", mode="bounded", rate_per_s=10.0, duration_s=2.0, outstanding=5, arrivals="constant")


def answer_to(run, query, **fields):
    return AnswerStatus(run.script.query_id(query), **fields)


def test_a_bounded_run_lets_through_what_is_due_and_not_more_than_may_be_outstanding():
    run = run_of(bounded())
    run._release(3)
    assert asyncio.run(run._gate.beyond(2)) == 3
    run._release(20)
    assert asyncio.run(run._gate.beyond(3)) == 5
    run._on_answers([answer_to(run, query) for query in range(4)], 0.1)
    assert asyncio.run(run._gate.beyond(5)) == 9


def test_a_bounded_run_counts_latencies_from_when_a_query_was_sent():
    run = run_of(bounded())
    run.ledger.sent(0, began_s=7.0, now_s=7.1)
    run._on_answers([answer_to(run, 0)], 7.5)
    assert run.ledger.latencies_s()[:2].tolist() == [0.5, math.inf]


def test_an_open_loop_lets_through_what_is_due_whatever_the_answers_do():
    run = run_of(LoadPlan("digits", rate_per_s=10.0, duration_s=2.0, outstanding=5, arrivals="constant"))
    run._release(20)
    assert asyncio.run(run._gate.beyond(0)) == 20


def test_an_observer_is_told_of_queries_before_the_gate_opens_and_of_first_answers():
    observer = Observer()
    run = run_of(bounded(), observer)
    run._release(2)
    assert observer.released == [2]
    first = answer_to(run, 1)
    run._on_answers([first, answer_to(run, 1, default=True), AnswerStatus("0-somebody-else")], 0.1)
    assert observer.answers_of == {1: first}
    assert run.ledger.duplicates.total() == 1


def test_a_default_answer_counts_with_its_reason():
    run = run_of(bounded())
    run._on_answers([answer_to(run, 0, default=True, reason="late"), answer_to(run, 1, default=True)], 0.1)
    assert run.ledger.reasons == {0: "late", 1: "unstated"}


@pytest.mark.parametrize("mode", ["bounded", "saturation"])
def test_queries_may_gather_for_longer_in_modes_that_measure_from_the_sending(mode):
    assert LoadPlan("digits", mode=mode, linger_s=0.02).linger_s == 0.02
