import asyncio
from types import SimpleNamespace

from clipper_agents.broker import BrokerNotStarted
from clipper_agents.settings import Settings
from clipper_agents.supervisor.deployment import Deployment, keep_started
from clipper_agents.supervisor.process import ChildSpec


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


def test_an_end_says_how_long_it_waits_for_the_stages_that_drain_one_after_another():
    deployment = Deployment(Settings(), {})
    assert deployment.waits_for() == "it disconnects"
    drains_s = {"gateway": 20.0, "router-0": 5.0, "router-1": 7.0, "steward": 1.0, "host.svm.1.0": 3.5}
    for name, drain_s in drains_s.items():
        spec = ChildSpec(name=name, command=(), drain_s=drain_s)
        deployment.supervisor._children[name] = SimpleNamespace(spec=spec)
    assert deployment.waits_for() == "queries in flight are answered, within 30.5 s, then it disconnects"


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
