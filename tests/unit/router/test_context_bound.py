"""A partition's contexts are bounded in number, and millions of them hold up neither a takeover nor the event loop."""

import asyncio
import time
from functools import partial
from types import SimpleNamespace

import pytest
from builders.kafka import FakeLogReader, FakeProducer, FakeWriter

from clipper_agents.router.context_bound import ContextBound
from clipper_agents.router.selection_store import SelectionStore
from clipper_agents.streaming.app import make_app
from clipper_agents.streaming.outbox import UNKNOWN_OFFSET
from clipper_agents.streaming.recovery import StateLock
from clipper_agents.streaming.table import StepTable
from clipper_topics.connection import KafkaConnection
from clipper_topics.selection_rows import (
    NO_ROW,
    ROW_VERSION,
    ModelTotalsRecord,
    RowKey,
    SelectionRow,
    encode_key,
    encode_row,
)


def make_selection(folder, producer, partitions=1):
    table = StepTable(
        make_app("app", KafkaConnection("localhost:1"), folder, "instance"),
        name="selection",
        partitions=partitions,
        open_writer=partial(FakeWriter, producer),
        options={"block_cache_size": 8 << 20, "write_buffer_size": 4 << 20, "bloom_filter_size": 10},
    )
    table.app.tables.add(table)
    return SelectionStore(table, partitions), table


def row(offset):
    totals = [ModelTotalsRecord(f"a:{version}", 3.0, 1.0, 2.5, 6.0) for version in (1, 2)]
    return SelectionRow(version=ROW_VERSION, offset=offset, applied=1, totals=totals)


async def learned(selection, first, contexts, application="app"):
    rows = {(application, context): row(first + number) for number, context in enumerate(contexts)}
    await selection.write(0, rows | {("app", None): row(first)}, first + len(rows) - 1)


def deployment(generation=0):
    return SimpleNamespace(generation=generation, state_lock=StateLock(), owned_partitions=lambda _: [0])


@pytest.fixture
def producer():
    return FakeProducer(batch_bytes=900 * 1024)


async def owned(folder, producer):
    selection, table = make_selection(folder, producer)
    await table.restore(FakeLogReader(producer), [0])
    selection.own([0])
    return selection


async def test_beyond_the_bound_contexts_without_feedback_for_longest_are_forgotten(tmp_path, producer):
    selection = await owned(tmp_path / "first", producer)
    bound = ContextBound(deployment(), "feedback", selection, 80, lambda: 0.0)
    await learned(selection, 0, [f"c{number}" for number in range(60)])
    await learned(selection, 60, [f"c{number}" for number in range(20)], application="other")
    await bound.hold()
    assert len(selection.contexts("app", 0)) == 61
    await learned(selection, 80, ["c0", "c1", "new"])
    await bound.hold()
    again = await owned(tmp_path / "second", producer)
    for found in (selection, again):
        assert set(found.contexts("app", 0)) == {None, "new", "c0", "c1", *(f"c{number}" for number in range(13, 60))}
        assert len(found.contexts("other", 0)) == 20
        assert (found.row("app", "c2", 0), found.row("app", "c0", 0)) == (NO_ROW, row(80))
        assert found.position(0) == 82


async def test_contexts_with_feedback_since_they_were_looked_at_stay(tmp_path, producer):
    selection = await owned(tmp_path, producer)
    await learned(selection, 0, [f"c{number}" for number in range(16)])
    before, keys = selection.surplus(0, 8)
    await learned(selection, 16, ["c0"])
    assert await selection.forget_contexts(0, before, keys) == 8
    assert set(selection.contexts("app", 0)) == {None, "c0", *(f"c{number}" for number in range(9, 16))}


async def test_nothing_is_forgotten_in_a_partition_that_was_taken_away_meanwhile(tmp_path, producer):
    selection = await owned(tmp_path, producer)
    await learned(selection, 0, [f"c{number}" for number in range(16)])
    app = deployment()
    async with app.state_lock.of_all():
        holding = asyncio.create_task(ContextBound(app, "feedback", selection, 8).hold())
        while not app.state_lock._recovery._waiters:
            await asyncio.sleep(0)
        app.generation = -1
    await holding
    assert len(selection.contexts("app", 0)) == 17


async def longest_turn(work):
    """CPU seconds of the longest stretch in which nothing else ran on the event loop, and the seconds of the work."""
    began_s, task = time.monotonic(), asyncio.create_task(work)
    longest, last = 0.0, time.thread_time()
    while not task.done():
        await asyncio.sleep(0.001)
        longest, last = max(longest, time.thread_time() - last), time.thread_time()
    await task
    return longest, time.monotonic() - began_s


@pytest.mark.timeout(300)
@pytest.mark.parametrize("count", [200_000, pytest.param(5_000_000, marks=pytest.mark.long)])
async def test_a_takeover_of_many_contexts_leaves_the_event_loop_free(tmp_path, producer, count):
    _, table = make_selection(tmp_path, producer, partitions=4)
    value = encode_row(row(7))
    for partition in range(4):
        for first in range(partition, count, 80_000):
            contexts = range(first, min(first + 80_000, count), 4)
            rows = {encode_key(RowKey("app", f"c{number:08}", partition)): value for number in contexts}
            table._write_local(partition, rows, UNKNOWN_OFFSET)
        table._write_local(partition, {encode_key(RowKey("app", None, partition)): value}, UNKNOWN_OFFSET)
        table._db(partition).close()
    selection, table = make_selection(tmp_path, producer, partitions=4)

    async def take_over():
        await table.restore(FakeLogReader(producer), range(4))
        selection.own(range(4))

    turn_s, took_s = await longest_turn(take_over())
    assert len(selection.unpublished()) == 4
    assert turn_s < 0.1
    assert took_s < 10.0
    assert selection.row("app", "c00000004", 0) == row(7)
