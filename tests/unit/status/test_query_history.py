"""Where the records of a query are, and how little of the logs is read for them; without a Kafka."""

import json
import math
import time

import msgspec
import pytest
from builders.kafka import record

from clipper_agents.feedback.feedback_step import OrphanFeedback, UnusableFeedback
from clipper_agents.status.query_history import LogSearch, id_part, named_offset, partitions_of_query
from clipper_stream.client.client_records import partition_for
from clipper_topics.catalogue import Catalogue
from clipper_topics.dead_letter import dead_letter_headers
from clipper_topics.prediction import REASONS, REFUSALS
from clipper_topics.query_ids import offset_id

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


# --- records: topic, age and content ----------------------------------------------------------------------------------
def prediction(age_s, query_id="q", *, asked_age_s=None, **fields):
    asked_ms = NOW_MS - int((age_s if asked_age_s is None else asked_age_s) * 1000)
    content = {"query_id": query_id, "application": "app", "query_offset": 7, "queried_at_ms": asked_ms}
    return TOPICS.predictions, age_s, content | fields


def query(age_s, query_id="q", application="app"):
    return TOPICS.queries, age_s, {"query_id": query_id, "application": application, "input": [1]}


def feedback(age_s, query_id="q", **fields):
    return TOPICS.feedback, age_s, {"query_id": query_id, "label": 1} | fields


def acknowledgement(offset, outcome, explanation=None):
    content = {"query_id": "q", "outcome": outcome, "explanation": explanation, "feedback_offset": offset}
    return TOPICS.feedback_acks, 1, content


def letter(offset, error, topic=TOPICS.feedback):
    return TOPICS.dead_letters, 1, {"query_id": "q", "label": 1}, dead_letter_headers(topic, 0, offset, error)


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
def test_the_id_names_the_partition_or_the_context_is_the_key_or_else_it_may_be_any(query_id, context, partition):
    first, *others = partitions_of_query(query_id, context, 4)
    assert first == partition
    is_named = context is not None or query_id in (ROUTERS_ID, offset_id(2, 41))
    assert sorted(others) == ([] if is_named else [one for one in range(4) if one != partition])


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
OTHERS = [prediction(age_s, "other") for age_s in (3000, 300, 30)]
REPEATED = [OTHERS[0], prediction(2000, output=1), prediction(1, asked_age_s=2000, output=2)]
NONSENSE = [
    prediction(1, "q1"),
    (TOPICS.predictions, 1, b"q {"),
    (TOPICS.predictions, 1, {"query_id": "q", "application": "app", "models": 1}),
    (TOPICS.predictions, 1, {"query_id": "x", "application": "q"}),
    prediction(1, application="other", output=1),
]
NAMELESS = [(TOPICS.queries, age_s, {"application": "app", "input": [1]}) for age_s in (3001, 3000)]
NAMED = offset_id(0, 1)
ANSWERED = [*NAMELESS, prediction(3100, "other"), prediction(2999, NAMED, output=1), prediction(1, "other")]
OWN_ID = [query(1, "own"), (TOPICS.queries, 1, b"nonsense")]


@pytest.mark.parametrize(
    ("records", "asked", "query_offset", "age_s", "output", "read"),
    [
        ([*OTHERS, prediction(1, output=1)], {}, 7, 1, 1, [3]),
        ([prediction(3601, output=1)], {}, None, None, None, []),
        ([prediction(2, output=1), prediction(1, output=2)], {}, 7, 2, 1, [0, 1]),
        (REPEATED, {}, 7, 2000, 1, [2, 1]),
        (NONSENSE, {}, None, None, None, [0, 1, 2, 3, 4]),
        (NONSENSE, {"application": None}, 7, 1, 1, [0, 1, 2, 3, 4]),
        ([*OTHERS, query(2), query(1)], {}, 0, 2, None, []),
        ([query(3000), query(20, application="other")], {}, 0, 3000, None, []),
        ([feedback(1)], {}, None, None, None, []),
        (NAMELESS, {"query_id": NAMED}, 1, 3000, None, []),
        (ANSWERED, {"query_id": NAMED}, 7, 2999, 1, [1, 2]),
        *((OWN_ID, {"query_id": query_id}, None, None, None, []) for query_id in ("0@0", "0@1", "0@77", "0@00")),
    ],
)
async def test_the_first_record_about_a_query_is_found(logs, records, asked, query_offset, age_s, output, read):
    """Within the time that is asked for: what is new without what is old, and what is being decided without answers.

    An id of a router leads to its query and the answer behind it, unless that query has an id of its own.
    """
    for one in records:
        logs.add(*one)
    found = await history(logs, **asked)
    assert found.query == (None if query_offset is None else (0, query_offset, NOW_MS - age_s * 1000))
    assert (found.prediction.output if found.prediction else None) == output
    assert (found.feedback, found.complete) == ((), True)
    assert logs.read_offsets.get(TOPICS.predictions, []) == read


@pytest.mark.parametrize("age_s", [1, 30, 300, 3000])
async def test_a_query_of_any_age_is_found_and_nothing_is_read_twice(logs, age_s):
    for each in sorted((age_s, 3500, 3000.5, 300.5, 30.5, 1.5), reverse=True):
        logs.add(*prediction(each, "q" if each == age_s else "other"))
    found = await history(logs)
    assert (found.query, found.complete) == ((0, 7, NOW_MS - age_s * 1000), True)
    read = logs.read_offsets[TOPICS.predictions]
    assert len(read) == len(set(read))


async def test_a_search_ends_after_so_many_records_and_says_so(logs):
    for _ in range(3000):
        logs.add(*prediction(100, "other"))
    assert (await history(logs)).complete
    logs.read_offsets.clear()
    found = await history(logs, most_records=1000)
    assert (found.query, found.complete) == (None, False)
    assert len(logs.read_offsets[TOPICS.predictions]) == 1000


async def test_a_search_that_takes_too_long_says_what_it_knows(logs):
    for one in (prediction(1), feedback(0.5, "other"), acknowledgement(0, "applied")):
        logs.add(*one)
    found = await history(logs, until_s=time.monotonic() - 1)
    assert (found.prediction.query_id, found.complete) == ("q", False)
    assert TOPICS.feedback_acks not in logs.read_offsets


# --- feedback ---------------------------------------------------------------------------------------------------------
ORPHAN = letter(0, OrphanFeedback("no decision"))
"""It may be written twice, by a step that was cut in two."""
TOLD = {
    "acknowledged": [
        acknowledgement(77, "applied"),
        acknowledgement(0, "applied"),
        acknowledgement(1, "repeated", "why"),
    ],
    "refused": [
        letter(2, ValueError("no query"), TOPICS.queries),
        *(ORPHAN, ORPHAN, letter(1, UnusableFeedback("no number"))),
        (TOPICS.dead_letters, 1, b"q is no letter"),
    ],
}
OF_OTHERS = [feedback(9, "q1"), feedback(8, application="other"), (TOPICS.feedback, 8, b"q {")]


@pytest.mark.parametrize(
    ("records", "outcomes"),
    [
        (
            [*(feedback(age_s, ack=age_s > 6) for age_s in (9, 8, 7, 6)), *TOLD["acknowledged"]],
            [(0, "applied", None), (1, "repeated", "why"), (2, None, None), (3, None, None)],
        ),
        (
            [*(feedback(age_s, ack=age_s == 8) for age_s in (9, 8, 7)), *TOLD["refused"]],
            [(0, "orphan", "no decision"), (1, "invalid", "no number"), (2, None, None)],
        ),
        (
            [feedback(15.1), feedback(14.9), *OF_OTHERS, feedback(7, application="app")],
            [(1, None, None), (5, None, None)],
        ),
    ],
    ids=["acknowledged", "refused", "too early and about others"],
)
async def test_feedback_has_the_outcome_that_its_acknowledgement_or_a_dead_letter_tells(logs, records, outcomes):
    for one in (prediction(10), *records):
        logs.add(*one)
    found = (await history(logs, application=None)).feedback
    assert [(one.offset, one.outcome, one.explanation) for one in found] == outcomes
    assert {one.said.label for one in found} == {1}


async def test_acknowledgements_are_read_until_all_are_known(logs):
    for one in (prediction(10), feedback(9, ack=True), acknowledgement(0, "applied")):
        logs.add(*one)
    for _ in range(1000):
        logs.add(*acknowledgement(88, "applied"))
    assert (await history(logs)).feedback[0].outcome == "applied"
    assert len(logs.read_offsets[TOPICS.feedback_acks]) == 500
    assert TOPICS.dead_letters not in logs.read_offsets


def test_a_refusal_is_one_of_the_reasons():
    assert REASONS.keys() >= REFUSALS
