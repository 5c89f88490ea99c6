"""A range of a log is fetched from its first record on, and from nowhere else."""

import asyncio
from types import SimpleNamespace

from aiokafka import TopicPartition

from clipper_agents.kafka.log_reader import LogReader
from clipper_topics.connection import KafkaConnection

FIRST, SECOND = TopicPartition("log", 0), TopicPartition("log", 1)


class Consumer:
    """Fetches from where each partition stands whenever its caller waits, as aiokafka does."""

    def __init__(self, ends):
        self._ends, self._positions, self._paused, self.fetched_from = ends, {}, set(), []

    def assign(self, partitions):
        self._positions = dict.fromkeys(partitions, 0)

    def unsubscribe(self):
        self._positions = {}

    def pause(self, *partitions):
        self._paused |= {*partitions}

    def seek(self, tp, offset):
        self._positions[tp] = offset

    async def _waited(self):
        self.fetched_from += [(tp.partition, at) for tp, at in self._positions.items() if tp not in self._paused]
        await asyncio.sleep(0)

    async def end_offsets(self, partitions):
        await self._waited()
        return {tp: self._ends[tp] for tp in partitions}

    async def beginning_offsets(self, partitions):
        await self._waited()
        return dict.fromkeys(partitions, 0)

    async def position(self, tp):
        return self._positions[tp]

    async def getmany(self, *partitions, timeout_ms):
        await self._waited()
        found = {}
        for tp in partitions:
            found[tp] = [SimpleNamespace(offset=offset) for offset in range(self._positions[tp], self._ends[tp])]
            self._positions[tp] = self._ends[tp]
        return found


def test_nothing_before_the_range_is_fetched():
    """Four mebibytes from the beginning of the log came with each reading of its last records, and stayed in memory."""
    reader = LogReader(KafkaConnection("127.0.0.1:1"))
    consumer = reader._consumer = Consumer({FIRST: 1_000, SECOND: 7})
    seen = []
    read = reader.read({FIRST: 998, SECOND: 7}, lambda tp, records: seen.extend((tp, one.offset) for one in records))
    assert asyncio.run(read) == 2
    assert seen == [(FIRST, 998), (FIRST, 999)]
    assert consumer.fetched_from == [(0, 998)]


def test_where_there_is_nothing_to_read_nothing_is_assigned():
    """An assignment that was taken back at once ended aiokafka's fetching: feedback then waited for ever."""
    reader = LogReader(KafkaConnection("127.0.0.1:1"))
    consumer = reader._consumer = Consumer({FIRST: 5})
    consumer.assign = consumer.unsubscribe = None
    assert asyncio.run(reader.read({FIRST: 5}, None)) == 0
