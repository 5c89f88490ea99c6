import gc
import weakref
from types import SimpleNamespace
from unittest.mock import AsyncMock, Mock

import pytest
from aiokafka import TopicPartition, client
from aiokafka.consumer import fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.errors import KafkaError
from aiokafka.protocol.commit import OffsetFetchRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from clipper_agents.kafka import aiokafka_patches
from clipper_agents.kafka.aiokafka_patches import (
    EmptyOffsets,
    LeanKeys,
    LeanPartitionRecords,
    LeanRecord,
    RereadableRecords,
    connect_in_time,
    install,
    install_records,
)

TP = TopicPartition("queries", 3)
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
ATTRIBUTES_AT, LARGEST_TIMESTAMP_AT, RECORDS_AT = 22, 35, 61
"""Offsets in a batch: of the low byte of its attributes, of its largest timestamp, and of its first record."""
ATTRIBUTES = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")


def batch(base, count=1, *, key=b"key", value=None, codec=0, producer=-1):
    """Records from an offset on; of two, the first has no key and the second a header."""
    builder = DefaultRecordBatchBuilder(2, codec, int(producer >= 0), producer, 0, 0, 10_000)
    for place in range(count):
        headers = [("content-type", b"application/json")] if place else []
        content = b"value %d" % (base + place) if value is None else value
        builder.append(place, 1_000 + place, key if place or count == 1 else None, content, headers)
    found = bytearray(builder.build())
    found[:8] = base.to_bytes(8, "big")
    return found


def fetched(*batches, kind=LeanPartitionRecords, first_offset=0, aborted=(), isolation=READ_UNCOMMITTED):
    """A fetch of these batches, by default of two with two records each, as a consumer of this kind unpacks it."""
    data = b"".join(batches or (batch(0, 2), batch(2, 2)))
    return kind(TP, RereadableRecords(data), [*aborted], first_offset, None, None, 0, isolation)


def offsets(records):
    return [one.offset for one in records]


@pytest.mark.parametrize("first_offset", [0, 1, 3])
def test_they_have_the_same_attributes_with_the_same_values(first_offset):
    records = fetched(first_offset=first_offset)
    theirs, ours = (
        [tuple(getattr(one, name) for name in ATTRIBUTES) for one in some]
        for some in (fetched(kind=PartitionRecords), records)
    )
    assert ours == theirs[first_offset:]
    assert ([one[2] for one in theirs], records.next_fetch_offset) == ([0, 1, 2, 3], 4)


def test_what_was_not_taken_yet_is_there_when_they_are_taken_again():
    records = fetched()
    assert [next(records).offset, next(iter(records)).offset] == [0, 1]
    assert offsets(records) == [2, 3]


@pytest.mark.parametrize("is_read", [False, True])
def test_a_fetch_that_nobody_reads_or_that_is_read_is_freed_at_once(is_read):
    """Without the collector, which a busy process has look seldom: a log reader drops megabytes unread."""
    gc.disable()
    try:
        records = fetched()
        kept = weakref.ref(records)
        assert len(list(records) if is_read else ()) == 4 * is_read
        del records
        assert kept() is None
    finally:
        gc.enable()


def test_on_a_topic_with_the_brokers_clock_they_have_its_time():
    """The broker writes it into the batch, and leaves what the client wrote in the records."""
    stamped = batch(0, 2)
    stamped[ATTRIBUTES_AT] |= 0b1000
    stamped[LARGEST_TIMESTAMP_AT : LARGEST_TIMESTAMP_AT + 8] = (5_000).to_bytes(8, "big")
    for kind in (PartitionRecords, LeanPartitionRecords):
        assert [one.timestamp for one in fetched(stamped, kind=kind)] == [5_000, 5_000]


def test_a_fetch_says_which_offsets_hold_no_record():
    """A batch at 3 and 4, an aborted one at 6 and 7, its marker at 8."""
    aborted, marker = batch(6, 2, producer=7), batch(8, key=bytes(4), producer=7)
    marker[ATTRIBUTES_AT] |= 0b100000
    records = fetched(batch(3, 2), aborted, marker, first_offset=2, aborted=[(7, 6)], isolation=READ_COMMITTED)
    records.empty = empty = EmptyOffsets()
    assert offsets(records) == [3, 4]
    assert (records.next_fetch_offset, empty.skip(TP, 2), empty.skip(TP, 4), empty.skip(TP, 5)) == (9, 3, 4, 9)


@pytest.mark.parametrize("first_offset", [0, 1, 3])
def test_a_header_whose_name_is_no_utf_8_stops_nobody(first_offset):
    batches = [batch(0, 2), batch(2, 2)]
    for one in batches:
        one[one.index(b"content-type")] = 0xFF
    records = fetched(*batches, first_offset=first_offset)
    found = [*records]
    assert [(one.offset, one.value) for one in found] == [(n, b"value %d" % n) for n in range(first_offset, 4)]
    assert found[-1].headers == (("\ufffdontent-type", b"application/json"),)
    assert (found[-1].timestamp, found[-1].key, records.next_fetch_offset) == (1_001, b"key", 4)
    with pytest.raises(UnicodeDecodeError):
        [*fetched(*batches, kind=PartitionRecords, first_offset=first_offset)]


@pytest.mark.parametrize("codec", [0, GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_that_nobody_can_read_is_skipped_and_logged(caplog, codec):
    bad = batch(1, value=b"value" * 100, codec=codec)
    bad[RECORDS_AT:] = bytes([0xEE]) * (len(bad) - RECORDS_AT)
    records = fetched(batch(0), bad, batch(2))
    records.empty = empty = EmptyOffsets()
    assert offsets(records) == [0, 2]
    assert (records.next_fetch_offset, empty.skip(TP, 1)) == (3, 2)
    (line,) = caplog.messages
    assert "topic=queries partition=3 offsets=1..1: " in line


@pytest.mark.parametrize(("mark", "kind"), [(LeanKeys(), LeanRecord), (None, fetcher.ConsumerRecord)])
def test_only_consumers_that_are_marked_get_lean_records(mark, kind):
    """Another consumer of the process may have deserializers, and read what lean records leave out."""
    install_records()
    records = fetcher.MemoryRecords(bytes(batch(0)))
    (record,) = fetcher.PartitionRecords(TP, records, [], 0, mark, lambda value: value, 0, READ_UNCOMMITTED)
    assert (type(record), record.key) == (kind, b"key")


def test_a_second_installation_changes_nothing():
    install()
    installed = client.create_conn, fetcher.PartitionRecords, fetcher.MemoryRecords
    install()
    assert (client.create_conn, fetcher.PartitionRecords, fetcher.MemoryRecords) == installed
    assert client.create_conn is connect_in_time


@pytest.mark.parametrize(("code", "forgotten"), [(14, 0), (16, 1)], ids=["it is loading", "it is another broker"])
async def test_a_coordinator_that_does_not_know_what_is_committed_is_asked_again(monkeypatch, code, forgotten):
    """It answers without partitions, which was taken for "nothing is committed": everything was read once more."""
    install()
    coordinator = SimpleNamespace(coordinator_dead=Mock())
    answer = SimpleNamespace(topics=[], error_code=code)
    monkeypatch.setattr(aiokafka_patches, "_send_req", AsyncMock(return_value=answer))
    with pytest.raises(KafkaError) as refused:
        await GroupCoordinator._send_req(coordinator, OffsetFetchRequest("group", []))
    assert (refused.value.retriable, coordinator.coordinator_dead.call_count) == (True, forgotten)
    answer.error_code = 0
    assert await GroupCoordinator._send_req(coordinator, OffsetFetchRequest("group", [])) is answer
