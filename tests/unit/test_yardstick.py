"""`benchmarks/rivals/bare_router.py` stands on the router's own objects; a change that breaks it shows here."""

import asyncio
import importlib.util
import sys
from pathlib import Path

from clipper_agents.settings import load_settings

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


def test_the_yardstick_asks_the_declared_model(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)  # where its model is
    spec = importlib.util.spec_from_file_location("bare_router", BENCHMARKS / "rivals/bare_router.py")
    bare_router = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = bare_router
    spec.loader.exec_module(bare_router)

    async def declared():
        settings = load_settings(BENCHMARKS / "configs/colocated.toml", {})
        router = bare_router.BareRouter(settings, tmp_path, producer=None, max_in_flight=1)
        await router.declare()
        return router.registry.application("digits-backlog")

    application = asyncio.run(declared())
    assert application is not None
    assert application.refs == ("digits:1",)
