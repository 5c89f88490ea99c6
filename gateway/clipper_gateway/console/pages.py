"""The pages of the console by their paths, with what those read that do not follow the deployment."""

import asyncio
import re
import sysconfig
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TypeAlias

from markdown_it import MarkdownIt
from markupsafe import Markup

from clipper_agents.dead_letters.reader import DeadLetterReader, Filter, Letter, NoSuchLetter, opened_letters
from clipper_agents.kafka.reader import Range
from clipper_agents.status.query_history import QueryHistory
from clipper_gateway.callers import Caller, Share
from clipper_gateway.console import live_pages
from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.renderer import FILTERS, Page
from clipper_gateway.errors import Refusal
from clipper_gateway.rest import HttpCall
from clipper_stream.errors import shown
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

ReadQuery: TypeAlias = Callable[[Caller, str, str | None, str | None, float], Awaitable[QueryHistory]]
Builder: TypeAlias = Callable[[HttpCall], Awaitable[Page]]
LivePage: TypeAlias = Callable[[LiveView, HttpCall], Page]
LIVE_PAGES: Mapping[str, LivePage] = {
    "": live_pages.overview,
    "/applications/{name}": live_pages.application,
    "/applications/{name}/trials/{ref}": live_pages.trial,
    "/models": live_pages.models,
    "/changes": live_pages.changes,
}
SEARCHED_LETTERS = 2_000
"""Positions that a look at the dead letters goes back: a second's reading."""
SHOWN_LETTERS = 50
POSITION = re.compile("[0-9]{1,18}")
CLONE = Path(__file__).parents[3]
DOCS = CLONE / "docs" if (CLONE / "uv.lock").exists() else Path(sysconfig.get_path("data"), "share/doc/clipper-stream")
"""The documentation: that of the clone, else what was installed with the package."""
MARKDOWN = MarkdownIt("js-default")
MARKDOWN.add_render_rule("image", lambda *_: "")
BACK_H = 24
"""So far back a query is looked for where nothing else is said, in hours."""


class Pages:
    """Makes the pages: `builders`, by path below `/console` with its parameters in braces; `live` have live regions."""

    live = frozenset(LIVE_PAGES)

    def __init__(
        self, view: LiveView, read_query: ReadQuery, kafka: KafkaConnection, catalogue: Catalogue, readers: Share
    ) -> None:
        self._view, self._read_query, self._readers = view, read_query, readers
        self._kafka, self._catalogue = kafka, catalogue
        self.builders: Mapping[str, Builder] = {
            **{path: partial(self._live, make) for path, make in LIVE_PAGES.items()},
            "/dead-letters": self._letters,
            "/dead-letters/{position}": self._letter,
            "/queries": self._query,
            "/docs/{page:path}": self._document,
        }

    async def _live(self, make: LivePage, call: HttpCall) -> Page:
        if self._view.is_read:
            return make(self._view, call)
        state = {"is_live": True, "stale": self._view.stale_reason, "at_s": time.time()}
        return Page("loading.html", "Console", state, HTTPStatus.SERVICE_UNAVAILABLE)

    @asynccontextmanager
    async def _opened_letters(self, call: HttpCall) -> AsyncIterator[DeadLetterReader]:
        if call.caller.applications is not None:
            what = "dead letters are of all applications, and this key is for some"
            raise Refusal(403, f"{what}: ask the operator for another")
        async with (
            self._readers.turn(call.caller.holder),
            opened_letters(self._kafka, self._catalogue) as letters,
        ):
            yield letters

    async def _letters(self, call: HttpCall) -> Page:
        topic, error, prefix = call.text("topic"), call.text("error"), f"{self._catalogue.prefix}."
        wanted = Filter(topic=prefix + topic.removeprefix(prefix) if topic else None, error=error or None)
        found: deque[Letter] = deque(maxlen=SHOWN_LETTERS)
        async with self._opened_letters(call) as letters:
            first, end = letters.positions
            end = max(first, min(end, int(call.number("before", end))))
            span = Range(max(first, end - SEARCHED_LETTERS), end)
            async for letter in letters.all(wanted, within=span):
                found.append(replace(letter, value=None))
        oldest = found[0].position if len(found) == SHOWN_LETTERS else span.first
        before = oldest if oldest > first else None
        data = {"letters": [*reversed(found)], "topic": topic, "error": error, "before": before}
        return Page("dead_letters.html", "Dead letters", data)

    async def _letter(self, call: HttpCall) -> Page:
        if not POSITION.fullmatch(position := call.path["position"]):
            raise Refusal(404, f"{shown(position)} is no position of a dead letter")
        try:
            async with self._opened_letters(call) as letters:
                letter = await letters.at(int(position))
        except NoSuchLetter as error:
            raise Refusal(404, str(error)) from error
        return Page("dead_letter.html", f"Dead letter {letter.position}", {"letter": letter})

    async def _document(self, call: HttpCall) -> Page:
        return await asyncio.to_thread(_documentation, call.path["page"])

    async def _query(self, call: HttpCall) -> Page:
        query_id, application, context = map(call.text, ("id", "application", "context"))
        hours, history = max(1, int(call.number("hours", BACK_H))), None
        if query_id:
            if application or call.caller.applications is not None:
                call.caller.require("read", application)
            asked = query_id, application or None, context or None
            history = await self._read_query(call.caller, *asked, 3600.0 * hours)
        about = {"id": query_id, "application": application, "context": context, "hours": hours}
        title = f"Query {query_id}" if query_id else "One query"
        life = [] if history is None else _life(history)
        return Page("query.html", title, {"asked": about, "history": history, "life": life})


def _documentation(name: str) -> Page:
    path = (DOCS / name).resolve()
    if not (path.is_relative_to(DOCS) and path.suffix == ".md" and path.is_file()):
        raise Refusal(404, "the documentation has no such page: see /console/docs/README.md")
    return Page("documentation.html", "Documentation", {"shown": Markup(MARKDOWN.render(path.read_text()))})  # noqa: S704


def _life(history: QueryHistory) -> list[tuple[int, str]]:
    """What became of a query, in order of time: feedback may come before the answer."""
    found = [(one.at_ms, f"feedback: {one.outcome or 'outcome not told'}") for one in history.feedback]
    if query := history.query:
        found.append((query.queried_at_ms, f"asked: partition {query.partition}, offset {query.offset}"))
    if answer := history.prediction:
        by = f" by the default output: {answer.reason}" if answer.default else ""
        found.append((answer.predicted_at_ms, f"answered after {FILTERS['ms'](answer.latency_ms)}{by}"))
    return sorted(found)
