import asyncio
import json
from contextlib import aclosing

import pytest
from unit.gateway.console.rig import asked, followed, renderer

from clipper_gateway.console import live_pages
from clipper_gateway.console.live_updates import BEAT_TICKS, LiveUpdates
from clipper_gateway.errors import Refusal


class Watched:
    """The overview of a view, and how often it was made; seconds pass when a test says so, or when waited for."""

    def __init__(self):
        self.view, self.made, self.refusal = followed(), 0, None
        self.tick, self.is_hurried, self._moved = 0, False, asyncio.Event()
        self.updates = LiveUpdates(self.next_tick, renderer())

    def say(self, stale_reason):
        """Something else is on the page in the next second."""
        self.view.stale_reason = stale_reason
        self.tick += 1
        self._moved.set()
        self._moved = asyncio.Event()

    async def next_tick(self, after):
        if self.is_hurried:
            self.tick = after + 1
        while self.tick <= after:
            await self._moved.wait()
        return self.tick

    async def build(self):
        self.made += 1
        if self.refusal is not None:
            raise self.refusal
        return live_pages.overview(self.view, asked())

    def stream(self, key="overview"):
        return self.updates.stream(key, self.build)


@pytest.fixture
async def watched():
    return Watched()


async def heard(stream):
    name, data = (await anext(stream)).decode().strip().split("\n")
    return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))


async def test_a_viewer_gets_all_regions_first_and_then_what_changed(watched):
    async with aclosing(watched.stream()) as stream:
        name, regions = await heard(stream)
        assert (name, "digits" in regions["live_applications"]) == ("regions", True)
        watched.say("no broker answers")
        name, regions = await heard(stream)
        assert (name, [*regions]) == ("regions", ["live_state"])


async def test_one_rendering_a_second_serves_all_viewers_who_may_see_the_same(watched):
    streams = [watched.stream(key) for key in ("all", "some") for _ in range(10)]
    first = await asyncio.gather(*(heard(one) for one in streams))
    assert watched.made == 2
    watched.say("no broker answers")
    second = await asyncio.gather(*(anext(one) for one in streams))
    assert watched.made == 4
    assert len({json.dumps(one) for one in first}) == 1
    for each in (second[:10], second[10:]):
        assert len({id(one) for one in each}) == 1, "each viewer's event was made anew"
    for one in streams:
        await one.aclose()


async def test_a_page_without_a_change_is_a_beat_now_and_then(watched):
    async with aclosing(watched.stream()) as stream:
        await heard(stream)
        watched.is_hurried = True
        assert [await heard(stream) for _ in range(2)] == [
            ("beat", {"tick": beats * BEAT_TICKS}) for beats in (1, 2)
        ]  # fmt: skip


async def test_a_slow_viewer_gets_the_newest_state_alone(watched):
    async with aclosing(watched.stream()) as slow, aclosing(watched.stream()) as quick:
        await heard(slow)
        await heard(quick)
        for reason in ("first", "second", "third"):
            watched.say(reason)
            await heard(quick)
        for reason in ("third", "fourth"):
            assert reason in (await heard(slow))[1]["live_state"]
            watched.say("fourth")


async def test_nothing_is_kept_of_a_page_at_which_nobody_looks(watched):
    for made in (1, 2):
        async with aclosing(watched.stream()) as stream:
            await heard(stream)
            assert watched.made == made


@pytest.mark.parametrize(("status", "events"), [(404, ["gone"]), (503, [])], ids=["gone", "away"])
async def test_a_page_that_is_gone_says_so_and_others_just_end(status, events, watched):
    watched.refusal = Refusal(status, "no application 'digits' is declared")
    assert [one.decode().split("\n")[0].removeprefix("event: ") async for one in watched.stream()] == events
