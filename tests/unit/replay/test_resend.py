import asyncio
import json
from types import SimpleNamespace

import msgspec
import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from builders.kafka import record
from hypothesis import example, given
from hypothesis import strategies as st
from unit.router.rig import FakeTimeLoop

from clipper_agents.replay.rerun import Rerun, RerunSummary
from clipper_agents.replay.resent_records import RecordResender
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.query import ID_CHARACTERS

SOURCE, TARGET = Catalogue(prefix="clipper", partitions=4), Catalogue(prefix="staging", partitions=4)
FROM = "clipper-replayed-from"


def query(offset, partition=0, **fields):
    value = json.dumps({"application": "digits", "input": [1]} | fields).encode()
    return record(offset, value, b"ada", SOURCE.queries, partition)


def feedback(query_id, partition=0, headers=(), **fields):
    value = json.dumps({"query_id": query_id, "loss": 0.5} | fields).encode()
    return record(7, value, b"ada", SOURCE.feedback, partition, headers)


def resender(*applications, **options):
    return RecordResender(SOURCE, TARGET, "r1", applications, **options)


# --- what a record becomes --------------------------------------------------------------------------------------------
def test_of_a_query_only_the_id_changes_and_a_header_says_where_it_stood():
    value = b'{"application":"digits","input":[1.10,1e2,12345678901234567890123],"mine":{"a":null},"query_id":"q"}'
    headers = [("trace", b"7"), (FROM, b"12"), ("clipper-forwarded", b"2 1700000000000"), ("trace", b"8")]
    sent = resender().copy(record(41, value, b"ada", SOURCE.queries, 3, headers))
    assert (sent.topic, sent.partition, sent.key) == ("staging.queries", 3, b"ada")
    assert sent.value == value.replace(b'"query_id":"q"', b'"query_id":"q~r1"')
    assert sent.headers == [("trace", b"7"), ("trace", b"8"), (FROM, b"clipper.queries/3/41")]
    packed = {"application": "digits", "input": b"\x00\xff", "query_id": "2-a"}
    sent = resender().copy(record(5, msgspec.msgpack.encode(packed), None, SOURCE.queries, 2, codec.MSGPACK_HEADERS))
    assert msgspec.msgpack.decode(sent.value) == packed | {"query_id": "2-a~r1"}


ASKED, OF_OTHER = query(1, query_id="0-a"), query(1, query_id="0-a", application="other")
MARKER = feedback("0-a", headers=[("clipper-restore", b"r-0123456789abcdef")])
FOREIGN = record(3, b"{}", topic=SOURCE.queries, headers=[("content-type", b"text/csv")])
UNREADABLE = (b"\xff", b"[1]", b"", None, b'{"query_id": 7}', b'{"a": ' + b"[" * 10_000)
LEFT_OUT = {
    "of a query that was not sent": ([], [ASKED, feedback("0-b")], "no_query"),
    "of no query": ([], [ASKED, feedback(None)], "no_query"),
    "of another partition, where it was an orphan": ([], [ASKED, feedback("0-a", partition=1)], "no_query"),
    "of a query that was not chosen": (["digits"], [OF_OTHER, feedback("0-a")], "no_query"),
    "not chosen": (["digits"], [OF_OTHER], "other_application"),
    "of no application": (["digits"], [query(1, application=None)], "other_application"),
    "not chosen, with the id of one that was": (
        ["digits"], [ASKED, feedback("0-a", application="other")], "other_application"),
    "a marker of a restore": ([], [ASKED, MARKER], "restore_marker"),
    "in an unknown format": ([], [FOREIGN], "unreadable"),
    **{f"{value!r:.20}": ([], [record(3, value, topic=SOURCE.feedback)], "unreadable") for value in UNREADABLE},
}  # fmt: skip


@pytest.mark.parametrize(("applications", "records", "why"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_left_out_says_why(applications, records, why):
    assert [*map(resender(*applications).copy, records)][-1] == why


def test_only_the_last_queries_are_remembered():
    run = resender(remembered=10)
    for number in range(95):
        run.copy(query(number, query_id=f"{number}"))
    assert [number for number in range(95) if run.copy(feedback(f"{number}")) != "no_query"] == [*range(80, 95)]


# --- ids --------------------------------------------------------------------------------------------------------------
LONG = "x" * ID_CHARACTERS
IDS = st.sampled_from(["a", "a~r1", "0@0~r1"]) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1)
UNNAMED = None, "", "2@17"
"""Ids of queries that are answered under the place where they stand."""


@example([(0, LONG), (0, f"{LONG[1:]}y"), (1, LONG[:-4])])
@given(st.lists(st.tuples(st.integers(0, 3), IDS | st.sampled_from(UNNAMED)), max_size=12))
def test_feedback_follows_its_query_under_a_new_id_of_its_own(queries):
    run, ids = resender("digits"), {}
    for offset, (partition, query_id) in enumerate(queries):
        asked = run.copy(query(offset, partition, query_id=query_id))
        old = f"{partition}@{offset}" if query_id in UNNAMED else query_id
        told = run.copy(feedback(old, partition))
        (ids[old],) = {json.loads(one.value)["query_id"] for one in (asked, told)}
        assert (told.topic, told.partition, asked.partition) == ("staging.feedback", partition, partition)
    assert len({*ids.values()}) == len(ids)
    assert all(one.endswith("r1") and len(one) <= ID_CHARACTERS for one in ids.values())


# --- the run ----------------------------------------------------------------------------------------------------------
def ran(records, speed=1.0, error=None, stop_at_s=1e9):
    """A run over these records, of which the last may be an error: summary, what was sent and when, what ended it.

    A record is acknowledged a second after it was sent, or fails then with `error`.
    """
    sent, summary = [], RerunSummary(run="r1")

    async def send(topic, *_, headers):
        loop = asyncio.get_running_loop()
        sent.append((topic, round(loop.time(), 6)))
        future = loop.create_future()
        loop.call_later(1.0, *((future.set_exception, error) if error else (future.set_result, None)))
        return future

    async def log():
        for one in records:
            if isinstance(one, Exception):
                raise one
            yield one

    async def run():
        stop, sending = asyncio.Event(), Rerun(resender(), SimpleNamespace(send=send), summary, speed)
        asyncio.get_running_loop().call_later(stop_at_s, stop.set)
        try:
            await sending.send_all(log(), stop)
        except KafkaConnectionError as broken:
            return broken
        return sending.refused

    with asyncio.Runner(loop_factory=FakeTimeLoop) as runner:
        return summary, sent, runner.run(run())


RECORDS = feedback("gone"), query(0, query_id="a"), feedback("a"), query(1), query(2)
LOG = [*zip((0, 60_000, 60_500, 62_000, 62_000), RECORDS, strict=True)]
TOPICS = ["staging.queries", "staging.feedback", "staging.queries", "staging.queries"]


@pytest.mark.parametrize(
    ("speed", "times_s"), [(1, [0, 0.5, 2, 2]), (10, [0, 0.05, 0.2, 0.2]), (0.5, [0, 1, 4, 4]), (0, [0] * 4)]
)
def test_records_are_sent_in_order_with_the_spacing_of_the_log_by_the_speed(speed, times_s):
    summary, sent, _ = ran(LOG, speed)
    assert sent == [*zip(TOPICS, times_s, strict=True)]
    assert (summary.first_ms, summary.last_ms, round(summary.took_s, 6)) == (60_000, 62_000, times_s[-1])
    assert (summary.read, summary.left_out) == (5, {"no_query": 1})


GONE, MUCH, REFUSED = KafkaConnectionError("gone"), MessageSizeTooLargeError("much"), TopicAuthorizationFailedError("q")
# The log and what happens; whether the run is complete, what was read and failed, the time that it reached, its error.
ENDS = {
    "the end of the range": (LOG, {}, (True, 5, 0, 62_000, None)),
    "a stop before the next record": (LOG, dict(stop_at_s=1.0), (False, 3, 0, 60_500, None)),
    "records that the brokers do not take are counted": (LOG, dict(error=MUCH), (True, 5, 4, 62_000, None)),
    "a right that is missing": (LOG, dict(error=REFUSED), (False, 3, 2, 60_500, REFUSED)),
    "a log that breaks": ([*LOG[:3], GONE], {}, (False, 3, 0, 60_500, GONE)),
}


@pytest.mark.parametrize(("log", "happens", "expected"), ENDS.values(), ids=ENDS)
def test_a_run_says_how_far_it_came_whatever_ends_it(log, happens, expected):
    summary, sent, error = ran(log, **happens)
    assert (summary.complete, summary.read, summary.failed, summary.last_ms, error) == expected
    assert len(sent) == summary.sent.total() == summary.read - 1
    assert (summary.first_failure is None) == (not summary.failed)
