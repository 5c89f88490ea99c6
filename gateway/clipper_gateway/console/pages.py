"""The pages of the console by their paths, with what those read that do not follow the deployment."""

import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from typing import Any, TypeAlias

from clipper_agents.dead_letters.reader import DeadLetterReader, Filter, Letter, NoSuchLetter, opened_letters
from clipper_agents.kafka.reader import Range
from clipper_agents.status.query_history import QueryHistory
from clipper_gateway.callers import Caller, Share
from clipper_gateway.console import live_pages
from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.page import Page, PageRequest
from clipper_gateway.errors import Refusal
from clipper_stream.errors import shown
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

ReadQuery: TypeAlias = Callable[[Caller, str, str | None, str | None, float], Awaitable[QueryHistory]]
Builder: TypeAlias = Callable[[PageRequest], Awaitable[Page]]
LivePage: TypeAlias = Callable[[LiveView, PageRequest], Page]
LIVE_PAGES: Mapping[str, LivePage] = {
    "": live_pages.overview,
    "/applications/{name}": live_pages.application,
    "/applications/{name}/trials/{ref}": live_pages.trial,
    "/models": live_pages.models,
    "/changes": live_pages.changes,
}
POSITION = re.compile(r"[0-9]{1,18}")
SEARCHED_LETTERS = 2_000
"""Positions that a look at the dead letters goes back: a second's reading."""
SHOWN_LETTERS = 50
POSITION = re.compile("[0-9]{1,18}")
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
        }

    async def _live(self, make: LivePage, request: PageRequest) -> Page:
        if self._view.is_read:
            return make(self._view, request)
        state = {"is_live": True, "stale": self._view.stale_reason, "at_s": time.time()}
        return replace(_page(request, "loading.html", "Console", **state), status=HTTPStatus.SERVICE_UNAVAILABLE)

    @asynccontextmanager
    async def _opened_letters(self, request: PageRequest) -> AsyncIterator[DeadLetterReader]:
        if request.caller.applications is not None:
            what = "dead letters are of all applications, and this key is for some"
            raise Refusal(403, f"{what}: ask the operator for another")
        async with (
            self._readers.turn(request.caller.holder),
            opened_letters(self._kafka, self._catalogue) as letters,
        ):
            yield letters

    async def _letters(self, request: PageRequest) -> Page:
        topic, error, prefix = request.text("topic"), request.text("error"), f"{self._catalogue.prefix}."
        wanted = Filter(topic=prefix + topic.removeprefix(prefix) if topic else None, error=error or None)
        found: deque[Letter] = deque(maxlen=SHOWN_LETTERS)
        async with self._opened_letters(request) as letters:
            first, end = letters.positions
            end = max(first, min(end, int(request.number("before", end))))
            span = Range(max(first, end - SEARCHED_LETTERS), end)
            async for letter in letters.all(wanted, within=span):
                found.append(replace(letter, value=None))
        oldest = found[0].position if len(found) == SHOWN_LETTERS else span.first
        data = {"letters": [*reversed(found)], "topic": topic, "error": error}
        return _page(request, "dead_letters.html", "Dead letters", before=oldest if oldest > first else None, **data)

    async def _letter(self, request: PageRequest) -> Page:
        if not POSITION.fullmatch(position := request.path["position"]):
            raise Refusal(404, f"{shown(position)} is no position of a dead letter")
        try:
            async with self._opened_letters(request) as letters:
                letter = await letters.at(int(position))
        except NoSuchLetter as error:
            raise Refusal(404, str(error)) from error
        return _page(request, "dead_letter.html", f"Dead letter {letter.position}", letter=letter)

    async def _query(self, request: PageRequest) -> Page:
        query_id, application, context = map(request.text, ("id", "application", "context"))
        hours, history = max(1, int(request.number("hours", BACK_H))), None
        if query_id:
            if application or request.caller.applications is not None:
                request.caller.require("read", application)
            asked = query_id, application or None, context or None
            history = await self._read_query(request.caller, *asked, 3600.0 * hours)
        about = {"id": query_id, "application": application, "context": context, "hours": hours}
        title = f"Query {query_id}" if query_id else "One query"
        return _page(request, "query.html", title, asked=about, history=history)


def _page(request: PageRequest, template: str, title: str, **data: Any) -> Page:
    return Page(template=template, title=title, data={"can_operate": request.can_operate, **data})
