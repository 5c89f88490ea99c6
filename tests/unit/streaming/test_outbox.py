"""Batches reach their partition in order, and a broker that is away delays them and no more."""

import asyncio
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import (
    InvalidProducerIdMapping,
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    OutOfOrderSequenceNumber,
    UnknownTopicOrPartitionError,
)
from builders.kafka import FakeProducer

from clipper_agents.streaming.outbox import BATCH_MAX_AGE_S, UNKNOWN_OFFSET, Outbox, StrictProducer
from clipper_agents.streaming.partition_writer import PartitionWriter, WriterForgotten
from clipper_topics.connection import KafkaConnection


def send(producer, records, topic="topic", partition=0):
    return asyncio.run(Outbox(producer).send(topic, partition, records))


def records_of(count, size_bytes=300):
    return [(b"%d" % number, b"x" * size_bytes, ()) for number in range(count)]


def test_records_of_several_batches_stand_in_the_log_in_order_with_their_offsets():
    producer = FakeProducer(batch_bytes=1000)
    producer.append("topic", 0, b"before", b"")
    assert send(producer, records_of(10)) == list(range(1, 11))
    assert [key for key, *_ in producer.logs["topic", 0][1:]] == [b"%d" % number for number in range(10)]


def test_nothing_is_sent_for_no_records():
    producer = FakeProducer()
    assert send(producer, []) == []
    assert producer.logs == {}


def test_a_record_larger_than_a_batch_goes_in_one_of_its_own():
    producer = FakeProducer(batch_bytes=100)
    assert send(producer, [(None, b"a", ()), (None, b"x" * 500, ()), (None, b"b", ())]) == [0, 1, 2]


@pytest.mark.parametrize("outage", [KafkaTimeoutError, UnknownTopicOrPartitionError])
def test_a_batch_that_cannot_be_queued_is_offered_again(outage):
    producer = FakeProducer()
    producer.away, producer.outage = 3, outage
    assert send(producer, records_of(2)) == [0, 1]
    assert len(producer.logs["topic", 0]) == 2


def test_sends_that_wait_in_an_outage_say_so_once_in_ten_seconds_and_not_each(caplog):
    producer, times_s = FakeProducer(), iter([0.5 * number for number in range(50)])
    producer.away = 50
    asyncio.run(Outbox(producer, clock=lambda: next(times_s)).send("topic", 0, records_of(1)))
    assert [line for line in caplog.messages if "broker does not take records" in line] == [
        "broker does not take records topic=topic partition=0: trying on"
    ] * 3


def test_offsets_that_the_broker_does_not_tell_are_unknown():
    producer = FakeProducer()
    producer.hide_offsets = True
    assert send(producer, records_of(2)) == [UNKNOWN_OFFSET, UNKNOWN_OFFSET]


def test_a_batch_that_was_lost_raises():
    producer = FakeProducer()
    producer.failure = OutOfOrderSequenceNumber()
    with pytest.raises(OutOfOrderSequenceNumber):
        send(producer, records_of(1))


def test_a_submitted_batch_is_acknowledged_later():
    async def submit():
        producer = FakeProducer()
        producer.hold = True
        delivery = await Outbox(producer).submit("topic", 0, records_of(1))
        waiting = asyncio.ensure_future(delivery.offsets())
        await asyncio.sleep(0)
        assert not waiting.done()
        producer.release()
        assert await waiting == [0]

    asyncio.run(submit())


@pytest.mark.parametrize(("timestamp_ms", "stamped_s"), [(-1, None), (1_500, 1.5)])
def test_a_delivery_says_when_the_broker_took_it_if_the_broker_says_so(timestamp_ms, stamped_s):
    async def delivered():
        producer = FakeProducer()
        producer.timestamp_ms = timestamp_ms
        delivery = await Outbox(producer).submit("topic", 0, records_of(2))
        assert delivery.stamped_s is None
        await delivery.offsets()
        return delivery.stamped_s

    assert asyncio.run(delivered()) == stamped_s


def test_what_the_writer_of_a_partition_has_queued_outlasts_an_outage(monkeypatch):
    """It failed after the ten seconds of a request, and with it the router, when a broker was started again."""

    async def nothing(_):
        pass

    async def made():
        writer = PartitionWriter(KafkaConnection(bootstrap="127.0.0.1:1"), "topic", 0)
        producer = await writer._started(300_000)
        await producer.stop()
        return producer

    monkeypatch.setattr(AIOKafkaProducer, "start", nothing)
    assert asyncio.run(made())._message_accumulator._batch_ttl == BATCH_MAX_AGE_S


def test_a_producer_that_finds_no_broker_at_its_start_waits_for_one(monkeypatch):
    """The process had looked, and found one that was about to end."""
    monkeypatch.setattr("clipper_agents.kafka.retry.RETRY_WAIT_S", 0.0)
    answers = iter([KafkaConnectionError("gone"), KafkaConnectionError("gone"), None])

    async def start():
        if (error := next(answers)) is not None:
            raise error

    found = SimpleNamespace(kafka_producer=SimpleNamespace(start=start))
    asyncio.run(StrictProducer.on_start(found))
    assert found._producer is found.kafka_producer
    assert next(answers, "none is left") == "none is left"


def test_a_writer_that_kafka_has_forgotten_says_so(monkeypatch):
    """A transactional id that wrote nothing for seven days is forgotten, whether its producer is connected or not."""

    async def fails(*_):
        raise KafkaError("Unexpected error during batch delivery") from InvalidProducerIdMapping()

    @asynccontextmanager
    async def transaction(_):
        yield

    monkeypatch.setattr("clipper_agents.streaming.partition_writer.transaction", transaction)
    monkeypatch.setattr(Outbox, "send", fails)
    writer = PartitionWriter(KafkaConnection(bootstrap="127.0.0.1:1"), "topic", 0)
    writer._producer = FakeProducer()
    with pytest.raises(WriterForgotten, match="has forgotten the transactional id topic-0"):
        asyncio.run(writer.write(records_of(1)))
