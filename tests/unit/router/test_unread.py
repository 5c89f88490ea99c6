"""What a router restores begins where the first record that it still has to read may reach back to."""

import pytest
from aiokafka import TopicPartition
from builders.kafka import FakeLogReader, FakeProducer

from clipper_agents.router.indexed_log import first_unread_ms

FEEDBACK, QUERIES = TopicPartition("feedback", 0), TopicPartition("queries", 0)
PREDICTIONS = TopicPartition("predictions", 0)
STAMPS_MS = {"feedback": 70_000, "queries": 50_000, "predictions": 90_000}


class StampedReader(FakeLogReader):
    """Records have the timestamp of their topic."""

    async def read(self, starts, apply, ends=None, since_ms=None):
        for tp in starts:
            self._timestamp_ms = STAMPS_MS[tp.topic]
            await super().read({tp: starts[tp]}, apply, ends, since_ms)


CASES = {
    "the oldest unread record counts": ([FEEDBACK] * 3, {FEEDBACK: 1, QUERIES: 0}, [], {}, 70_000),
    "of an unread query and feedback the older": ([FEEDBACK, QUERIES], {FEEDBACK: 0, QUERIES: 0}, [], {}, 50_000),
    "else the last prediction": ([PREDICTIONS] * 3, {FEEDBACK: 0}, [], {}, 90_000),
    "else nothing": ([], {FEEDBACK: 0}, [], {}, 0),
    "a broker names an end too early": ([FEEDBACK], {FEEDBACK: 0}, [0], {}, 0),
    "but an end is proven": ([FEEDBACK], {FEEDBACK: 0}, [0], {FEEDBACK: 1}, 70_000),
    "a marker behind the last record is nothing unread": ([PREDICTIONS], {FEEDBACK: 0}, [], {FEEDBACK: 1}, 90_000),
}


@pytest.mark.parametrize(("records", "positions", "stale_ends", "proven", "expected_ms"), CASES.values(), ids=CASES)
async def test_what_is_unread_begins(records, positions, stale_ends, proven, expected_ms):
    producer = FakeProducer()
    for tp in records:
        producer.append(tp.topic, tp.partition, None, b"")
    reader = StampedReader(producer)
    reader.stale_ends = stale_ends
    elsewhere = {TopicPartition("feedback", 1): 0}
    found = await first_unread_ms(reader, positions | elsewhere, "predictions", proven)
    assert found == {0: expected_ms, 1: 0}
