"""What a router restores begins where the first record that it still has to read may reach back to."""

import asyncio
from typing import ClassVar

import pytest
from aiokafka import TopicPartition
from builders.kafka import FakeLogReader, FakeProducer

from clipper_agents.kafka.reader import Range
from clipper_agents.router import indexed_log
from clipper_agents.router.indexed_log import unread_since_ms
from clipper_topics.feedback import LONGEST_AWAY_MS, forwarded_header

QUERIES, PREDICTIONS = TopicPartition("queries", 0), TopicPartition("predictions", 0)
FEEDBACK, ELSEWHERE = (TopicPartition("feedback", number) for number in range(2))
STAMPS_MS = {"feedback": 70_000, "queries": 50_000, "predictions": 90_000}
SENT_ON = [forwarded_header(1, 20_000)]


class StampedReader(FakeLogReader):
    """Records have the timestamp of their topic."""

    firsts: ClassVar = {}

    async def beginning_offsets(self, partitions):
        return {tp: self.firsts.get(tp, 0) for tp in partitions}

    async def ranges(self, partitions):
        ends = await self.end_offsets(partitions)
        return {tp: Range(self.firsts.get(tp, 0), ends[tp]) for tp in partitions}

    async def read(self, starts, apply, ends=None, since_ms=None):
        for tp in starts:
            assert starts[tp] >= self.firsts.get(tp, 0), "what was deleted"
            self._timestamp_ms = STAMPS_MS[tp.topic]
            await super().read({tp: starts[tp]}, apply, ends, since_ms)


CASES = {
    "the oldest unread record counts": ([(FEEDBACK, [])] * 3, {FEEDBACK: 1}, [], {}, 70_000),
    "of an unread query and feedback the older": ([(FEEDBACK, []), (QUERIES, [])], {}, [], {}, 50_000),
    "of feedback that was sent on its first record": ([(FEEDBACK, []), (FEEDBACK, SENT_ON)], {}, [], {}, 20_000),
    "and that of another partition, which may be": ([(PREDICTIONS, []), (ELSEWHERE, [])], {}, [], {}, 70_000),
    "else the last prediction": ([(PREDICTIONS, [])] * 3, {}, [], {}, 90_000),
    "else nothing": ([], {}, [], {}, 0),
    "a broker names an end too early": ([(QUERIES, [])], {}, [0], {}, 0),
    "but an end is proven": ([(QUERIES, [])], {}, [0], {QUERIES: 1}, 50_000),
    "a marker behind the last record is nothing unread": ([(PREDICTIONS, [])], {}, [], {QUERIES: 1}, 90_000),
}


async def test_where_the_beginning_of_a_log_was_deleted_it_is_what_is_left_that_is_unread(monkeypatch):
    """Without commits everything is read again, and every query before was decided about once more."""
    monkeypatch.setattr(indexed_log, "LOOK_AHEAD", 1)
    producer = FakeProducer()
    for _ in range(3):
        producer.append("queries", 0, None, b"", [])
    reader = StampedReader(producer)
    reader.firsts = {QUERIES: 2}
    assert await unread_since_ms(reader, {QUERIES: 0}, {FEEDBACK: 0}, "predictions", {}) == {0: STAMPS_MS["queries"]}


async def test_of_very_much_unread_feedback_some_may_be_as_old_as_any(monkeypatch):
    monkeypatch.setattr(indexed_log, "MOST_READ", 1)
    producer = FakeProducer()
    for _ in range(3):
        producer.append("feedback", 0, None, b"", [])
    found = await unread_since_ms(StampedReader(producer), {QUERIES: 0}, {FEEDBACK: 0}, "predictions", {})
    assert found == {0: STAMPS_MS["feedback"] - LONGEST_AWAY_MS}


async def test_feedback_of_others_without_a_leader_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(indexed_log, "OTHERS_S", 0.0)
    reader = StampedReader(FakeProducer())
    reader.ranges = lambda _: asyncio.Event().wait()
    assert await unread_since_ms(reader, {QUERIES: 0}, {ELSEWHERE: 0}, "predictions", {}) == {0: 0}


@pytest.mark.parametrize(("records", "positions", "stale_ends", "proven", "expected_ms"), CASES.values(), ids=CASES)
async def test_what_is_unread_begins(records, positions, stale_ends, proven, expected_ms):
    producer = FakeProducer()
    for tp, headers in records:
        producer.append(tp.topic, tp.partition, None, b"", headers)
    reader = StampedReader(producer)
    reader.stale_ends = stale_ends
    feedback = {FEEDBACK: 0, ELSEWHERE: 0} | positions
    assert await unread_since_ms(reader, {QUERIES: 0}, feedback, "predictions", proven) == {0: expected_ms}
