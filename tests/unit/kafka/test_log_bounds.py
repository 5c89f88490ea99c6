import asyncio
from types import SimpleNamespace

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from clipper_agents.kafka import log_bounds
from clipper_agents.kafka.log_bounds import PositionKeeper

TP = TopicPartition("queries", 0)


class Consumer:
    """A consumer of one partition, whose log begins at 10 and ends at 20."""

    def __init__(self, assigned=True):
        self.calls, self.called = [], asyncio.Event()
        self._subscription = SimpleNamespace(is_assigned=lambda _: assigned)

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 10)

    async def end_offsets(self, partitions):
        return dict.fromkeys(partitions, 20)

    def __getattr__(self, name):
        return lambda tp, *offset: self.calls.append((name, *offset)) or self.called.set()


@pytest.mark.parametrize(
    ("offset", "moved", "calls", "said"),
    [
        (4, {TP: 10}, [("seek", 10)], "offset=4: records up to 9 were deleted"),
        (21, {}, [("pause",)], "offset=21: the log ends at 20"),
        (10, {}, [], ""),
        (20, {}, [], ""),
    ],
    ids=["before the log", "behind it", "its first record", "its end"],
)
async def test_a_position_goes_on_at_the_first_record_or_waits(caplog, offset, moved, calls, said):
    consumer, keeper = Consumer(), PositionKeeper()
    for _ in range(2):
        assert await keeper.resolve(consumer, OffsetOutOfRangeError({TP: offset})) == moved
    assert consumer.calls == calls * 2
    assert [said in line for line in caplog.messages] == [True] * bool(said)


async def test_a_partition_that_waits_is_asked_again(monkeypatch):
    monkeypatch.setattr(log_bounds, "RETRY_WAIT_S", 0.0)
    consumer = Consumer()
    await PositionKeeper().resolve(consumer, OffsetOutOfRangeError({TP: 21}))
    while consumer.calls[-1] != ("resume",):
        consumer.called.clear()
        await consumer.called.wait()


async def test_a_partition_that_was_taken_away_meanwhile_is_left_alone():
    consumer = Consumer(assigned=False)
    assert await PositionKeeper().resolve(consumer, OffsetOutOfRangeError({TP: 4})) == {}
    assert consumer.calls == []
