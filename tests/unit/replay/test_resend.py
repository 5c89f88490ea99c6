"""A log that is sent again: what each record becomes, when it is sent, and what is said about the run."""

import asyncio
import json

import msgspec
import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError, TopicAuthorizationFailedError
from builders.kafka import record
from hypothesis import example, given
from hypothesis import strategies as st

from clipper_agents.kafka.reader import Range
from clipper_agents.replay.resend import Rerun, RerunSummary
from clipper_agents.replay.resent_records import RecordResender, SentQueries
from clipper_agents.replay.run_ids import NewIds, new_run, same_id
from clipper_stream.client.keys import partition_for
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.query import ID_CHARACTERS
from clipper_topics.query_ids import is_offset_id

SOURCE = Catalogue(prefix="clipper", partitions=4)
FROM = "clipper-replayed-from"


def query(offset, partition=0, key=b"ada", headers=(), **said):
    """A record of the queries topic; `said` is its JSON."""
    value = json.dumps({"application": "digits", "input": [1]} | said).encode()
    return record(offset, value, key, SOURCE.queries, partition, headers)


def feedback(offset, query_id, partition=0, key=b"ada", headers=(), **said):
    """A record of the feedback topic."""
    value = json.dumps({"query_id": query_id, "loss": 0.5} | said).encode()
    return record(offset, value, key, SOURCE.feedback, partition, headers)


def resending(partitions=4, prefix="staging", ids=None, **options):
    """To a deployment of so many partitions, with new ids of the run `r1` unless others are given."""
    return RecordResender(SOURCE, Catalogue(prefix=prefix, partitions=partitions), ids or NewIds("r1"), **options)


def id_of(copy):
    return json.loads(copy.value)["query_id"]


# --- what a record becomes --------------------------------------------------------------------------------------------
def test_a_query_keeps_everything_but_its_id_and_says_where_it_stood():
    sent = resending().copy(query(41, partition=3, query_id="3-abc", context="ada", deadline_ms=20))
    assert (sent.topic, sent.partition, sent.key) == ("staging.queries", 3, b"ada")
    expected = {"application": "digits", "input": [1], "query_id": "3-abc~r1", "context": "ada", "deadline_ms": 20}
    assert json.loads(sent.value) == expected
    assert sent.headers == [(FROM, b"clipper.queries/3/41")]


def test_headers_unknown_fields_and_digits_stay_as_written_but_for_the_place_of_an_earlier_run():
    value = b'{"application":"digits","input":[1.10,1e2,12345678901234567890123],"mine":{"a":null},"query_id":"q"}'
    headers = [("trace", b"7"), (FROM, b"12"), ("trace", b"8")]
    sent = resending().copy(record(1, value, topic=SOURCE.queries, headers=headers))
    assert sent.value == value.replace(b'"query_id":"q"', b'"query_id":"q~r1"')
    assert sent.headers == [("trace", b"7"), ("trace", b"8"), (FROM, b"clipper.queries/0/1")]
    packed = {"application": "digits", "input": b"\x00\xff", "query_id": "2-a"}
    sent = resending().copy(record(5, msgspec.msgpack.encode(packed), None, SOURCE.queries, 2, codec.MSGPACK_HEADERS))
    assert msgspec.msgpack.decode(sent.value) == packed | {"query_id": "2-a~r1"}


@pytest.mark.parametrize("ids", [None, same_id])
@pytest.mark.parametrize("unnamed", [{}, {"query_id": None}, {"query_id": ""}])
def test_a_query_without_an_id_gets_the_one_that_its_feedback_names(ids, unnamed):
    run = resending(ids=ids)
    asked, told = run.copy(query(41, partition=3, **unnamed)), run.copy(feedback(7, "3@41", partition=3))
    assert id_of(asked) == id_of(told) == ("3@41~" if ids else "3@41~r1")


def test_with_the_same_ids_not_a_byte_changes_but_of_an_id_that_only_routers_give():
    run = resending(ids=same_id)
    asked, told = query(1, query_id="0-a"), feedback(2, "0-a")
    assert [run.copy(asked).value, run.copy(told).value] == [asked.value, told.value]
    assert id_of(resending().copy(query(41, partition=3, query_id="2@17"))) == "3@41~r1"
    assert not is_offset_id(same_id("3@41"))


A_QUERY, OF_OTHER = query(1, query_id="0-a"), query(1, query_id="0-a", application="other")
CHOSEN, ALONE = {"applications": ["digits"]}, {"queries": False}
MARKER = feedback(2, "0-a", headers=[("clipper-restore", b"r-0123456789abcdef")])
LEFT_OUT = {
    "of a query that was not sent": ({}, [A_QUERY, feedback(2, "0-b")], "no_query"),
    "of another partition, where it was an orphan": ({}, [A_QUERY, feedback(3, "0-a", partition=1)], "no_query"),
    "of no application with the id": ({}, [A_QUERY, feedback(3, "0-a", application="nobody")], "no_query"),
    "of a query that was not chosen": (CHOSEN, [OF_OTHER, feedback(1, "0-a")], "no_query"),
    "not chosen": (CHOSEN, [OF_OTHER], "other_application"),
    "nobody knows whether it was chosen": (CHOSEN, [record(3, b"\xff", topic=SOURCE.queries)], "unreadable"),
    "no key says where": (ALONE | {"partitions": 2}, [feedback(2, "0-b", key=None)], "no_key"),
    "a marker of a restore": ({}, [A_QUERY, MARKER], "restore_marker"),
    "a marker of a restore under the same ids": (ALONE | {"ids": same_id}, [MARKER], "restore_marker"),
    "an empty query": ({}, [record(3, None, key=None, topic=SOURCE.queries)], "empty"),
    "an empty feedback": ({}, [record(3, None, key=None, topic=SOURCE.feedback)], "empty"),
}  # fmt: skip


@pytest.mark.parametrize(("options", "records", "why"), LEFT_OUT.values(), ids=LEFT_OUT)
def test_what_is_left_out_says_why(options, records, why):
    assert [*map(resending(**options).copy, records)][-1] == why


@pytest.mark.parametrize("ids", [None, same_id])
def test_feedback_alone_is_sent_whatever_it_is_about_and_as_it_is(ids):
    told = feedback(2, "0@41", key=b"k")
    sent = resending(partitions=2, queries=False, ids=ids).copy(told)
    assert (sent.value, sent.partition) == (told.value, partition_for(b"k", 2))


@pytest.mark.parametrize("topic", [SOURCE.queries, SOURCE.feedback])
def test_what_cannot_be_read_is_sent_as_it_is(topic):
    for value in (b"\xff", b"[1]", b"", None, b'{"query_id": 7}', b'{"a": ' + b"[" * 10_000):
        assert resending().copy(record(3, value, topic=topic)).value == value


def test_feedback_follows_the_query_of_its_application_under_an_id_of_two():
    run = resending(partitions=3)
    for offset, (application, key) in enumerate((("digits", b"ada"), ("spam", b"user-42"))):
        run.copy(query(offset, key=key, query_id="q", application=application))
    asked = [("digits", b"ada"), ("spam", b"user-42"), (None, b"ada")]
    told = [run.copy(feedback(2, "q", key=None, application=name)).partition for name, _ in asked]
    assert told == [partition_for(key, 3) for _, key in asked]
    assert told[0] != told[1]


def test_only_the_last_queries_are_remembered():
    sent = SentQueries(most=10)
    for number in range(100):
        sent.note(0, str(number), "digits", 1)
    known = [number for number in range(100) if sent.partition_of(0, str(number), None) is not None]
    assert 5 <= len(known) <= 10
    assert known[-1] == 99


# --- ids --------------------------------------------------------------------------------------------------------------
PARTITIONS = st.integers(0, 3)
MADE = st.builds("{}-{}".format, st.integers(0, 9), st.integers(0, 9)) | st.sampled_from(["a", "a~r1", "0@0~r1"])
IDS = MADE | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=ID_CHARACTERS)
QUERIES = st.tuples(PARTITIONS, IDS | st.none(), st.none() | st.binary(min_size=1, max_size=4))


@given(
    queries=st.lists(QUERIES, min_size=1, max_size=12),
    partitions=st.integers(1, 6),
    options=st.sampled_from([{}, CHOSEN]),
)
def test_feedback_names_the_query_that_it_named_and_reaches_its_partition(queries, partitions, options):
    run, asked = resending(partitions=partitions, **options), {}
    for offset, (partition, query_id, key) in enumerate(queries):
        old = query_id or f"{partition}@{offset}"
        sent = run.copy(query(offset, partition, key, query_id=query_id))
        placed = partition_for(old.encode() if key is None else key, partitions)
        kept = partition if partitions == SOURCE.partitions else placed
        assert (sent.partition, sent.key) == (kept, key)
        asked[partition, old] = sent  # of two with one id in one partition the later one's place is known
    for (partition, old), sent in asked.items():
        told = run.copy(feedback(0, old, partition, key=None))
        assert (told.partition, id_of(told)) == (sent.partition, id_of(sent))


@example({"x" * ID_CHARACTERS, "x" * (ID_CHARACTERS - 1) + "y"})
@given(st.sets(IDS, max_size=12))
def test_different_queries_have_different_new_ids_and_none_is_too_long(queries):
    new = [*map(NewIds("r1"), queries)]
    assert len({*new}) == len(queries)
    assert new == [*map(NewIds("r1"), queries)]
    assert all(len(one) <= ID_CHARACTERS for one in new)


def test_no_run_has_the_name_of_another():
    assert new_run() != new_run()
    assert "~" not in new_run()


# --- the run ----------------------------------------------------------------------------------------------------------
class FakeTimer:
    """A `RunTimer` whose seconds pass by waiting alone; it is stopped when they reach `stop_at_s`."""

    def __init__(self, stop_at_s=float("inf")):
        self.at_s, self.waits_s, self.stopped, self._stop_at_s = 100.0, [], False, stop_at_s

    def now_s(self):
        return self.at_s

    async def wait(self, seconds):
        self.waits_s.append(seconds)
        self.at_s += seconds
        self.stopped = self.at_s >= self._stop_at_s


def ran(*records, speed=1.0, error=None, stop_at_s=float("inf"), summary=None):
    """A run over these records, of which the last may be an error: summary, copies, when each was sent, and waits."""
    timer, copies, times_s, summary = FakeTimer(stop_at_s), [], [], summary or RerunSummary()

    async def send(copy):
        copies.append(copy)
        times_s.append(timer.now_s())
        future = asyncio.get_running_loop().create_future()
        future.set_result(None) if error is None else future.set_exception(error)
        return future

    async def log():
        for one in records:
            if isinstance(one, Exception):
                raise one
            yield one

    asyncio.run(Rerun(resending(), send, speed=speed, timer=timer, summary=summary).run(log()))
    return summary, copies, times_s, timer.waits_s


LOG = [
    (60_000, query(0, query_id="a")),
    (60_500, feedback(0, "a")),
    (62_000, query(1)),
    (62_000, query(2, partition=1)),
]


def test_records_are_sent_in_order_with_the_spacing_of_the_log():
    summary, copies, times_s, waits_s = ran(*LOG)
    assert times_s == [100.0, 100.5, 102.0, 102.0]
    assert [copy.topic for copy in copies] == ["staging.queries", "staging.feedback", *["staging.queries"] * 2]
    assert (summary.span_s, summary.took_s, summary.speed) == (2.0, 2.0, 1.0)
    assert summary.lateness.percentile_ms(100) == 0.0
    assert waits_s == [0.5, 1.5], "records of one time are sent together"


def test_a_run_is_so_many_times_faster_or_as_fast_as_possible():
    summary, _, times_s, _ = ran(*LOG, speed=10.0)
    assert (times_s, summary.speed) == ([100.0, 100.05, 100.2, 100.2], pytest.approx(10.0))
    summary, _, _, waits_s = ran(*LOG, speed=None)
    assert (waits_s, summary.lateness.percentile_ms(50)) == ([], None)
    assert summary.sent == {"staging.queries": 3, "staging.feedback": 1}


def test_what_is_left_out_is_counted_by_reason_and_delays_nobody():
    summary, copies, _, waits_s = ran((0, feedback(0, "gone")), (9_000, query(1)), (9_000, feedback(1, "gone")))
    assert summary.left_out == {"no_query": 2}
    assert (summary.read, len(copies), waits_s) == (3, 1, [])


def test_a_stop_ends_the_run_before_the_next_record_and_says_what_was_sent():
    summary, copies, _, _ = ran(*LOG, stop_at_s=101.0)
    assert (summary.interrupted, summary.read, summary.sent.total(), len(copies)) == (True, 2, 2, 2)


def test_records_that_the_brokers_do_not_take_are_counted_and_the_run_goes_on():
    summary, copies, _, _ = ran(*LOG, speed=None, error=MessageSizeTooLargeError("much"))
    assert (summary.failed, len(copies), summary.interrupted, summary.refused) == (4, 4, False, None)
    assert "much" in summary.first_failure
    summary, *_ = ran(*LOG, error=TopicAuthorizationFailedError("staging.queries"))
    assert isinstance(summary.refused, TopicAuthorizationFailedError)


def test_a_run_whose_log_breaks_says_what_was_sent_and_what_is_left():
    first, second = TopicPartition(SOURCE.queries, 0), TopicPartition(SOURCE.queries, 1)
    summary = RerunSummary(interrupted=True)
    summary.unread = {first: Range(0, 2), second: Range(2, 5)}
    with pytest.raises(KafkaConnectionError):
        ran(*LOG[:3], KafkaConnectionError("gone"), summary=summary)
    assert (summary.interrupted, summary.read, summary.sent.total()) == (True, 3, 3)
    assert summary.unread == {first: Range(2, 2), second: Range(2, 5)}
