import asyncio

from clipper_agents.broker import BrokerNotStarted
from clipper_agents.supervisor.deployment import keep_started


class Node:
    """A Kafka that runs no more; its first start fails."""

    def __init__(self):
        self.pid, self.starts, self.runs = None, 0, asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def start(self):
        self.starts += 1
        if self.starts == 1:
            raise BrokerNotStarted("not yet")
        self.pid = 7
        self._loop.call_soon_threadsafe(self.runs.set)


async def test_an_embedded_kafka_that_was_killed_is_started_again():
    node = Node()
    keeping = asyncio.ensure_future(keep_started(node, every_s=0.001))
    for starts in (2, 3):
        await node.runs.wait()
        assert node.starts == starts
        node.pid = None
        node.runs.clear()
    keeping.cancel()
    await asyncio.wait([keeping])
    assert keeping.cancelled()
