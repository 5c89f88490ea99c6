"""Do viewers get what changes, of one rendering a page and second, and the slow ones the newest alone?"""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest
from builders.console import asked, followed, renderer

from clipper_gateway.console import live_pages
from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.live_updates import BEAT_TICKS, LiveUpdates
from clipper_gateway.console.page import Page
from clipper_gateway.errors import Refusal

pytestmark = pytest.mark.anyio


class Clock:
    """Ticks when it is told to."""

    def __init__(self) -> None:
        self.tick, self._moved = 0, asyncio.Event()

    def move(self, ticks: int = 1) -> None:
        self.tick += ticks
        self._moved.set()
        self._moved = asyncio.Event()

    async def next_tick(self, after: int) -> int:
        while self.tick <= after:
            await self._moved.wait()
        return self.tick


class Watched:
    """The overview of a view, and how often it was made."""

    def __init__(self, view: LiveView) -> None:
        self.view, self.clock, self.made = view, Clock(), 0
        self.updates = LiveUpdates(self.clock.next_tick, renderer())
        self.refusal: Refusal | None = None

    async def build(self) -> Page:
        self.made += 1
        if self.refusal is not None:
            raise self.refusal
        return live_pages.overview(self.view, asked())

    def stream(self, key: str = "overview") -> AsyncGenerator[bytes, None]:
        return self.updates.stream(key, self.build)


@pytest.fixture
def watched() -> Watched:
    return Watched(followed())


async def heard(stream: AsyncGenerator[bytes, None]) -> tuple[str, dict[str, str]]:
    name, data = (await anext(stream)).decode().strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_a_viewer_gets_all_regions_first_and_then_what_changed(watched: Watched) -> None:
    async with aclosing(watched.stream()) as stream:
        name, regions = await heard(stream)
        assert (name, "digits" in regions["live_applications"]) == ("regions", True)
        watched.view.stale_reason = "no broker answers"
        watched.clock.move()
        name, regions = await heard(stream)
        assert (name, [*regions]) == ("regions", ["live_state"])


async def test_one_rendering_a_second_serves_all_viewers_of_a_page(watched: Watched) -> None:
    streams = [watched.stream() for _ in range(10)]
    first = await asyncio.gather(*(heard(one) for one in streams))
    assert watched.made == 1
    watched.view.stale_reason = "no broker answers"
    watched.clock.move()
    second = await asyncio.gather(*(anext(one) for one in streams))
    assert watched.made == 2
    assert len({json.dumps(one) for one in first}) == 1
    assert len({id(one) for one in second}) == 1, "each viewer's event was made anew"
    for one in streams:
        await one.aclose()


async def test_who_may_see_something_else_has_a_rendering_of_his_own(watched: Watched) -> None:
    async with aclosing(watched.stream("all")) as mine, aclosing(watched.stream("some")) as yours:
        await heard(mine)
        await heard(yours)
        assert watched.made == 2


async def test_a_page_without_a_change_is_a_beat_now_and_then(watched: Watched) -> None:
    async with aclosing(watched.stream()) as stream:
        await heard(stream)
        waiting = asyncio.ensure_future(heard(stream))
        for _ in range(BEAT_TICKS):
            assert not waiting.done()
            watched.clock.move()
            for _ in range(10):
                await asyncio.sleep(0)
        assert (await waiting)[0] == "beat"


async def test_a_slow_viewer_gets_the_newest_state_alone(watched: Watched) -> None:
    async with aclosing(watched.stream()) as slow, aclosing(watched.stream()) as quick:
        await heard(slow)
        await heard(quick)
        for reason in ("first", "second", "third"):
            watched.view.stale_reason = reason
            watched.clock.move()
            await heard(quick)
        _, regions = await heard(slow)
        assert "third" in regions["live_state"]
        waiting = asyncio.ensure_future(anext(slow))
        for _ in range(10):
            await asyncio.sleep(0)
        assert not waiting.done(), "states in between were kept for it"
        waiting.cancel()
        await asyncio.wait([waiting])


async def test_nothing_is_kept_of_a_page_at_which_nobody_looks(watched: Watched) -> None:
    for made in (1, 2):
        async with aclosing(watched.stream()) as stream:
            await heard(stream)
            assert watched.made == made


@pytest.mark.parametrize(("status", "events"), [(404, ["gone"]), (503, [])], ids=["gone", "away"])
async def test_a_page_that_is_gone_says_so_and_others_just_end(
    status: int, events: list[str], watched: Watched
) -> None:
    watched.refusal = Refusal(status, "no application 'digits' is declared")
    assert [one.decode().split("\n")[0].removeprefix("event: ") async for one in watched.stream()] == events
