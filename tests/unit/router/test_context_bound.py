"""A partition's contexts are bounded in number, and survive the loss of their files."""

import asyncio
import shutil
from functools import partial

import pytest
from builders.kafka import FakeLogReader, FakeProducer, FakeWriter
from unit.router.rig import settle

from clipper_agents.router import selection_store
from clipper_agents.router.selection_store import ContextBound, SelectionStore
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.table import TransactionalTable
from clipper_topics.connection import KafkaConnection
from clipper_topics.selection_rows import NO_ROW, ROW_VERSION, ModelTotalsRecord, SelectionRow


@pytest.fixture
def owned(tmp_path, producer):
    """Makes the selection of a process that has taken partitions over, with files of its own."""

    async def take_over(name="first"):
        table = TransactionalTable(
            ClipperApp("app", KafkaConnection("localhost:1"), tmp_path / name, "instance"),
            name="selection",
            partitions=1,
            open_writer=partial(FakeWriter, producer),
            options={"block_cache_size": 8 << 20, "write_buffer_size": 4 << 20, "bloom_filter_size": 10},
        )
        table.app.tables.add(table)
        await table.restore(FakeLogReader(producer), [0])
        selection = SelectionStore(table, 1)
        selection.own([0])
        return selection

    return take_over


@pytest.fixture
def producer():
    return FakeProducer(batch_bytes=900 * 1024)


def row(offset):
    totals = [ModelTotalsRecord(f"a:{version}", 3.0, 1.0, 2.5, 6.0) for version in (1, 2)]
    return SelectionRow(version=ROW_VERSION, offset=offset, applied=1, totals=totals)


def named(*numbers):
    return [f"c{number}" for number in numbers]


async def learned(selection, first, contexts, application="app"):
    rows = {(application, context): row(first + number) for number, context in enumerate(contexts)}
    await selection.write(0, rows | {("app", None): row(first)}, first + len(rows) - 1)


async def test_beyond_the_bound_contexts_without_feedback_for_longest_are_forgotten(owned, rig, monkeypatch):
    monkeypatch.setattr(selection_store, "PAUSE_RATIO", 0.0)
    selection = await owned()
    bound = ContextBound(rig, "feedback", selection, 80)
    await learned(selection, 0, named(*range(60)))
    await learned(selection, 60, named(*range(20)), application="other")
    await bound.hold()
    assert len(selection.contexts("app", 0)) == 61
    await learned(selection, 80, ["c0", "c1", "new"])
    await bound.hold()
    for found in (selection, await owned("second")):
        assert set(found.contexts("app", 0)) == {None, "new", *named(0, 1, *range(13, 60))}
        assert len(found.contexts("other", 0)) == 20
        assert (found.row("app", "c2", 0), found.row("app", "c0", 0)) == (NO_ROW, row(80))
        assert found.position(0) == 82


async def test_what_an_old_directory_has_still_of_forgotten_contexts_is_dropped(owned, producer, tmp_path):
    """Where compaction had removed their deletions from the changelog, they came back with it."""
    selection = await owned()
    await learned(selection, 0, named(*range(16)))
    shutil.copytree(tmp_path / "first", tmp_path / "second", ignore=shutil.ignore_patterns("LOCK"))
    await selection.forget_contexts(0, *selection.surplus(0, 8))
    (changelog,) = producer.logs.values()
    changelog[:] = [changelog[-1] if value is None else (key, value, others) for key, value, others in changelog]
    old = await owned("second")
    assert len(old.contexts("app", 0)) == 17
    await old.drop_forgotten()
    assert {*old.contexts("app", 0)} == {*selection.contexts("app", 0)} == {None, *named(*range(9, 16))}


async def test_contexts_with_feedback_since_they_were_looked_at_stay(owned):
    selection = await owned()
    await learned(selection, 0, named(*range(16)))
    before, keys = selection.surplus(0, 8)
    await learned(selection, 16, ["c0"])
    assert await selection.forget_contexts(0, before, keys) == 8
    assert set(selection.contexts("app", 0)) == {None, *named(0, *range(9, 16))}


async def test_nothing_is_forgotten_in_a_partition_that_was_taken_away_meanwhile(owned, rig):
    selection = await owned()
    await learned(selection, 0, named(*range(16)))
    async with rig.state_lock.of_all():
        bound = ContextBound(rig, "feedback", selection, 8)
        holding = asyncio.create_task(bound.hold())
        while not bound._next_s:  # its rows have been looked through, by a thread
            await settle()
        rig.generation = -1
    await holding
    assert len(selection.contexts("app", 0)) == 17
