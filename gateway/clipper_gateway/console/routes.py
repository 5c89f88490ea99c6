"""The console as a part of the gateway: its routes, what stands in every answer, and the task that follows the topics.

request --> who (sessions) --> page (pages) or action (actions) --> HTML (renderer)
               | 401: the page to sign in      | Refusal: a page, or a part of one where a script has asked

Rules of this file:
- Nothing here holds up a prediction: the history is read in threads, and Kafka is asked in others.
- A defect of what follows the topics is logged, and it is begun again. It ends no gateway.
"""

import asyncio
import hashlib
import logging
import re
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import msgspec
from sse_starlette import EventSourceResponse
from starlette.datastructures import QueryParams
from starlette.responses import RedirectResponse, Response
from starlette.routing import Match, Route

from clipper_agents.control.errors import StaleRevision
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import GatewaySection
from clipper_gateway.access import Access
from clipper_gateway.console.actions import MOST_LETTERS, ActionForm, ActionPreview, Actions
from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.history import SeriesHistory
from clipper_gateway.console.live_updates import LiveUpdates
from clipper_gateway.console.pages import Pages
from clipper_gateway.console.renderer import Renderer
from clipper_gateway.console.sessions import Sessions
from clipper_gateway.errors import Refusal
from clipper_gateway.pipeline import Pipeline
from clipper_gateway.request_log import RequestLog
from clipper_gateway.rest import Endpoints, HttpCall
from clipper_gateway.served_call import ServedCall

HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; font-src 'self'",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "same-origin",  # under no-referrer browsers send `origin: null` with forms
}
KEPT, NOT_KEPT = {"cache-control": "public, max-age=31536000, immutable"}, {"cache-control": "no-store"}
STATIC = Path(__file__).with_name("static")
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
"""Of files in `static/`; others are not served."""
MOST_FORM_BYTES = 64 * 1024
MOST_HOURS = 48
AGAIN_S = 10.0
NO_FIELD = [""]
REFERRED = re.compile(r"https?://[^/?#]*(?P<page>/console/(?!log)[!-~]*)")
"""A page of a console but those to sign in and out."""


class Console:
    """The operator's pages of one gateway."""

    def __init__(
        self,
        settings: WorkerSettings[GatewaySection],
        access: Access,
        pipeline: Pipeline,
        log: RequestLog,
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        kafka, catalogue, section = settings.kafka, settings.catalogue, settings.section
        self._sessions = Sessions(access, is_secure=bool(section.tls_certfile))
        headers = [*headers, *((name.encode(), value.encode()) for name, value in HEADERS.items())]
        identify, refuse = self._sessions.identify, self._refused
        self._endpoints = Endpoints(access, log, MOST_FORM_BYTES, identify=identify, refuse=refuse, headers=headers)
        paths = [path for path in STATIC.rglob("*") if path.suffix in KINDS]
        self._files = {path.relative_to(STATIC).as_posix(): path.read_bytes() for path in paths}
        self._digests = {name: hashlib.sha256(content).hexdigest()[:16] for name, content in self._files.items()}
        self._renderer = Renderer(lambda name: f"/console/static/{name}?v={self._digests[name]}")
        self._history = SeriesHistory(settings.data_dir, time.time)
        self._view = LiveView(kafka, catalogue, self._history)
        self._pages = Pages(self._view, pipeline.read_query, kafka, catalogue, access.shares.readers)
        self._updates = LiveUpdates(self._view.next_tick, self._renderer)
        self._actions = Actions(kafka, catalogue, pipeline.check, access.shares)
        self._open_pages = access.shares.pages
        self._task: asyncio.Task[None] | None = None
        self._live: dict[str, Route] = {}

    def routes(self) -> list[Route]:
        of = self._endpoints.route
        pages = {path: of(f"/console{path}", partial(self._page, path), method="GET") for path in self._pages.builders}
        self._live = {path: route for path, route in pages.items() if path in self._pages.live}
        return [
            *pages.values(),
            of("/console/live", self._stream, method="GET"),
            of("/console/series/{name}", self._series, method="GET"),
            of("/console/actions/{action}/preview", self._preview),
            of("/console/actions/{action}", self._perform),
            of("/console/login", self._login, method="GET POST", public=True),
            of("/console/logout", self._logout, public=True),
            of("/console/static/{path:path}", self._static_file, method="GET", public=True),
            of("/", self._nowhere, method="GET", public=True),
            of("/console/{rest:path}", self._nowhere, method="", public=True),
        ]

    def start(self) -> None:
        self._task = asyncio.create_task(run_again(self._view.run), name="console")

    async def stop(self) -> None:
        """End the open streams, follow no longer, and close the history."""
        self._view.end()
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        self._history.close()

    # --- pages ------------------------------------------------------------------------------------------------------
    async def _page(self, path: str, call: HttpCall) -> Response:
        call.caller.require("read", call.path.get("name"))
        page = await self._pages.builders[path](call)
        data = {"path": f"/console{path}", "title": page.title, **page.data}
        return self._html(call, page.template, data, page.status)

    def _html(self, call: ServedCall, template: str, data: Mapping[str, Any], status: int = 200) -> Response:
        about = {
            "caller": call.caller if call.caller.name else None,
            "can_operate": "operate" in call.caller.rights,
            "csrf": self._sessions.csrf_of(call.headers),
            "is_open": self._sessions.is_open,
            "is_part": "hx-request" in call.headers,
            "status": status,
            **data,
        }
        return Response(self._renderer.render(template, **about), status, NOT_KEPT, "text/html")

    def _refused(self, refusal: Refusal, call: ServedCall) -> Response:
        whole = "login.html" if refusal.status == HTTPStatus.UNAUTHORIZED else "error.html"
        template = "actions/failed.html" if "hx-request" in call.headers else whole
        data = {"phrase": HTTPStatus(refusal.status).phrase, "message": str(refusal)}
        response = self._html(call, template, data, refusal.status)
        response.headers.update(refusal.headers)
        if whole == "login.html" and call.headers.get("sec-fetch-site") == "cross-site":
            response.headers["refresh"] = "0"  # behind another site's link a browser keeps the cookie back, once
        return response

    async def _static_file(self, call: HttpCall) -> Response:
        name = call.path["path"]
        if (content := self._files.get(name)) is None:
            raise Refusal(404, "there is no such file")
        is_this = call.query.get("v") == self._digests[name]
        return Response(content, 200, KEPT if is_this else NOT_KEPT, KINDS[Path(name).suffix])

    async def _nowhere(self, call: HttpCall) -> Response:
        if call.path.get("rest"):
            raise Refusal(404, "the console has no such page")
        return RedirectResponse("/console", 307)

    # --- what changes on pages ---------------------------------------------------------------------------------------
    async def _series(self, call: HttpCall) -> Response:
        call.caller.require("read", call.path["name"])
        since_s = time.time() - 3600.0 * min(call.number("hours", 1), MOST_HOURS)
        found = await asyncio.to_thread(self._history.series, call.path["name"], since_s)
        return Response(msgspec.json.encode(found), 200, NOT_KEPT, "application/json")

    async def _stream(self, call: HttpCall) -> Response:
        self._open_pages.check(call.caller.holder)
        asked = call.query.get("page", "")
        path, _, query = asked.partition("?")
        scope = {"type": "http", "method": "GET", "path": unquote(path)}
        for path, (match, found) in ((path, route.matches(scope)) for path, route in self._live.items()):
            if match is Match.FULL:
                page = replace(call, path=found["path_params"], query=QueryParams(query))
                call.caller.require("read", page.path.get("name"))
                key = asked, call.caller.applications, call.caller.rights
                updates = self._updates.stream(key, partial(self._pages.builders[path], page))
                return EventSourceResponse(self._until_refused(call, updates))
        raise Refusal(404, "there is no such page")

    async def _until_refused(self, call: HttpCall, updates: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
        try:
            with self._open_pages.held(call.caller.holder):
                async with aclosing(updates):
                    async for one in updates:
                        await self._sessions.identify(call)  # until it is over, or its key revoked
                        yield one
        except Refusal:
            return

    # --- who looks, and what is done ----------------------------------------------------------------------------------
    async def _login(self, call: HttpCall) -> Response:
        if self._sessions.is_open:
            return RedirectResponse("/console", 303)
        if not call.body:
            return self._html(call, "login.html", {})
        cookie = await self._sessions.sign_in(call, self._asked(call, is_own=False).get("key", NO_FIELD)[-1])
        asked = REFERRED.fullmatch(call.headers.get("referer", ""))  # the page that could not be seen
        return RedirectResponse(asked["page"] if asked else "/console", 303, {"set-cookie": cookie})

    async def _logout(self, call: HttpCall) -> Response:
        self._asked(call)
        return RedirectResponse("/console/login", 303, {"set-cookie": self._sessions.sign_out(call)})

    async def _preview(self, call: HttpCall) -> Response:
        form = ActionForm.of(fields := self._asked(call))
        return self._confirmation(call, fields, await self._actions.preview(call.path["action"], call.caller, form))

    async def _perform(self, call: HttpCall) -> Response:
        form, action = ActionForm.of(fields := self._asked(call)), call.path["action"]
        try:
            lines = await self._actions.perform(action, call.caller, form)
        except StaleRevision as stale:
            found = await self._actions.preview(action, call.caller, form)
            return self._confirmation(call, fields, found, str(stale))
        return self._dialog(call, "actions/done.html", lines=lines, application=form.application)

    def _asked(self, call: HttpCall, *, is_own: bool = True) -> dict[str, list[str]]:
        try:
            fields = parse_qs(call.body.decode(), keep_blank_values=True, max_num_fields=MOST_LETTERS + 20)
        except ValueError as error:
            raise Refusal(400, f"the body is no form: {error}") from error
        if is_own:
            self._sessions.check_forgery(call.headers, fields.pop("csrf", NO_FIELD)[-1])
        return fields

    def _confirmation(
        self, call: HttpCall, fields: Mapping[str, list[str]], preview: ActionPreview, stale: str = ""
    ) -> Response:
        own = {"seen": [str(preview.seen)], "number": [secrets.token_urlsafe(12)]}
        hidden = [(name, one) for name, texts in {**fields, **own}.items() if name != "why" for one in texts]
        about = {"action": call.path["action"], "hidden": hidden, "why": fields.get("why", NO_FIELD)[-1]}
        status = HTTPStatus.CONFLICT if stale else HTTPStatus.OK
        return self._dialog(call, "actions/confirm.html", status, preview=preview, outdated=stale, **about)

    def _dialog(self, call: HttpCall, template: str, status: int = 200, **data: Any) -> Response:
        whole = template if "hx-request" in call.headers else "actions/page.html"
        return self._html(call, whole, {"part": template, **data}, status)


async def run_again(run: Callable[[], Awaitable[None]], again_s: float = AGAIN_S) -> None:
    """Run what should never end, again and again; a defect of it is logged."""
    while True:
        try:
            await run()
        except Exception:
            logging.getLogger(__name__).exception("the console's view failed, and is begun again")
        await asyncio.sleep(again_s)
