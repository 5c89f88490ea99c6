"""What a router restores begins where the first record that it still has to read may reach back to."""

from aiokafka import TopicPartition
from builders.kafka import FakeLogReader, FakeProducer

from clipper_agents.router.indexed_log import first_unread_ms


async def test_the_oldest_unread_record_of_a_partition_counts_else_its_last_prediction():
    producer = FakeProducer()
    reader = FakeLogReader(producer, timestamp_ms=90_000)
    for number in range(3):
        producer.append("feedback", 0, None, b"%d" % number)
        producer.append("predictions", 1, None, b"")
    positions = {TopicPartition("feedback", 0): 1, TopicPartition("queries", 0): 0}
    positions |= {TopicPartition("feedback", partition): 0 for partition in (1, 2)}
    assert await first_unread_ms(reader, positions, "predictions", {}) == {0: 90_000, 1: 90_000, 2: 0}


async def test_of_an_unread_query_and_an_unread_feedback_the_older_one_counts():
    producer = FakeProducer()
    for topic in ("feedback", "queries"):
        producer.append(topic, 0, None, b"")
    reader = StampedReader(producer, {"feedback": 70_000, "queries": 50_000})
    positions = {TopicPartition(topic, 0): 0 for topic in ("feedback", "queries")}
    assert await first_unread_ms(reader, positions, "predictions", {}) == {0: 50_000}


async def test_an_end_that_a_broker_names_too_early_leaves_nothing_unread():
    producer = FakeProducer()
    producer.append("feedback", 0, None, b"")
    reader, tp = FakeLogReader(producer, timestamp_ms=50_000), TopicPartition("feedback", 0)
    reader.stale_ends = [0, 0]
    assert await first_unread_ms(reader, {tp: 0}, "predictions", {}) == {0: 0}
    assert await first_unread_ms(reader, {tp: 0}, "predictions", {tp: 1}) == {0: 50_000}


async def test_a_marker_behind_the_last_record_is_nothing_unread():
    """All of the log was read to find the time of a record that is not there."""
    producer = FakeProducer()
    producer.append("predictions", 0, None, b"")
    reader, tp = FakeLogReader(producer, timestamp_ms=50_000), TopicPartition("feedback", 0)
    assert await first_unread_ms(reader, {tp: 0}, "predictions", {tp: 1}) == {0: 50_000}


class StampedReader(FakeLogReader):
    """Records have the timestamp of their topic."""

    def __init__(self, producer, stamps):
        super().__init__(producer)
        self._stamps = stamps

    async def read(self, starts, apply, ends=None, since_ms=None):
        count = 0
        for tp in starts:
            self._timestamp_ms = self._stamps[tp.topic]
            count += await super().read({tp: starts[tp]}, apply, ends, since_ms)
        return count
