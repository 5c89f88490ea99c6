"""Where the records of a query are, and how little of the logs is read for them; without a Kafka."""

import json
import math
import time

import msgspec
import pytest
from builders.kafka import record

from clipper_agents.feedback.feedback_step import OrphanFeedback, UnusableFeedback
from clipper_agents.status.feedback_outcome import FeedbackTrace
from clipper_agents.status.query_history import LogSearch, QueryHistory, id_part, named_offset, partition_of_query
from clipper_stream.client.keys import partition_for
from clipper_topics.catalogue import Catalogue
from clipper_topics.dead_letter import dead_letter_headers
from clipper_topics.prediction import REASONS, REFUSALS
from clipper_topics.query_ids import offset_id
from clipper_topics.selection_rows import POSITION, RowKey, config_context, encode_key, encode_row, note_row

TOPICS = Catalogue()
NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000


class MemoryReader:
    """Reads logs in memory.

    Attributes:
        read_offsets: Offsets that were read of each topic.
    """

    def __init__(self):
        self.logs, self.read_offsets = {}, {}

    def add(self, topic, age_s, content, headers=()):
        log = self.logs.setdefault(topic, [])
        value = content if isinstance(content, bytes) else json.dumps(content).encode()
        log.append(record(len(log), value, topic=topic, headers=headers, timestamp=NOW_MS - int(age_s * 1000)))
        return len(log) - 1

    async def end_offsets(self, partitions):
        return {tp: len(self.logs.get(tp.topic, ())) for tp in partitions}

    async def offsets_at(self, partitions, at_ms):
        (tp,) = partitions
        found = [one.offset for one in self.logs.get(tp.topic, ()) if one.timestamp >= at_ms]
        return {tp: found[0]} if found else {}

    async def lists(self, ranges, max_records):
        ((tp, (first, end)),) = ranges.items()
        for start in range(first, end, max_records):
            records = self.logs[tp.topic][start : min(end, start + max_records)]
            self.read_offsets.setdefault(tp.topic, []).extend(one.offset for one in records)
            yield tp, records

    async def read(self, starts, apply, ends):
        ((tp, start),) = starts.items()
        apply(tp, self.logs[tp.topic][start : ends[tp]])


@pytest.fixture
def logs():
    return MemoryReader()


async def history(logs, query_id="q", application="app", *, most_records=1_000_000, until_s=math.inf):
    search = LogSearch(
        reader=logs, topics=TOPICS, query_id=query_id, application=application, partition=0,
        since_ms=NOW_MS - HOUR_MS, records_left=most_records, until_s=until_s,
    )  # fmt: skip
    return await search.history(NOW_MS)


def predict(logs, age_s, query_id="q", *, asked_age_s=None, **fields):
    asked_ms = NOW_MS - int((age_s if asked_age_s is None else asked_age_s) * 1000)
    content = {"query_id": query_id, "application": "app", "query_offset": 7, "queried_at_ms": asked_ms}
    return logs.add(TOPICS.predictions, age_s, content | fields)


def ask(logs, age_s, query_id="q", application="app"):
    return logs.add(TOPICS.queries, age_s, {"query_id": query_id, "application": application, "input": [1]})


# --- ids --------------------------------------------------------------------------------------------------------------
ROUTERS_ID = "3-a78691257be86c432499de70199ce80c"


@pytest.mark.parametrize(
    ("query_id", "context", "partition"),
    [
        (ROUTERS_ID, None, 3),
        (ROUTERS_ID, "ada", 3),
        (offset_id(2, 41), None, 2),
        ("order 7", None, partition_for(b"order 7", 4)),
        ("order 7", "ada", partition_for(b"ada", 4)),
        ("order 7", "", partition_for(b"", 4)),
        ("7@41", None, partition_for(b"7@41", 4)),
        ("été", None, partition_for("été".encode(), 4)),
    ],
)
def test_the_id_names_the_partition_or_the_context_or_the_id_is_the_key(query_id, context, partition):
    assert partition_of_query(query_id, context, 4) == partition


@pytest.mark.parametrize(
    "query_id",
    ["order/7", 'a"b\\c', "<é&b>", "été", "'", "7", "1-191c86098f986a655839f5c03e7b77c4", "a b_c-d.e:f@g", "\n"],
)
def test_a_part_of_an_id_stands_in_every_record_as_it_is(query_id):
    in_php = json.dumps(query_id).replace("/", "\\/")
    in_html = "".join(f"\\u{ord(one):04x}" if one in "<>&'=" else one for one in json.dumps(query_id))
    encoded = (msgspec.json.encode(query_id), msgspec.msgpack.encode(query_id), in_php.encode(), in_html.encode())
    assert all(id_part(query_id) in one for one in encoded)


def test_of_plain_ids_the_whole_id_is_looked_for_and_an_id_of_a_router_names_an_offset():
    assert [id_part(one) for one in ("order-7", offset_id(1, 2), "'")] == [b"order-7", b"1@2", b""]
    assert [named_offset(one) for one in ("3@41", "ada@41", ROUTERS_ID, "3@" + "9" * 5000)] == [41, None, None, None]


# --- looking back -----------------------------------------------------------------------------------------------------
async def test_of_a_new_query_nothing_old_is_read(logs):
    for age_s in (3000, 300, 30):
        predict(logs, age_s, "other")
    found = predict(logs, 1)
    assert (await history(logs)).prediction.query_id == "q"
    assert logs.read_offsets == {TOPICS.predictions: [found]}


@pytest.mark.parametrize("age_s", [1, 30, 300, 3000])
async def test_a_query_of_any_age_is_found_and_nothing_is_read_twice(logs, age_s):
    ages_s = sorted((age_s, 3500, 3000.5, 300.5, 30.5, 1.5), reverse=True)
    for each in ages_s:
        predict(logs, each, "q" if each == age_s else "other")
    found = await history(logs)
    assert found.query == (0, 7, NOW_MS - age_s * 1000)
    assert found.complete
    read = logs.read_offsets[TOPICS.predictions]
    assert len(read) == len(set(read))


async def test_of_predictions_about_a_query_within_the_time_that_is_asked_for_the_first_counts(logs):
    predict(logs, 3601, output=0)
    assert (await history(logs)).query is None
    predict(logs, 3000, "other")
    first = predict(logs, 2000, output=1)
    predict(logs, 1, asked_age_s=2000, output=2)
    assert (await history(logs)).prediction.output == 1
    assert min(logs.read_offsets[TOPICS.predictions]) == first
    predict(logs, 1, "r", output=1)
    predict(logs, 1, "r", output=2)
    assert (await history(logs, "r")).prediction.output == 1


async def test_other_ids_and_applications_and_nonsense_are_passed_over(logs):
    predict(logs, 1, "q1")
    predict(logs, 1, application="other")
    logs.add(TOPICS.predictions, 1, b"q {")
    logs.add(TOPICS.predictions, 1, {"query_id": "q", "application": "app", "models": 1})
    logs.add(TOPICS.predictions, 1, {"query_id": "x", "application": "q"})
    assert (await history(logs)).prediction is None
    assert (await history(logs, application=None)).prediction.application == "other"


async def test_a_query_that_is_being_decided_is_known_without_reading_old_predictions(logs):
    for age_s in (3000, 300, 30):
        predict(logs, age_s, "other")
    offset = ask(logs, 2)
    ask(logs, 1)
    found = await history(logs)
    assert (found.query, found.prediction) == ((0, offset, NOW_MS - 2000), None)
    assert TOPICS.predictions not in logs.read_offsets


async def test_an_old_query_without_an_answer_is_found_too_and_nothing_of_an_id_that_nobody_has(logs):
    offset = ask(logs, 3000)
    ask(logs, 20, application="other")
    assert (await history(logs)).query == (0, offset, NOW_MS - 3_000_000)
    tell(logs, 1, "r")
    assert await history(logs, "r") == QueryHistory()


async def test_an_id_of_a_router_leads_to_its_query_and_the_answer_behind_it(logs):
    query_id = offset_id(0, 1)
    logs.add(TOPICS.queries, 3001, {"application": "app", "input": [1]})
    logs.add(TOPICS.queries, 3000, {"application": "app", "input": [1]})
    assert (await history(logs, query_id)).query == (0, 1, NOW_MS - 3_000_000)
    predict(logs, 3100, "other")
    found = predict(logs, 2999, query_id)
    predict(logs, 1, "other")
    assert (await history(logs, query_id)).prediction is not None
    assert logs.read_offsets[TOPICS.predictions] == [found, found + 1]


@pytest.mark.parametrize("query_id", ["0@0", "0@1", "0@77", "0@00"])
async def test_an_id_of_a_router_for_a_query_with_an_id_of_its_own_is_unknown(logs, query_id):
    ask(logs, 1, "own")
    logs.add(TOPICS.queries, 1, b"nonsense")
    found = await history(logs, query_id)
    assert (found.query, found.complete) == (None, True)


# --- bounds -----------------------------------------------------------------------------------------------------------
async def test_a_search_ends_after_so_many_records_and_says_so(logs):
    for _ in range(3000):
        predict(logs, 100, "other")
    assert (await history(logs)).complete
    logs.read_offsets.clear()
    found = await history(logs, most_records=1000)
    assert (found.query, found.complete) == (None, False)
    assert len(logs.read_offsets[TOPICS.predictions]) == 1000


async def test_a_search_that_takes_too_long_says_what_it_knows(logs):
    predict(logs, 1)
    logs.add(TOPICS.feedback, 0.5, {"query_id": "other", "label": 1})
    logs.add(TOPICS.feedback_acks, 0.5, {"query_id": "other", "outcome": "applied", "feedback_offset": 0})
    found = await history(logs, until_s=time.monotonic() - 1)
    assert (found.prediction.query_id, found.complete) == ("q", False)
    assert TOPICS.feedback_acks not in logs.read_offsets


# --- feedback ---------------------------------------------------------------------------------------------------------
def tell(logs, age_s, query_id="q", **fields):
    return logs.add(TOPICS.feedback, age_s, {"query_id": query_id, "label": 1} | fields)


def acknowledge(logs, offset, outcome, explanation=None, query_id="q"):
    content = {"query_id": query_id, "outcome": outcome, "explanation": explanation, "feedback_offset": offset}
    logs.add(TOPICS.feedback_acks, 1, content)


def refuse(logs, offset, error, topic=TOPICS.feedback):
    logs.add(TOPICS.dead_letters, 1, {"query_id": "q", "label": 1}, dead_letter_headers(topic, 0, offset, error))


async def test_feedback_has_the_outcome_that_its_acknowledgement_tells(logs):
    predict(logs, 10)
    applied, duplicate = tell(logs, 9, ack=True), tell(logs, 8, ack=True)
    waits, unasked = tell(logs, 7, ack=True), tell(logs, 6)
    acknowledge(logs, 77, "applied")
    acknowledge(logs, applied, "applied")
    acknowledge(logs, duplicate, "duplicate", "why")
    found = (await history(logs)).feedback
    assert [(one.offset, one.outcome, one.explanation) for one in found] == [
        (applied, "applied", None), (duplicate, "duplicate", "why"), (waits, None, None), (unasked, None, None),
    ]  # fmt: skip
    assert [one.said.label for one in found] == [1, 1, 1, 1]


async def test_acknowledgements_are_read_until_all_are_known(logs):
    predict(logs, 10)
    acknowledge(logs, tell(logs, 9, ack=True), "applied")
    for _ in range(1000):
        acknowledge(logs, 88, "applied")
    assert (await history(logs)).feedback[0].outcome == "applied"
    assert len(logs.read_offsets[TOPICS.feedback_acks]) == 500
    assert TOPICS.dead_letters not in logs.read_offsets


async def test_feedback_that_was_refused_is_found_among_the_dead_letters(logs):
    predict(logs, 10)
    orphan, invalid, counted = tell(logs, 9), tell(logs, 8, ack=True), tell(logs, 7)
    refuse(logs, counted, ValueError("no query"), TOPICS.queries)
    refuse(logs, orphan, OrphanFeedback("no decision"))
    refuse(logs, orphan, OrphanFeedback("no decision"))  # written twice by a step that was cut in two
    refuse(logs, invalid, UnusableFeedback("no number"))
    logs.add(TOPICS.dead_letters, 1, b"q is no letter")
    found = (await history(logs)).feedback
    assert [(one.outcome, one.explanation) for one in found] == [
        ("orphan", "no decision"), ("invalid", "no number"), (None, None),
    ]  # fmt: skip


async def test_feedback_about_others_is_passed_over(logs):
    tell(logs, 15.1)  # earlier than feedback may be
    early = tell(logs, 14.9)
    predict(logs, 10)
    tell(logs, 9, "q1")
    tell(logs, 8, application="other")
    logs.add(TOPICS.feedback, 8, b"q {")
    own = tell(logs, 7, application="app")
    assert [one.offset for one in (await history(logs, application=None)).feedback] == [early, own]


# --- what the changelog says about one feedback -------------------------------------------------------------------
ROW, NOTE = RowKey("digits", None, 3), RowKey(*POSITION, 3)


@pytest.mark.parametrize(
    ("records", "position", "is_learned"),
    [
        ([(RowKey("digits", "ada", 3), 41), (NOTE, 41)], 41, True),
        ([(ROW, 40), (NOTE, 40)], 40, False),
        ([(RowKey("digits", None, 2), 41)], -1, False),
        ([(RowKey("", config_context("digits"), 3), 41)], -1, False),
        ([(ROW, None), (b"nonsense", 41)], -1, False),
    ],
    ids=["it ends at the feedback", "it ends before", "of another partition", "another note", "deleted, and no row"],
)
def test_a_row_that_ends_at_the_feedback_was_changed_by_it(records, position, is_learned):
    trace = FeedbackTrace(3, 41)
    for key, value in records:
        trace.take(key if isinstance(key, bytes) else encode_key(key), value and encode_row(note_row(value)))
    assert (trace.position, trace.is_learned) == (position, is_learned)


def test_a_refusal_is_one_of_the_reasons():
    assert REASONS.keys() >= REFUSALS
