"""One HTTP request, from its headers to its log line: who asks, how large it is, how long it may take, how it ends.

    headers --> caller --> admitted? --> its turn --> body, in bounds --> handler --> response --> log, metrics
    400 403     401 429      429         429 503         413 415          Refusal

Rules of this file:
- A body is read only after its headers say who asks, and is never larger than allowed, whatever they say.
- A header that decides something stands once in a request: two proxies would each believe another one.
- An error that is no `ClipperError` is a defect: logged with its traceback, and answered by 500 without words of it.
"""

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from clipper_gateway.access import Access
from clipper_gateway.callers import Caller, anybody_at
from clipper_gateway.errors import Refusal, logged_refusal
from clipper_gateway.request_log import RequestLog
from clipper_gateway.served_call import CLIENT_GONE, ServedCall, check_single
from clipper_gateway.server_spans import UNTRACED, ServerSpans
from clipper_stream.errors import shown

NUMBER = re.compile(r"[0-9]{1,15}(\.[0-9]{1,9})?")
NOSNIFF = b"x-content-type-options", b"nosniff"
DIGITS = 20
"""Of a length that is read as a number."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
METHODS = {"GET": ("GET", "HEAD"), "POST": ("POST",), "GET POST": ("GET", "HEAD", "POST"), "": ()}
"""That a route of a method answers; none: all."""


@dataclass(slots=True, kw_only=True)
class HttpCall(ServedCall):
    """A request as handlers see it.

    Attributes:
        body: Whole, not decoded.
        path: Parameters of the path.
        query: Parameters behind the path.
        receive: Of ASGI; once the body is there, it returns when the client is gone.
    """

    body: bytes = b""
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    receive: Receive | None = None

    def text(self, name: str) -> str:
        """Return a parameter behind the path, empty when it is not given."""
        return self.query.get(name, "").strip()

    def number(self, name: str, otherwise: float) -> float:
        """Return a parameter behind the path as a number of at least 0; what is none counts as `otherwise`."""
        text = self.text(name)
        return float(text) if NUMBER.fullmatch(text) else otherwise


Handler: TypeAlias = Callable[[HttpCall], Awaitable[Response]]
Admit: TypeAlias = Callable[[str, Caller], None]
"""Takes the name of the application; raises `Refusal` when too many of its calls wait already."""
Identify: TypeAlias = Callable[[ServedCall], Awaitable[Caller]]
Refuse: TypeAlias = Callable[[Refusal, ServedCall], Response]


def json_response(content: Any, status: int = 200) -> Response:
    """Return a response of JSON."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def _problem(refusal: Refusal, _: ServedCall) -> Response:
    return Response(refusal.body(), refusal.status, refusal.headers, "application/problem+json")


async def _no_path(_: HttpCall) -> Response:
    raise Refusal(404, "there is no such path: /openapi.json lists them")


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Makes the routes of a gateway, or of its console, from what these share; access identifies, if nothing else."""

    access: Access
    log: RequestLog
    max_body_bytes: int
    origins: frozenset[str] = frozenset()
    identify: Identify | None = None
    refuse: Refuse = _problem
    headers: Sequence[tuple[bytes, bytes]] = ()
    spans: ServerSpans = UNTRACED

    def route(
        self, path: str, handler: Handler, *, method: str = "POST", public: bool = False, admit: Admit | None = None
    ) -> Route:
        return _Endpoint(self, path, handler, method, public, admit)

    def unknown(self) -> ASGIApp:
        return _Endpoint(self, "unknown", _no_path, "", public=True, admit=None).handle


class _Endpoint(Route):
    """A route that refuses other methods itself, so that this is logged as everything else is."""

    def __init__(
        self, of: Endpoints, path: str, handler: Handler, method: str, public: bool, admit: Admit | None
    ) -> None:
        # a route of no method fits only in part, so that every other one that fits goes before
        super().__init__(f"/{path.removeprefix('/')}", handler, methods=[*METHODS[method]] or ["-"])
        self._of, self._path, self._handler = of, path, handler
        self._method, self._public, self._admit = method, public, admit
        self._identify, self._spans = of.identify or of.access.identify, UNTRACED
        if method == "POST" and not public:
            self._spans = of.spans

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        fields = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        headers = dict(fields)
        path: dict[str, str] = scope.get("path_params", {})
        connected = scope["client"][0] if scope.get("client") else ""
        call = HttpCall(
            method=scope["method"],
            route=self._path,
            headers=headers,
            peer=self._of.access.shares.address_of(connected, headers.get("x-forwarded-for")),
            application=path.get("name", ""),
            path=path,
            query=QueryParams(scope["query_string"]) if scope["query_string"] else {},
            receive=receive,
        )
        try:
            try:
                if len(headers) < len(fields):
                    check_single(fields)
                response = await self._answered(call, scope, receive)
            except ClientDisconnect:
                return
            except Exception as error:  # noqa: BLE001 - answered by 500
                response = self._of.refuse(logged_refusal(error, call.request_id), call)
            call.status = CLIENT_GONE
            response.raw_headers.extend(((b"x-request-id", call.request_id.encode()), NOSNIFF, *self._of.headers))
            with suppress(ClientDisconnect):
                await response(scope, receive, send)
                call.status = response.status_code
        finally:
            self._of.log.write(call)

    async def _answered(self, call: HttpCall, scope: Scope, receive: Receive) -> Response:
        if (methods := METHODS[self._method]) and call.method not in methods:
            allowed = ", ".join(methods)
            text = f"{call.method[:16]} is not for {self._path}: use {allowed}"
            raise Refusal(405, text, headers={"allow": allowed})
        headers = call.headers
        if self._of.access.is_of_this_machine:
            _check_host(headers.get("host", ""))
        if (origin := headers.get("origin")) is not None and origin not in self._of.origins:
            _check_origin(origin, scope["scheme"], headers.get("host", ""), is_open=self._of.access.is_open)
        call.caller = anybody_at(call.peer) if self._public else await self._identify(call)
        about = {
            "http.request.method": call.method,
            "http.route": self._path,
            "url.path": scope["path"],
            "url.scheme": scope["scheme"],
            "clipper.request_id": call.request_id,
        }
        with self._spans.serving(call, f"{call.method} {self._path}", about):
            if self._admit is not None:
                self._admit(call.application, call.caller)
            shares = self._of.access.shares
            stated = _stated_bytes(headers, self._of.max_body_bytes) if "POST" in self._method else 0
            taken = shares.unstated_bytes if stated is None else stated
            async with shares.bodies.turn(call.caller.holder, taken) as held:
                if stated != 0:
                    call.body = await _body(receive, self._of.max_body_bytes)
                    held.settle(len(call.body))
                response = await self._handler(call)
            call.status = response.status_code
        return response


def _check_host(host: str) -> None:
    """Refuse what a page of another site sends under its own name, which it has made lead to this machine."""
    if host and not names_this_machine(host):
        raise Refusal(403, f"{shown(host)} is no name of this machine, for which alone no key is needed: ask 127.0.0.1")


def _check_origin(origin: str, scheme: str, host: str, *, is_open: bool) -> None:
    """Refuse what a page of another site sends from a browser of somebody who may ask.

    Without keys whoever reaches the gateway may ask. A name that leads to this machine may then be anybody's. A proxy
    may have ended TLS before.
    """
    if origin not in {f"{scheme}://{host}", f"https://{host}"} or (is_open and not names_this_machine(host)):
        raise Refusal(403, f"pages of {shown(origin)} may not call this gateway: name it in gateway.cors_origins")


def names_this_machine(host: str) -> bool:
    """Return whether the header `host` has a name that leads to no other machine, whoever answers for names.

    >>> names_this_machine("127.0.0.1:8080"), names_this_machine("elsewhere.example:8080")
    (True, False)
    """
    return (host.rpartition(":")[0] or host) in LOOPBACK


def _stated_bytes(headers: Mapping[str, str], most_bytes: int) -> int | None:
    if (coding := headers.get("content-encoding", "identity")) != "identity":
        raise Refusal(415, f"content-encoding {shown(coding)}: send the body as it is")
    if "transfer-encoding" in headers:
        return None
    stated = headers.get("content-length", "0")
    if not stated.isdecimal() or len(stated) > DIGITS or int(stated) > most_bytes:
        raise _too_large(stated[:DIGITS], most_bytes)
    return int(stated)


async def _body(receive: Receive, most_bytes: int) -> bytes:
    parts, size = [], 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most_bytes:
            raise _too_large(f"more than {most_bytes}", most_bytes)
        if not message.get("more_body"):
            return b"".join(parts)


def _too_large(found: str, most_bytes: int) -> Refusal:
    text = f"the body has {found} bytes: send at most {most_bytes}, and more rows in further requests"
    return Refusal(413, text, headers={"connection": "close"})
