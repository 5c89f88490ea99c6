import asyncio
from types import SimpleNamespace

from faust.types import TP

from clipper_agents.router.app import RouterProcess


def test_feedback_is_read_from_the_beginning_where_nothing_was_learned():
    """Another router of the same name may have committed what stands in no row that was read here."""
    router = SimpleNamespace(
        settings=SimpleNamespace(catalogue=SimpleNamespace(feedback="feedback")),
        selection=SimpleNamespace(position={0: 41, 1: -1}.__getitem__),
        _owned_partitions=lambda topic: [0, 1],
    )
    assert asyncio.run(RouterProcess._positions(router)) == {TP("feedback", 0): 42, TP("feedback", 1): 0}
