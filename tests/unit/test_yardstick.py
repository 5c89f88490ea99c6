"""`benchmarks/rivals/bare_router.py` stands on the router's own objects; a change that breaks it shows here."""

import asyncio

from builders.benchmarks import BENCHMARKS, benchmark_module

from clipper_agents.settings import load_settings


def test_the_yardstick_asks_the_declared_model(tmp_path):
    bare_router = benchmark_module("rivals.bare_router")

    async def declared():
        settings = load_settings(BENCHMARKS / "configs/colocated.toml", {})
        router = bare_router.BareRouter(settings, tmp_path, producer=None, max_in_flight=1)
        await router.declare()
        return router.registry.application("digits-backlog")

    application = asyncio.run(declared())
    assert application is not None
    assert application.refs == ("digits:1",)
