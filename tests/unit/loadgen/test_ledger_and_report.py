import math
from dataclasses import replace

import numpy as np
import pytest

from clipper_loadgen.ledger import Ledger
from clipper_loadgen.report import percentiles_ms, steady_rate_per_s, summarise


def report_of(ledger, **options):
    return summarise(ledger, application="digits", mode="rate", **options)


@pytest.mark.parametrize(("due_s", "latency_s", "late_ms"), [(1.0, 4.5, 4000.0), (math.nan, 1.5, 1000.0)])
def test_a_latency_counts_from_the_intended_time_or_when_the_sending_began_to_the_first_answer(
    due_s, latency_s, late_ms
):
    ledger = Ledger([due_s])
    ledger.sent(0, began_s=4.0, now_s=5.0)
    ledger.answered(0, 5.5, reason=None)
    assert not ledger.answered(0, 9.0, reason="late"), "a duplicate"
    report = report_of(ledger)
    assert (report.answered, report.duplicates, report.default_ratio) == (1, 1, 0.0)
    assert ledger.latencies_s().tolist() == [latency_s]
    assert (report.latency["max_ms"], report.late_p99_ms) == (1_000 * latency_s, late_ms)


@pytest.mark.parametrize(("lost", "given"), [(0, 5), (1, 2), (11, 1), (51, 0)])
def test_percentiles_are_latencies_that_were_measured_and_empty_where_they_fall_on_a_lost_query(lost, given):
    """`higher` of 100 values: the value at rank ceil(share * 99), counted from 0."""
    found = percentiles_ms(np.array([*(np.arange(1, 101 - lost) / 1e3), *[np.inf] * lost]))
    assert [*found.values()] == [51.0, 91.0, 100.0, 100.0, 100.0][:given] + [None] * (5 - given)


def test_a_report_of_no_queries_has_no_numbers_and_those_that_were_never_sent_are_not_missing():
    report, ledger = report_of(Ledger([])), Ledger([math.nan] * 10)
    assert (report.queries, report.missing, report.throughput_per_s, report.offered_per_s) == (0, 0, None, None)
    assert set(report.latency.values()) == {None}
    for query in range(4):
        ledger.sent(query, began_s=1.0, now_s=1.0)
    ledger.answered(0, 1.5, reason=None)
    report = report_of(ledger)
    assert (report.queries, report.answered, report.missing) == (4, 1, 3)


STEADY = [0.0, 5.0, 10.0, *(np.arange(94) * 0.01 + 20.0), 30.0, 40.0, 50.0]


@pytest.mark.parametrize(("times_s", "rate"), [(STEADY, 100.0), ([], None), ([1.0], None), ([1.0] * 100, None)])
def test_throughput_leaves_out_the_start_and_the_tail_and_answers_at_one_moment_have_none(times_s, rate):
    assert steady_rate_per_s(np.array(times_s)) == rate


def test_the_offered_rate_is_that_of_the_sending_and_further_fields_are_taken_as_they_are():
    ledger = Ledger([5.0 + 0.01 * query for query in range(101)])
    for query, due_s in enumerate(ledger.due_s):
        ledger.sent(query, began_s=due_s, now_s=due_s)
    report = report_of(ledger, feedback_sent=7, seed=3)
    assert (report.offered_per_s, report.feedback_sent, report.seed) == (100.0, 7, 3)


def test_default_answers_are_counted_by_reason_and_the_warm_up_is_in_no_number():
    ledger = Ledger([float(query) for query in range(11)])
    for query in range(11):
        ledger.sent(query, began_s=float(query), now_s=float(query) + (5.0 if query == 0 else 0.0))
        reason = {0: "late", 1: "late", 2: "late", 3: "errors"}.get(query)
        ledger.answered(query, query + (9.0 if query == 0 else 0.5), reason=reason)
    ledger.answered(0, 9.0, reason=None)
    report = report_of(ledger, first=1)
    assert (report.queries, report.answered, report.duplicates) == (10, 10, 0)
    assert (report.defaults, report.default_ratio) == ({"late": 2, "errors": 1}, 0.3)
    assert (report.latency["max_ms"], report.late_p99_ms) == (500.0, 0.0)


# --- in a terminal --------------------------------------------------------------------------------------------------
def test_the_report_shows_numbers_and_a_dash_where_there_is_none_and_doubtful_ones_come_with_a_warning():
    ledger = Ledger([0.0, 0.1, 0.2])
    for query in range(3):
        ledger.sent(query, began_s=0.1 * query, now_s=0.1 * query)
    ledger.answered(0, 0.01, reason=None)
    ledger.answered(1, 0.12, reason="late")
    report = report_of(ledger)
    _, *found = report.lines()
    lines = {line[:24].strip(): line[24:].strip() for line in found}
    shown = {"queries sent": "3", "missing": "1", "default outputs": "50.00%", "late": "1"}
    assert lines | shown | {"latency p50": "20.00 ms", "latency p99": "-"} == lines
    assert [*report.warnings()] == ["1 queries had no answer; percentiles that fall on them are empty"]
    slow = replace(report, missing=0, late_p99_ms=15.0, send_failures=2, send_failure="KafkaTimeoutError()")
    assert [text.split(":")[0] for text in slow.warnings()] == [
        "the generator was up to 15.0 ms late (p99)",
        "2 batches could not be written, the first",
    ]
