"""What clients of other languages may put into a record, and a consumer of ours has to survive."""

import struct

import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NotLeaderForPartitionError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from confluent_kafka import KafkaError, Producer

from clipper_agents.kafka.reader import Record, open_reader
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = pytest.mark.integration

_CRC_AT, _CRC_OF = 17, 21


async def read(kafka: KafkaConnection, topic: str) -> list[Record]:
    async with open_reader(kafka, isolation_level="read_uncommitted") as reader:
        return await reader.read_all([TopicPartition(topic, 0)])


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("name", ["queries", "feedback", "control", "predictions"])
async def test_records_are_read_however_a_client_compresses_them(kafka, catalogue: Catalogue, codec: str, name: str):
    topic = getattr(catalogue, name)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "compression.type": codec})
    producer.produce(topic, b"v" * 10_000, b"k", 0)
    assert producer.flush(60) == 0  # what applications write is stored plain, all else as the cluster says
    (record,) = await read(kafka, topic)
    assert record.value == b"v" * 10_000


@pytest.mark.parametrize(("records", "errors"), [(2, {None}), (3, {KafkaError.MSG_SIZE_TOO_LARGE})])
async def test_a_compressed_batch_is_bounded_by_its_size_unpacked(kafka, catalogue: Catalogue, records, errors):
    large = {"message.max.bytes": 8_000_000, "batch.size": 8_000_000, "linger.ms": 60_000, "compression.type": "zstd"}
    producer, found = Producer({"bootstrap.servers": kafka.bootstrap, **large}), []
    for _ in range(records):
        producer.produce(
            catalogue.queries,
            b"v" * 400_000,
            b"k",
            0,
            on_delivery=lambda error, _: found.append(error and error.code()),
        )
    assert producer.flush(60) == 0
    assert (len(found), set(found)) == (records, errors)


async def test_a_header_whose_name_is_no_utf_8_stops_no_consumer(kafka, catalogue: Catalogue):
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    for offset in range(3):
        builder.append(offset, 1_000, b"k", b"%d" % offset, [("strange", b"x")] if offset == 1 else [])
    batch = bytearray(builder.build())
    batch[batch.index(b"strange")] = 0xFF
    struct.pack_into(">I", batch, _CRC_AT, calc_crc32c(memoryview(bytes(batch))[_CRC_OF:]))
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    await client.bootstrap()
    try:
        await client.force_metadata_update()
        (node,) = {broker.nodeId for broker in client.cluster.brokers()}
        request = ProduceRequest(
            transactional_id=None,
            required_acks=1,
            timeout=10_000,
            topics=[(catalogue.queries, [(0, bytes(batch))])],
        )
        error_code = NotLeaderForPartitionError.errno
        while error_code == NotLeaderForPartitionError.errno:  # the topic is new
            response = await client.send(node, request)
            ((_, ((_, error_code, *_),)),) = response.topics
        assert error_code == 0, response
    finally:
        await client.close()
    found = await read(kafka, catalogue.queries)
    assert [one.value for one in found] == [b"0", b"1", b"2"]
    assert found[1].headers == (("\ufffdtrange", b"x"),)
