"""What changes on a page, sent to all who look at it: server-sent events, of one rendering a page and second.

    regions   JSON: the HTML of each live region that changed, by its name
    beat      nothing changed for a while
    gone      there is no such page any more; the stream ends, as it does without a word at any other refusal

Rules of this file:
- A viewer who reads slowly misses states in between, never the newest one; nothing is kept for him meanwhile.
- Without a tick there is no event: a page that hears nothing says itself that it is stale.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus

import msgspec

from clipper_gateway.console.renderer import Page, Renderer
from clipper_gateway.errors import Refusal

BEAT_TICKS = 5
"""Ticks without a change after which a beat is sent; a page calls itself stale after more than twice as many."""
NEVER = -1


@dataclass(slots=True)
class _SharedPage:
    """The rendering of a page at a tick, for all its viewers, and the event of what has changed since that `before`."""

    viewers: int = 0
    tick: int = NEVER
    before: int = NEVER
    regions: dict[str, str] = field(default_factory=dict)
    changes: bytes = b""
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def take(self, tick: int, regions: dict[str, str]) -> None:
        changed = {name: html for name, html in regions.items() if self.regions.get(name) != html}
        self.before, self.tick, self.regions, self.changes = self.tick, tick, regions, _event("regions", changed)


class LiveUpdates:
    """Sends what changes on pages to those who look at them."""

    def __init__(self, next_tick: Callable[[int], Awaitable[int]], renderer: Renderer) -> None:
        self._next_tick, self._renderer = next_tick, renderer
        self._shared: dict[Hashable, _SharedPage] = {}

    async def stream(self, key: Hashable, build: Callable[[], Awaitable[Page]]) -> AsyncGenerator[bytes, None]:
        """Yield the events of one viewer, all regions first."""
        shared = self._shared.setdefault(key, _SharedPage())
        shared.viewers += 1
        seen = sent = NEVER
        try:
            while True:
                tick = await self._next_tick(seen)
                async with shared.lock:
                    if shared.tick < tick:
                        shared.take(tick, self._renderer.regions(await build()))
                news = shared.changes if seen == shared.before != NEVER else _event("regions", shared.regions)
                seen = shared.tick
                if news or seen - sent >= BEAT_TICKS:
                    sent = seen
                    yield news or _event("beat", {"tick": seen})
        except Refusal as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND:
                yield _event("gone", {"why": str(refusal)})
        finally:
            shared.viewers -= 1
            if not shared.viewers:
                del self._shared[key]


def _event(name: str, content: Mapping[str, object]) -> bytes:
    return b"event: %s\ndata: %s\n\n" % (name.encode(), msgspec.json.encode(content)) if content else b""
