"""Batches reach their partition in order, and a broker that is away delays them and no more."""

import asyncio
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
from builders.kafka import FakeProducer, settle

from clipper_agents.kafka import retry
from clipper_agents.streaming import partition_writer
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.outbox import BATCH_MAX_AGE_S, UNKNOWN_OFFSET, Outbox
from clipper_agents.streaming.partition_writer import PartitionWriter, WriterForgotten
from clipper_topics.connection import KafkaConnection

NOWHERE = KafkaConnection(bootstrap="127.0.0.1:1")


def send(producer, *sizes_bytes):
    """Send records of these sizes, keyed by their numbers; their offsets."""
    records = [(b"%d" % number, b"x" * size_bytes, ()) for number, size_bytes in enumerate(sizes_bytes)]
    return asyncio.run(Outbox(producer).send("topic", 0, records))


def keys(producer):
    return [key for key, *_ in producer.logs["topic", 0]]


@pytest.mark.parametrize(
    ("batch_bytes", "sizes_bytes"),
    [(1000, [300] * 10), (100, [1, 500, 1]), (100, [])],
    ids=["several batches", "one that is larger than a batch", "no records"],
)
def test_records_stand_in_the_log_in_order_with_their_offsets(batch_bytes, sizes_bytes):
    producer = FakeProducer(batch_bytes)
    producer.append("topic", 0, b"before", b"")
    assert send(producer, *sizes_bytes) == [*range(1, len(sizes_bytes) + 1)]
    assert keys(producer) == [b"before", *(b"%d" % number for number in range(len(sizes_bytes)))]


@pytest.mark.parametrize("outage", [KafkaTimeoutError, UnknownTopicOrPartitionError])
def test_a_batch_that_cannot_be_queued_is_offered_again_and_that_is_no_flood_of_lines(caplog, outage):
    producer = FakeProducer()
    producer.away, producer.outage = 5, outage
    assert send(producer, 300, 300) == [0, 1]
    assert keys(producer) == [b"0", b"1"]
    assert caplog.messages == [f"broker does not take records of topic-0: {outage()!r}, trying again"]


def test_offsets_that_the_broker_does_not_tell_are_unknown():
    producer = FakeProducer()
    producer.hide_offsets = True
    assert send(producer, 1, 1) == [UNKNOWN_OFFSET, UNKNOWN_OFFSET]


def test_a_batch_that_was_lost_raises():
    producer = FakeProducer()
    producer.failure = OutOfOrderSequenceNumber()
    with pytest.raises(OutOfOrderSequenceNumber):
        send(producer, 1)


@pytest.mark.parametrize(("timestamp_ms", "stamped_s"), [(-1, None), (1_500, 1.5)])
async def test_a_submitted_batch_is_acknowledged_later_with_the_brokers_time_if_it_tells(timestamp_ms, stamped_s):
    producer = FakeProducer()
    producer.hold, producer.timestamp_ms = True, timestamp_ms
    delivery = await Outbox(producer).submit("topic", 0, [(None, b"a", ()), (None, b"b", ())])
    waiting = asyncio.ensure_future(delivery.offsets())
    await settle()
    assert (waiting.done(), delivery.stamped_s) == (False, None)
    producer.release()
    assert await waiting == [0, 1]
    assert delivery.stamped_s == stamped_s


# --- aiokafka's producers, without a broker -----------------------------------------------------------------------
@pytest.fixture
def starts(monkeypatch):
    """The producers that were started, after two attempts that find nobody, with what each was made with."""
    found, errors = [], [KafkaConnectionError("gone"), KafkaConnectionError("gone")]

    async def start(producer):
        if errors:
            raise errors.pop()
        found.append(producer)

    monkeypatch.setattr(AIOKafkaProducer, "start", start)
    monkeypatch.setitem(retry.retry.__kwdefaults__, "wait_s", 0.0)
    return found


async def test_a_producer_that_finds_no_broker_at_its_start_waits_for_one(starts, tmp_path):
    """The process had looked, and found one that was about to end."""
    app = ClipperApp("app", NOWHERE, tmp_path, "instance")
    await app.maybe_start_producer()
    assert starts == [app.kafka_producer]


async def _nothing(*_):
    pass


@pytest.fixture
async def writer(starts, monkeypatch):
    monkeypatch.setattr(partition_writer, "write_markers", _nothing)
    found = PartitionWriter(NOWHERE, "topic", 0, ())
    await found.take_over()
    return found


async def test_what_the_writer_of_a_partition_has_queued_outlasts_an_outage(writer, starts):
    """It failed after the ten seconds of a request, and with it the router, when a broker was started again."""
    assert starts[-1]._message_accumulator._batch_ttl == BATCH_MAX_AGE_S


async def test_a_writer_that_kafka_has_forgotten_says_so(writer, starts):
    """A transactional id that wrote nothing for seven days is forgotten, whether its producer is connected or not."""

    async def fails(*_, **__):
        raise KafkaError("Unexpected error during batch delivery") from InvalidProducerIdMapping()

    producer = starts[-1]
    producer.begin_transaction, producer.create_batch, producer.send_batch = (
        _nothing,
        FakeProducer().create_batch,
        fails,
    )
    producer._txn_manager = SimpleNamespace(_transaction_waiter=asyncio.Future())
    with pytest.raises(WriterForgotten, match="topic-0"):
        await writer.write([(b"k", b"v", ())])
