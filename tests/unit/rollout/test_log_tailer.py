"""Where a reading of the logs begins."""

import asyncio
from types import SimpleNamespace

from clipper_agents.rollout.log_tailer import MergedLogTailer
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection


class GrowingLog:
    """A consumer of logs that are empty when they are first asked about, and grow with each question."""

    def __init__(self):
        self.records, self.sought = 0, set()
        self._client = SimpleNamespace(cluster=SimpleNamespace(leader_for_partition=lambda tp: 0))

    def assign(self, partitions):
        pass

    async def end_offsets(self, partitions):
        self.records += 1
        return dict.fromkeys(partitions, self.records - 1)

    async def offsets_for_times(self, times):
        self.records += 1
        return dict.fromkeys(times)  # none of that time or later

    def seek(self, tp, offset):
        self.sought.add(offset)


def test_what_is_written_while_a_reading_of_empty_logs_begins_is_not_passed():
    """The end was asked for after the time: records written in between were neither of that time nor behind the end."""
    log = GrowingLog()
    logs = MergedLogTailer(KafkaConnection("127.0.0.1:1"), Catalogue(partitions=1))
    logs._tailer.reader._consumer = log
    asyncio.run(logs.start(0))
    assert log.sought == {0}
