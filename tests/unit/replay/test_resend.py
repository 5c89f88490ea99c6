import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from builders.rerun import SOURCE, FakeTimer, Sent, feedback, log_of, query, resending

from clipper_agents.kafka.reader import Range
from clipper_agents.replay.resend import Rerun, RerunSummary


def ran(*records, speed=1.0, error=None, stop_at_s=None):
    """A run over these records: its summary, what was sent, and the timer."""

    async def run():
        timer = FakeTimer(stop_at_s)
        sent = Sent(timer, error)
        summary = await Rerun(resending(), sent, speed=speed, timer=timer).run(log_of(*records))
        return summary, sent, timer

    return asyncio.run(run())


LOG = [
    (60_000, query(0, query_id="a")),
    (60_500, feedback(0, "a")),
    (62_000, query(1)),
    (62_000, query(2, partition=1)),
]


def test_records_are_sent_in_order_with_the_spacing_of_the_log():
    summary, sent, timer = ran(*LOG)
    assert sent.times_s == [100.0, 100.5, 102.0, 102.0]
    assert [copy.topic for copy in sent.copies] == [
        f"staging.{name}" for name in ("queries", "feedback", *["queries"] * 2)
    ]
    assert (summary.span_s, summary.took_s, summary.speed) == (2.0, 2.0, 1.0)
    assert summary.lateness.percentile_ms(100) == 0.0
    assert timer.waits_s == [0.5, 1.5], "records of one time are sent together"


def test_ten_times_faster_is_a_tenth_of_the_spacing():
    summary, sent, _ = ran(*LOG, speed=10.0)
    assert sent.times_s == [100.0, 100.05, 100.2, 100.2]
    assert summary.speed == pytest.approx(10.0)


def test_as_fast_as_possible_waits_for_nothing_and_nothing_is_late():
    summary, _, timer = ran(*LOG, speed=None)
    assert timer.waits_s == []
    assert summary.sent == {"staging.queries": 3, "staging.feedback": 1}
    assert summary.lateness.percentile_ms(50) is None


def test_what_is_left_out_is_counted_by_reason_and_delays_nobody():
    summary, sent, timer = ran((0, feedback(0, "gone")), (9_000, query(1)), (9_000, feedback(1, "gone")))
    assert summary.left_out == {"no_query": 2}
    assert (summary.read, len(sent.copies), timer.waits_s) == (3, 1, [])


def test_a_stop_ends_the_run_before_the_next_record_and_says_what_was_sent():
    summary, sent, _ = ran(*LOG, stop_at_s=101.0)
    assert summary.interrupted
    assert (summary.read, summary.sent.total(), len(sent.copies)) == (2, 2, 2)


def test_records_that_the_brokers_do_not_take_are_counted_and_the_run_goes_on():
    summary, sent, _ = ran(*LOG, speed=None, error=MessageSizeTooLargeError("much"))
    assert (summary.failed, len(sent.copies)) == (4, 4)
    assert "much" in summary.first_failure
    assert not summary.interrupted
    assert summary.refused is None


def test_a_run_whose_log_breaks_says_what_was_sent_and_what_is_left():
    async def broken():
        for found in LOG[:3]:
            yield found
        raise KafkaConnectionError("gone")

    async def run():
        timer, summary = FakeTimer(), RerunSummary(interrupted=True)
        first, second = TopicPartition(SOURCE.queries, 0), TopicPartition(SOURCE.queries, 1)
        summary.unread = {first: Range(0, 2), second: Range(2, 5)}
        sent = Sent(timer)
        with pytest.raises(KafkaConnectionError):
            await Rerun(resending(), sent, speed=None, timer=timer, summary=summary).run(broken())
        return summary, sent, first, second

    summary, sent, first, second = asyncio.run(run())
    assert (summary.interrupted, summary.read, summary.sent.total(), len(sent.copies)) == (True, 3, 3, 3)
    assert summary.unread == {first: Range(2, 2), second: Range(2, 5)}


def test_a_right_that_is_missing_is_reported_as_such():
    summary, _, _ = ran(*LOG, error=TopicAuthorizationFailedError("staging.queries"))
    assert isinstance(summary.refused, TopicAuthorizationFailedError)
