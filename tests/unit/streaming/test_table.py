"""Rows count once their changelog record is stored, by the one process that may write it."""

import asyncio
import shutil
from functools import partial

import damage
import pytest
from builders.kafka import FakeLogReader, FakeProducer, FakeWriter

from clipper_agents.streaming.app import make_app
from clipper_agents.streaming.partition_writer import PartitionTakenOver
from clipper_agents.streaming.table import StepTable
from clipper_topics.connection import KafkaConnection


@pytest.fixture
def producer():
    return FakeProducer(batch_bytes=60)


@pytest.fixture
def make_table(tmp_path, producer):
    def make(name="data"):
        app = make_app("app", KafkaConnection("localhost:1"), tmp_path / name, "instance")
        table = StepTable(app, name="rows", partitions=2, open_writer=partial(FakeWriter, producer))
        app.tables.add(table)
        return table

    return make


def changelog(table):
    return table.changelog_topic.get_topic_name()


@pytest.fixture
def table(make_table, producer):
    found = make_table()
    restore(found, producer)
    return found


def write(table, partition=0, **rows):
    encoded = {key.encode(): b"%d" % value for key, value in rows.items()}
    asyncio.run(table.write(partition, encoded))


def restore(table, producer, partitions=(0, 1)):
    return asyncio.run(table.restore(FakeLogReader(producer), partitions))


def rows(table, partition=0):
    return {key.decode(): int(value) for key, value in table.items(partition)}


def test_a_row_is_in_the_changelog_and_in_the_table(table, producer):
    write(table, a=1, b=2)
    write(table, partition=1, a=7)
    assert (rows(table), rows(table, 1)) == ({"a": 1, "b": 2}, {"a": 7})
    assert table.get_row(0, b"a") == b"1"
    assert table.get_row(0, b"unknown") is None
    assert [key for key, *_ in producer.logs[changelog(table), 0]] == [b"a", b"b"]


def test_records_beside_the_rows_go_to_the_same_partition_of_their_topic(table, producer):
    asyncio.run(table.write(1, {b"a": b"1"}, {"acks": [(b"k", b"told", ())]}))
    assert producer.logs["acks", 1] == [(b"k", b"told", [])]
    assert rows(table, 1) == {"a": 1}


def test_a_row_that_the_broker_does_not_store_is_not_in_the_table(table, producer):
    producer.failure = RuntimeError("refused")
    with pytest.raises(RuntimeError):
        write(table, a=1)
    assert rows(table) == {}


def test_an_empty_table_is_restored_from_its_changelog(make_table, table, producer):
    write(table, a=1, b=2)
    write(table, a=3)
    other = make_table("wiped")
    assert restore(other, producer) == 3
    assert rows(other) == {"a": 3, "b": 2}


def test_a_restore_reads_only_what_is_not_here(table, producer):
    write(table, a=1)
    producer.append(changelog(table), 0, b"a", b"5")
    assert restore(table, producer) == 1
    assert rows(table) == {"a": 5}
    assert restore(table, producer) == 0


def test_the_last_of_the_rows_with_one_key_counts_as_for_compaction(table, producer):
    for value in (b"1", b"9", b"4"):
        producer.append(changelog(table), 0, b"a", value)
    restore(table, producer)
    assert rows(table) == {"a": 4}


def test_an_end_that_a_broker_said_after_a_freeze_does_not_cost_the_rows(table, producer):
    """Frozen, no leader any more, and just awake: it says where its log ended before others wrote on."""
    write(table, a=1, b=2)
    write(table, a=3)
    reader = FakeLogReader(producer)
    reader.stale_ends = [1, 1]
    assert asyncio.run(table.restore(reader, (0,))) == 0
    assert rows(table) == {"a": 3, "b": 2}


def test_a_table_that_is_ahead_of_its_changelog_is_built_anew(table, producer):
    """The broker's folder was wiped, the router's was not."""
    write(table, a=1, b=2, c=3)
    producer.logs.clear()
    producer.append(changelog(table), 0, b"z", b"1")
    restore(table, producer)
    assert rows(table) == {"z": 1}


def test_rows_whose_offset_the_broker_did_not_tell_are_read_again(table, producer):
    producer.hide_offsets = True
    write(table, a=1)
    assert rows(table) == {"a": 1}
    assert restore(table, producer) == 1
    assert rows(table) == {"a": 1}


def test_a_step_of_several_batches_is_written_in_order(table, producer):
    many = {f"row {number:03}": number for number in range(50)}
    write(table, **many)
    assert [key.decode() for key, *_ in producer.logs[changelog(table), 0]] == list(many)
    assert rows(table) == many


def test_a_record_without_a_key_is_passed_over_and_one_without_a_value_deletes(table, producer):
    write(table, a=1, c=3)
    producer.append(changelog(table), 0, None, b"1")
    producer.append(changelog(table), 0, b"a", None)
    producer.append(changelog(table), 0, b"b", b"2")
    restore(table, producer)
    assert rows(table) == {"b": 2, "c": 3}


def test_a_row_that_is_deleted_is_deleted_in_the_changelog_too(make_table, table, producer):
    write(table, a=1, b=2)
    asyncio.run(table.write(0, {b"a": None, b"b": b"3"}))
    other = make_table("wiped")
    restore(other, producer)
    assert rows(table) == rows(other) == {"b": 3}


@pytest.mark.parametrize("harm", [*damage.ON_TABLES, *damage.ON_LOGS])
def test_a_damaged_table_has_the_rows_of_its_changelog_again(make_table, table, producer, harm):
    for number in range(60):
        write(table, **{f"row {number}": number})
        if number in {20, 40}:
            table._db(0).flush()
    folder = table.data.partition_path(0)
    other = make_table("damaged")
    copy = other.data.partition_path(0)
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("LOCK"))
    {**damage.ON_TABLES, **damage.ON_LOGS}[harm](copy)
    restore(other, producer)
    assert rows(other) == {f"row {number}": number for number in range(60)}
    assert restore(other, producer) == 0


def test_a_process_whose_partition_was_taken_over_stores_nothing(make_table, producer):
    """A row of a frozen router that came behind a newer one won when the changelog was compacted."""
    frozen, owner = make_table("frozen"), make_table("owner")
    restore(frozen, producer)
    write(frozen, a=1, b=1)
    restore(owner, producer)
    write(owner, a=5)
    with pytest.raises(PartitionTakenOver):
        write(frozen, a=2)  # it wakes up, and does not know yet
    write(owner, b=6)
    assert [int(value) for _, value, _ in producer.logs[changelog(owner), 0]] == [1, 1, 5, 6]
    restore(frozen, producer)
    assert rows(frozen) == rows(owner) == {"a": 5, "b": 6}
