"""The router process is built before anything starts, and says where its inputs are read on."""

from types import SimpleNamespace

from faust.types import TP

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.app import RouterProcess
from clipper_agents.settings.workers import RouterSettings
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection


async def test_every_part_is_built_without_a_broker(tmp_path):
    settings = RouterSettings(
        kafka=KafkaConnection("127.0.0.1:1"), catalogue=Catalogue(), data_dir=tmp_path / "router", instance="r"
    )
    process = RouterProcess(settings, RouterMetrics())
    await process.app.kafka_producer.stop()
    (agents, connected, sender) = [*process.app.agents], process._effects._sender, process._sender
    assert agents == ["route", "gather", "learn"]
    assert connected is sender


async def test_feedback_is_read_from_the_beginning_where_nothing_was_learned():
    """Another router of the same name may have committed feedback that is in no row that was read here."""
    router = SimpleNamespace(
        _settings=SimpleNamespace(catalogue=SimpleNamespace(feedback="feedback")),
        _selection=SimpleNamespace(position={0: 41, 1: -1}.__getitem__),
        app=SimpleNamespace(owned_partitions=lambda topic: [0, 1]),
    )
    assert await RouterProcess._positions(router) == {TP("feedback", 0): 42, TP("feedback", 1): 0}
