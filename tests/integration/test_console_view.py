import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from builders.status import DIGITS
from integration.test_watching_applications import declared, flowing, write

from clipper_agents.kafka.topics import delete_topics, ensure_topics, existing_topics
from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.history import SeriesHistory
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

WITHIN_S = 60.0


@asynccontextmanager
async def followed(kafka: KafkaConnection, catalogue: Catalogue, folder: Path) -> AsyncIterator[LiveView]:
    """A view that runs for the time of the block, with the history in this folder."""
    history = SeriesHistory(folder, time.time)
    view = LiveView(kafka, catalogue, history)
    running = asyncio.ensure_future(view.run())
    try:
        yield view
        assert not running.done(), "nothing ends it"
    finally:
        running.cancel()
        await asyncio.wait([running])
        history.close()


async def shows(view: LiveView, condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():
            await view.next_tick(view.tick)


def is_kept(view: LiveView, since_s: float) -> bool:
    """Whether points of these ten seconds tell of queries."""
    return any(view.history.series("digits", since_s).values.get("queries_per_s", ()))


@pytest.mark.slow  # a point of the history is of ten seconds
async def test_the_view_shows_the_records_and_its_history_outlives_it(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path
) -> None:
    began_s, folder, transaction = time.time() - 20, tmp_path / "history", f"{catalogue.prefix}.test"
    async with followed(kafka, catalogue, folder) as view:
        await shows(view, lambda: view.is_read)
        await write(kafka, declared(catalogue, int(time.time() * 1000)), transaction)
        await shows(view, lambda: [one.name for one in view.applications()] == ["digits"])
        await write(kafka, flowing(catalogue), transaction)
        await shows(view, lambda: view.applications()[0].queries == 10)
        assert (view.applications()[0].defaults, view.applications()[0].feedback) == ({"late": 1}, 5)
        assert view.stale_reason == ""
        assert view.status().models["svm:1"].hosts == 1
        assert "host h2 of model rf:2 failed: no module named shop" in "\n".join(map(str, view.problems()))
        await shows(view, lambda: is_kept(view, began_s))
    async with followed(kafka, catalogue, folder) as view:
        assert is_kept(view, began_s)
        versions = view.history.series("digits", began_s).versions
        assert versions["svm:1"].keys() >= {"weight", "loss", "loss_lower", "loss_upper", "p50_ms"}


async def test_topics_that_are_missing_deleted_or_made_again_are_waited_for(kafka, catalogue, tmp_path):
    async with followed(kafka, catalogue, tmp_path / "history") as view:
        for _ in range(2):
            await delete_topics(kafka, list(await existing_topics(kafka, catalogue.prefix)))
            await shows(view, lambda: "clipper-stream topics create" in view.stale_reason)
            await ensure_topics(kafka, catalogue)
            await write(kafka, declared(catalogue, int(time.time() * 1000)), f"{catalogue.prefix}.test")
            await shows(view, lambda: view.is_read and not view.stale_reason and view.applications())
        await delete_topics(kafka, list(await existing_topics(kafka, catalogue.prefix)))
        await shows(view, lambda: view.stale_reason)
        assert [one.name for one in view.applications()] == [DIGITS.name], "what was read last stays"
