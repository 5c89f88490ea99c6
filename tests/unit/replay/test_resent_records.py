import msgspec
import pytest
from builders.kafka import record
from builders.rerun import SOURCE, feedback, query, resending, said

from clipper_agents.replay.resent_records import SentQueries
from clipper_agents.replay.run_ids import same_id
from clipper_stream.client.keys import partition_for
from clipper_topics import codec


def test_a_query_keeps_everything_but_its_id_and_says_where_it_stood():
    sent = resending().copy(query(41, partition=3, query_id="3-abc", context="ada", deadline_ms=20))
    assert (sent.topic, sent.partition, sent.key) == ("staging.queries", 3, b"ada")
    expected = {"application": "digits", "input": [1], "query_id": "3-abc~r1", "context": "ada", "deadline_ms": 20}
    assert said(sent) == expected
    assert sent.headers == [("clipper-replayed-from", b"clipper.queries/3/41")]


def test_unknown_fields_and_digits_of_numbers_stay_as_written():
    value = b'{"application":"digits","input":[1.10,1e2,12345678901234567890123],"mine":{"a":null},"query_id":"q"}'
    sent = resending().copy(record(0, value, topic=SOURCE.queries))
    assert sent.value == value.replace(b'"query_id":"q"', b'"query_id":"q~r1"')


def test_headers_are_kept_but_for_the_place_of_an_earlier_run():
    headers = [("trace", b"7"), ("clipper-replayed-from", b"12"), ("trace", b"8")]
    sent = resending().copy(query(1, headers=headers))
    assert sent.headers == [("trace", b"7"), ("trace", b"8"), ("clipper-replayed-from", b"clipper.queries/0/1")]


def test_msgpack_is_rewritten_as_msgpack():
    value = msgspec.msgpack.encode({"application": "digits", "input": b"\x00\xff", "query_id": "2-a"})
    sent = resending().copy(record(5, value, None, SOURCE.queries, 2, codec.MSGPACK_HEADERS))
    assert msgspec.msgpack.decode(sent.value) == {"application": "digits", "input": b"\x00\xff", "query_id": "2-a~r1"}


@pytest.mark.parametrize("ids", [None, same_id])
@pytest.mark.parametrize("unnamed", [{}, {"query_id": None}, {"query_id": ""}])
def test_a_query_without_an_id_gets_the_one_that_its_feedback_names(ids, unnamed):
    run = resending(ids=ids)
    asked, told = run.copy(query(41, partition=3, **unnamed)), run.copy(feedback(7, "3@41", partition=3))
    assert said(asked)["query_id"] == said(told)["query_id"] == ("3@41~" if ids else "3@41~r1")


def test_with_the_same_ids_not_a_byte_changes():
    run = resending(ids=same_id)
    asked, told = query(1, query_id="0-a"), feedback(2, "0-a")
    assert [run.copy(asked).value, run.copy(told).value] == [asked.value, told.value]


def test_a_query_that_claims_a_routers_id_is_sent_under_the_one_that_it_was_given():
    sent = resending().copy(query(41, partition=3, query_id="2@17"))
    assert said(sent)["query_id"] == "3@41~r1"


def test_with_other_partitions_the_key_says_where_and_feedback_follows():
    run = resending(partitions=3)
    sent = run.copy(query(41, partition=2, key=b"user-42", query_id="2-abc"))
    assert sent.partition == partition_for(b"user-42", 3)
    told = run.copy(feedback(9, "2-abc", partition=2, key=None))
    assert (told.partition, said(told)["query_id"]) == (sent.partition, said(sent)["query_id"])


def test_queries_of_different_partitions_that_become_one_keep_different_ids():
    run = resending(partitions=1)
    first, second = run.copy(query(41, partition=2)), run.copy(query(41, partition=3))
    assert said(first)["query_id"] != said(second)["query_id"]


def test_feedback_is_sent_about_queries_of_this_run_only():
    run = resending()
    run.copy(query(1, query_id="0-a"))
    assert said(run.copy(feedback(1, "0-a")))["query_id"] == "0-a~r1"
    assert run.copy(feedback(2, "0-b")) == "no_query"
    assert run.copy(feedback(3, "0-a", partition=1)) == "no_query", "there it was an orphan"


def test_feedback_alone_is_sent_whatever_it_is_about_and_as_it_is():
    for ids in (None, same_id):
        told = feedback(2, "0@41")
        assert resending(queries=False, ids=ids).copy(told).value == told.value
    assert resending(partitions=2, queries=False).copy(feedback(2, "0-b", key=None)) == "no_key"
    assert resending(partitions=2, queries=False).copy(feedback(2, "0-b", key=b"k")).partition == partition_for(b"k", 2)


def test_only_the_chosen_applications_are_sent_with_feedback_that_does_not_name_any():
    run = resending(applications=["digits"])
    assert run.copy(query(1, query_id="0-a", application="other")) == "other_application"
    run.copy(query(2, query_id="0-b"))
    assert run.copy(feedback(1, "0-a")) == "no_query"
    assert said(run.copy(feedback(2, "0-b")))["query_id"] == "0-b~r1"
    assert run.copy(record(3, b"\xff", topic=SOURCE.queries)) == "unreadable"


@pytest.mark.parametrize("value", [b"\xff", b"[1]", b"", None, b'{"query_id": 7}', b'{"a": ' + b"[" * 10_000])
@pytest.mark.parametrize("topic", [SOURCE.queries, SOURCE.feedback])
def test_what_cannot_be_read_is_sent_as_it_is(value, topic):
    assert resending().copy(record(3, value, topic=topic)).value == value


@pytest.mark.parametrize("topic", [SOURCE.queries, SOURCE.feedback])
def test_a_record_with_neither_key_nor_value_is_left_out(topic):
    assert resending().copy(record(3, None, key=None, topic=topic)) == "empty"


def test_a_marker_of_a_restore_is_never_sent():
    marker = [("clipper-restore", b"r-0123456789abcdef")]
    for run in (resending(), resending(queries=False, ids=same_id, prefix="clipper")):
        assert run.copy(feedback(2, "0-b", headers=marker)) == "restore_marker"


def test_feedback_follows_the_query_of_its_application_under_an_id_of_two():
    run = resending(partitions=3)
    for offset, (application, key) in enumerate((("digits", b"ada"), ("spam", b"user-42"))):
        run.copy(query(offset, key=key, query_id="q", application=application))
    asked = [("digits", b"ada"), ("spam", b"user-42"), (None, b"ada")]
    told = [run.copy(feedback(2, "q", key=None, application=name)).partition for name, _ in asked]
    assert told == [partition_for(key, 3) for _, key in asked]
    assert told[0] != told[1]
    assert run.copy(feedback(3, "q", application="nobody")) == "no_query"


def test_only_the_last_queries_are_remembered():
    sent = SentQueries(most=10)
    for number in range(100):
        sent.note(0, str(number), "digits", 1)
    known = [number for number in range(100) if sent.partition_of(0, str(number), None) is not None]
    assert 5 <= len(known) <= 10
    assert known[-1] == 99
