"""Rows count once their changelog record is stored, by the one process that may write it."""

import shutil
from functools import partial

import damage
import pytest
from builders.kafka import FakeLogReader, FakeProducer, FakeWriter

from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.partition_writer import PartitionTakenOver
from clipper_agents.streaming.table import TransactionalTable
from clipper_topics.connection import KafkaConnection

HARMS = damage.ON_TABLES | damage.ON_LOGS


class Place:
    """A data directory of a process, with its table of two partitions."""

    def __init__(self, folder, producer):
        app = ClipperApp("app", KafkaConnection("localhost:1"), folder, "instance")
        self.producer, self.reader = producer, FakeLogReader(producer)
        self.table = TransactionalTable(app, name="rows", partitions=2, open_writer=partial(FakeWriter, producer))
        app.tables.add(self.table)
        self.topic = self.table.changelog_topic.get_topic_name()

    async def restore(self, *partitions):
        return await self.table.restore(self.reader, partitions or (0, 1))

    async def write(self, partition=0, beside=None, **rows):
        encoded = {key.encode(): None if value is None else b"%d" % value for key, value in rows.items()}
        await self.table.write(partition, encoded, beside or {})

    def others_write(self, *records):
        for key, value in records:
            self.producer.append(self.topic, 0, key, value)

    def rows(self, partition=0):
        return {key.decode(): int(value) for key, value in self.table.items(partition)}

    def changelog(self):
        return [(key.decode(), int(value)) for key, value, _ in self.producer.logs[self.topic, 0]]


@pytest.fixture
async def places(tmp_path):
    producer = FakeProducer(batch_bytes=60)
    return lambda name: Place(tmp_path / name, producer)


@pytest.fixture
async def place(places):
    found = places("data")
    await found.restore()
    return found


async def test_a_row_is_in_the_changelog_and_in_the_table(place):
    await place.write(a=1, b=2)
    await place.write(1, {"acks": [(b"k", b"told", ())]}, a=7)
    assert (place.rows(), place.rows(1)) == ({"a": 1, "b": 2}, {"a": 7})
    assert (place.table.get_row(0, b"a"), place.table.get_row(0, b"unknown")) == (b"1", None)
    assert place.changelog() == [("a", 1), ("b", 2)]
    assert place.producer.logs["acks", 1] == [(b"k", b"told", [])], "what is beside goes to the same partition"


async def test_a_row_that_the_broker_does_not_store_is_not_in_the_table(place):
    place.producer.failure = RuntimeError("refused")
    with pytest.raises(RuntimeError):
        await place.write(a=1)
    assert place.rows() == {}


async def test_an_empty_table_is_restored_from_its_changelog(place, places):
    """Also what was deleted."""
    await place.write(a=1, b=2)
    await place.write(a=3, b=None)
    other = places("wiped")
    assert await other.restore() == 4
    assert place.rows() == other.rows() == {"a": 3}


@pytest.mark.parametrize(
    ("mine", "theirs", "rows"),
    [
        (dict(a=1), [(b"a", b"5")], {"a": 5}),
        ({}, [(b"a", b"1"), (b"a", b"9"), (b"a", b"4")], {"a": 4}),
        (dict(a=1, c=3), [(None, b"1"), (b"a", None), (b"b", b"2")], {"b": 2, "c": 3}),
    ],
    ids=["only what is not here", "the last of a key, as for compaction", "without a key; without a value"],
)
async def test_what_others_wrote_is_read_once(place, mine, theirs, rows):
    if mine:
        await place.write(**mine)
    place.others_write(*theirs)
    assert [await place.restore(), await place.restore()] == [len(theirs), 0]
    assert place.rows() == rows


@pytest.mark.parametrize("is_wiped", [False, True])
async def test_a_table_is_built_anew_where_it_is_ahead_of_its_changelog_and_not_of_a_named_end(place, is_wiped):
    """A broker that was frozen, leads no more, and is just awake says where its log ended before others wrote on."""
    await place.write(a=1, b=2)
    await place.write(a=3)
    place.reader.stale_ends = [1]
    if is_wiped:
        place.producer.logs.clear()
        place.others_write((b"z", b"1"))
    assert await place.restore(0) == is_wiped
    assert place.rows() == ({"z": 1} if is_wiped else {"a": 3, "b": 2})


async def test_rows_whose_offset_the_broker_did_not_tell_are_read_again(place):
    place.producer.hide_offsets = True
    await place.write(a=1)
    assert [place.rows(), await place.restore(), place.rows()] == [{"a": 1}, 1, {"a": 1}]


async def test_a_step_of_several_batches_is_written_in_order(place):
    many = {f"row {number:03}": number for number in range(50)}
    await place.write(**many)
    assert place.changelog() == [*many.items()]
    assert place.rows() == many


@pytest.mark.parametrize("harm", HARMS)
async def test_a_damaged_table_has_the_rows_of_its_changelog_again(place, places, harm):
    for number in range(60):
        await place.write(**{f"row {number}": number})
        if number in {20, 40}:
            place.table._databases[0].flush()
    other = places("damaged")
    copy = other.table.path(0)
    shutil.copytree(place.table.path(0), copy, ignore=shutil.ignore_patterns("LOCK"))
    HARMS[harm](copy)
    await other.restore()
    assert other.rows() == {f"row {number}": number for number in range(60)}
    assert await other.restore() == 0


async def test_a_process_whose_partition_was_taken_over_stores_nothing(places):
    """A row of a frozen router that came behind a newer one won when the changelog was compacted."""
    frozen, owner = places("frozen"), places("owner")
    await frozen.restore()
    await frozen.write(a=1, b=1)
    await owner.restore()
    await owner.write(a=5)
    with pytest.raises(PartitionTakenOver):
        await frozen.write(a=2)  # it wakes up, and does not know yet
    await owner.write(b=6)
    assert owner.changelog() == [("a", 1), ("b", 1), ("a", 5), ("b", 6)]
    await frozen.restore()
    assert frozen.rows() == owner.rows() == {"a": 5, "b": 6}
