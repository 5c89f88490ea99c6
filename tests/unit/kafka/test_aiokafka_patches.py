"""What is replaced in aiokafka: the bound on connections, and records that say what aiokafka's own say."""

import gc
import struct
import weakref

import pytest
from aiokafka import TopicPartition, client
from aiokafka.consumer import consumer, fetcher
from aiokafka.consumer.fetcher import READ_COMMITTED, READ_UNCOMMITTED, PartitionRecords
from aiokafka.producer import sender
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from clipper_agents.kafka.aiokafka_patches import (
    LEAN,
    EmptyOffsets,
    LeanPartitionRecords,
    LeanRecord,
    RereadableRecords,
    install,
    install_records,
)
from clipper_agents.kafka.connections import connect_in_time

TP = TopicPartition("queries", 3)
GZIP, SNAPPY, LZ4, ZSTD = 1, 2, 3, 4
RECORDS_AT = 61
"""Bytes of a batch's header."""
ATTRIBUTES = ("topic", "partition", "offset", "timestamp", "key", "value", "headers")


def fetched(kind, first_offset, spoil=lambda batch: None):
    """Two batches of two records each, from an offset on, as a consumer of this kind unpacks them."""
    batches = b""
    for base in (0, 2):
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
        for place in range(2):
            headers = [("content-type", b"application/json")] if place else []
            builder.append(place, 1_000 + place, b"key" if place else None, b"value %d" % (base + place), headers)
        batch = bytearray(builder.build())
        batch[:8] = base.to_bytes(8, "big")
        spoil(batch)
        batches += bytes(batch)
    return kind(TP, RereadableRecords(batches), [], first_offset, None, None, 0, READ_UNCOMMITTED)


def test_they_have_the_same_attributes_with_the_same_values():
    theirs = [tuple(getattr(one, name) for name in ATTRIBUTES) for one in fetched(PartitionRecords, 0)]
    ours = [tuple(getattr(one, name) for name in ATTRIBUTES) for one in fetched(LeanPartitionRecords, 0)]
    assert ours == theirs
    assert [offset for _, _, offset, *_ in ours] == [0, 1, 2, 3]


def test_records_before_the_wanted_offset_are_left_out():
    records = fetched(LeanPartitionRecords, 1)
    assert [one.offset for one in records] == [1, 2, 3]
    assert records.next_fetch_offset == 4


def test_what_was_not_taken_yet_is_there_when_they_are_taken_again():
    """A consumer that takes at most so many at once comes back for the rest."""
    records = fetched(LeanPartitionRecords, 0)
    for one in records:
        if one.offset == 1:
            break
    assert [one.offset for one in records] == [2, 3]


def test_a_fetch_that_nobody_reads_or_that_is_read_is_freed_at_once():
    """Without the collector, which a busy process has look seldom: a log reader drops megabytes unread."""
    gc.disable()
    try:
        for read in (False, True):
            records = fetched(LeanPartitionRecords, 0)
            kept = weakref.ref(records)
            assert len(list(records) if read else ()) == 4 * read
            del records
            assert kept() is None
    finally:
        gc.enable()


def test_on_a_topic_with_the_brokers_clock_they_have_its_time():
    """The broker writes it into the batch, and leaves what the client wrote in the records."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    builder.append(0, 1_000, None, b"early", [])
    builder.append(1, 9_000, None, b"late", [])
    header = struct.Struct(">qiibIhiqqqhii")
    batch = bytearray(builder.build())
    fields = [*header.unpack_from(batch)]
    fields[5], fields[8] = 0b1000, 5_000  # timestamp type and the largest timestamp
    header.pack_into(batch, 0, *fields)
    records = [
        kind(TP, RereadableRecords(bytes(batch)), [], 0, None, None, 0, READ_UNCOMMITTED)
        for kind in (PartitionRecords, LeanPartitionRecords)
    ]
    assert [[one.timestamp for one in some] for some in records] == [[5_000, 5_000]] * 2


def test_a_fetch_says_which_offsets_hold_no_record():
    """A batch at 3 and 4, an aborted one at 6 and 7, its marker at 8."""
    batches, aborted = b"", 7
    for base, producer, control in ((3, -1, False), (6, aborted, False), (8, aborted, True)):
        builder = DefaultRecordBatchBuilder(2, 0, int(producer >= 0), producer, 0, 0, 10_000)
        for place in range(1 if control else 2):
            builder.append(place, 1_000, bytes(4) if control else b"key", b"", [])
        batch = bytearray(builder.build())
        batch[:8] = base.to_bytes(8, "big")
        batch[22] |= 0b100000 * control
        batches += bytes(batch)
    records = LeanPartitionRecords(TP, RereadableRecords(batches), [(aborted, 6)], 2, None, None, 0, READ_COMMITTED)
    records.empty = empty = EmptyOffsets()
    assert [one.offset for one in records] == [3, 4]
    assert (records.next_fetch_offset, empty.skip(TP, 2), empty.skip(TP, 4), empty.skip(TP, 5)) == (9, 3, 4, 9)


@pytest.mark.parametrize("first_offset", [0, 1, 3])
def test_a_header_whose_name_is_no_utf_8_stops_nobody(first_offset):
    def spoil(batch):
        batch[batch.index(b"content-type")] = 0xFF

    records = fetched(LeanPartitionRecords, first_offset, spoil)
    found = [*records]
    assert [one.offset for one in found] == [*range(first_offset, 4)]
    assert [one.value for one in found] == [b"value %d" % offset for offset in range(first_offset, 4)]
    assert found[-1].headers == (("\ufffdontent-type", b"application/json"),)
    assert (found[-1].timestamp, found[-1].key, records.next_fetch_offset) == (1_001, b"key", 4)
    with pytest.raises(UnicodeDecodeError):
        [*fetched(PartitionRecords, first_offset, spoil)]


@pytest.mark.parametrize("codec", [0, GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_that_nobody_can_read_is_skipped_and_logged(caplog, codec):
    batches = b""
    for base in range(3):
        builder = DefaultRecordBatchBuilder(2, codec if base == 1 else 0, 0, -1, -1, -1, 10_000)
        builder.append(0, 1_000, b"key", b"value" * 100, [])
        batch = bytearray(builder.build())
        batch[:8] = base.to_bytes(8, "big")
        if base == 1:
            batch[RECORDS_AT:] = bytes([0xEE]) * (len(batch) - RECORDS_AT)
        batches += bytes(batch)
    records = LeanPartitionRecords(TP, RereadableRecords(batches), [], 0, None, None, 0, READ_UNCOMMITTED)
    records.empty = empty = EmptyOffsets()
    assert [one.offset for one in records] == [0, 2]
    assert (records.next_fetch_offset, empty.skip(TP, 1)) == (3, 2)
    (line,) = caplog.messages
    assert line.startswith("record batch cannot be read and is skipped topic=queries partition=3 offsets=1..1: ")


@pytest.mark.parametrize(("mark", "kind"), [(LEAN, LeanRecord), (None, fetcher.ConsumerRecord)])
def test_only_consumers_that_are_marked_get_lean_records(monkeypatch, mark, kind):
    """Another consumer of the process may have deserializers, and read what lean records leave out."""
    for name in ("PartitionRecords", "MemoryRecords"):
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))
    install_records()
    batch = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    batch.append(0, 1_000, b"key", b"value", [])
    records = fetcher.MemoryRecords(bytes(batch.build()))
    (record,) = fetcher.PartitionRecords(TP, records, [], 0, mark, lambda value: value, 0, READ_UNCOMMITTED)
    assert (type(record), record.key) == (kind, b"key")


def test_a_second_installation_changes_nothing(monkeypatch):
    for owner, name in (
        (client, "create_conn"),
        (fetcher, "PartitionRecords"),
        (fetcher, "MemoryRecords"),
        (fetcher, "FetchRequest"),
        (consumer, "Fetcher"),
        (sender, "ProduceRequest"),
    ):
        monkeypatch.setattr(owner, name, getattr(owner, name))
    install()
    installed = client.create_conn, fetcher.PartitionRecords, fetcher.MemoryRecords
    install()
    assert (client.create_conn, fetcher.PartitionRecords, fetcher.MemoryRecords) == installed
    assert client.create_conn is connect_in_time
