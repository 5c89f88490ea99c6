"""The router process is built before anything starts, and says where its inputs are read on."""

import asyncio
from types import SimpleNamespace

from faust.types import TP

from clipper_agents.router.app import RouterProcess
from clipper_agents.settings.workers import RouterSettings
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection


def test_every_part_is_built_without_a_broker(tmp_path):
    async def build():
        settings = RouterSettings(
            kafka=KafkaConnection("127.0.0.1:1"), catalogue=Catalogue(), data_dir=tmp_path / "router", instance="r"
        )
        process = RouterProcess(settings)
        await process.app.kafka_producer.stop()
        return [*process.app.agents], process._effects._sender, process._sender

    agents, connected, sender = asyncio.run(build())
    assert agents == ["route", "gather", "learn"]
    assert connected is sender


def test_feedback_is_read_from_the_beginning_where_nothing_was_learned():
    """Another router of the same name may have committed feedback that is in no row that was read here."""
    router = SimpleNamespace(
        _settings=SimpleNamespace(catalogue=SimpleNamespace(feedback="feedback")),
        _selection=SimpleNamespace(position={0: 41, 1: -1}.__getitem__),
        app=SimpleNamespace(owned_partitions=lambda topic: [0, 1]),
    )
    assert asyncio.run(RouterProcess._positions(router)) == {TP("feedback", 0): 42, TP("feedback", 1): 0}
