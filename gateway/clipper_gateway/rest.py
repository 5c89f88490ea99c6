"""One HTTP request, from its headers to its log line: who asks, how large it is, how long it may take, how it ends.

    headers --> caller --> admitted? --> its turn --> body, in bounds --> handler --> response --> log, metrics
    400 403     401 429      429         429 503         413 415          Refusal

Rules of this file:
- A body is read only after its headers say who asks, and is never larger than allowed, whatever they say.
- A header that decides something stands once in a request: two proxies would each believe another one.
- An error that is no `ClipperError` is a defect: logged with its traceback, and answered by 500 without words of it.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import msgspec
from starlette.datastructures import QueryParams
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from clipper_gateway.access import Access
from clipper_gateway.callers import ANYBODY, NOBODY, Caller
from clipper_gateway.errors import Refusal, logged_refusal
from clipper_gateway.request_log import CLIENT_GONE, RecordHeaders, RequestLog, checked_request_id, record_headers
from clipper_gateway.server_spans import UNTRACED, ServerSpans
from clipper_stream.errors import ClipperError, shown

logger = logging.getLogger(__name__)

SINGLE = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"host",
        b"idempotency-key",
        b"inference-header-content-length",
        b"origin",
        b"sec-fetch-site",
        b"x-api-key",
        b"x-csrf-token",
    }
)
_NO_QUERY = QueryParams("")
NOSNIFF = b"x-content-type-options", b"nosniff"
DIGITS = 20
"""Of a length that is read as a number."""
LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
METHODS = {"GET": ("GET", "HEAD"), "POST": ("POST",), "GET POST": ("GET", "HEAD", "POST"), "": ()}
"""That a route of a method answers; none: all."""


@dataclass(slots=True)
class HttpCall:
    """A request as handlers see it.

    Attributes:
        caller: Who asks.
        body: Whole, not decoded.
        headers: Of the request, by their names in lower case.
        path: Parameters of the path.
        query: Parameters behind the path.
        record_headers: For the records that are written because of it.
        peer: Address of who asks: of who is connected, or for whom a trusted proxy is.
        receive: Of ASGI; once the body is there, it returns when the client is gone.
    """

    caller: Caller
    body: bytes
    headers: Mapping[str, str]
    path: Mapping[str, str]
    query: QueryParams
    record_headers: RecordHeaders
    peer: str = ""
    receive: Receive | None = None


Handler: TypeAlias = Callable[[HttpCall], Awaitable[Response]]
Admit: TypeAlias = Callable[[str, Caller], None]
"""Takes the name of the application; raises `Refusal` when too many of its calls wait already."""
Identify: TypeAlias = Callable[[Mapping[str, str], str], Awaitable[Caller]]
"""Takes the headers of a request and the address from which it comes."""
Refuse: TypeAlias = Callable[[Refusal, Caller, Mapping[str, str]], Response]
"""Takes a refusal, the caller, `NOBODY` while unknown, and the request's headers."""


def json_response(content: Any, status: int = 200) -> Response:
    """Return a response of JSON."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


class Endpoints:
    """Makes the routes of one gateway."""

    def __init__(
        self,
        access: Access,
        log: RequestLog,
        max_body_bytes: int,
        origins: frozenset[str] = frozenset(),
        *,
        identify: Identify | None = None,
        refuse: Refuse | None = None,
        headers: Sequence[tuple[bytes, bytes]] = (),
        spans: ServerSpans = UNTRACED,
    ) -> None:
        self.access, self.log, self.max_body_bytes, self.origins = access, log, max_body_bytes, origins
        self.spans = spans
        self.identify, self.refuse, self.headers = identify or self._identify, refuse or _problem, headers

    def route(
        self, path: str, handler: Handler, *, method: str = "POST", public: bool = False, admit: Admit | None = None
    ) -> Route:
        """Return a route."""
        # a route of no method fits only in part, so that every other one that fits goes before
        methods = [*METHODS[method]] or ["-"]
        return _EndpointRoute(path, _Endpoint(self, path, handler, method, public, admit), methods=methods)

    async def _identify(self, headers: Mapping[str, str], peer: str) -> Caller:
        return await self.access.identify(headers.get("authorization"), headers.get("x-api-key"), peer)

    def unknown(self) -> "_Endpoint":
        """Return what answers a request for which there is no route."""
        return _Endpoint(self, "unknown", _no_path, "", public=True, admit=None)


def _problem(refusal: Refusal, *_: object) -> Response:
    return Response(refusal.body(), refusal.status, refusal.headers, "application/problem+json")


class _EndpointRoute(Route):
    """A route whose endpoint refuses other methods, so that this is logged as everything else is."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.app(scope, receive, send)


async def _no_path(_: HttpCall) -> Response:
    raise Refusal(404, "there is no such path: /openapi.json lists them")


class _Endpoint:
    """The ASGI application of one route."""

    def __init__(
        self, of: Endpoints, path: str, handler: Handler, method: str, public: bool, admit: Admit | None
    ) -> None:
        self._of, self._path, self._handler = of, path, handler
        self._method, self._public, self._admit = method, public, admit
        self._spans = of.spans if method == "POST" and not public else UNTRACED

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        started_s = time.perf_counter()
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        request_id = checked_request_id(headers.get("x-request-id"))
        path: dict[str, str] = scope.get("path_params", {})
        connected = scope["client"][0] if scope.get("client") else ""
        peer = self._of.access.shares.address_of(connected, headers.get("x-forwarded-for"))
        caller, status = "", CLIENT_GONE
        try:
            try:
                caller, response = await self._answered(scope, headers, receive, request_id, peer)
            except ClipperError as error:
                response = self._of.refuse(logged_refusal(error), NOBODY, headers)
            except (ClientDisconnect, asyncio.CancelledError):
                raise
            except Exception:
                logger.exception("a request failed path=%s request_id=%s", self._path, request_id)
                defect = Refusal(500, f"a defect of this gateway: its log has it under {request_id}")
                response = self._of.refuse(defect, NOBODY, headers)
            response.raw_headers.extend(((b"x-request-id", request_id.encode()), NOSNIFF, *self._of.headers))
            await response(scope, receive, send)
            status = response.status_code
        except ClientDisconnect:
            pass
        finally:
            self._of.log.write(
                method=scope["method"],
                route=self._path,
                application=path.get("name", ""),
                status=status,
                took_s=time.perf_counter() - started_s,
                caller=caller,
                request_id=request_id,
                peer=peer,
            )

    async def _answered(
        self, scope: Scope, headers: dict[str, str], receive: Receive, request_id: str, peer: str
    ) -> tuple[str, Response]:
        if (methods := METHODS[self._method]) and scope["method"] not in methods:
            allowed = ", ".join(methods)
            text = f"{scope['method'][:16]} is not for {self._path}: use {allowed}"
            raise Refusal(405, text, headers={"allow": allowed})
        _check_single(scope["headers"])
        if self._of.access.is_of_this_machine:
            _check_host(headers.get("host", ""))
        if (origin := headers.get("origin")) is not None and origin not in self._of.origins:
            _check_origin(origin, scope["scheme"], headers.get("host", ""), is_open=self._of.access.is_open)
        caller = replace(ANYBODY, address=peer) if self._public else await self._of.identify(headers, peer)
        about = {"http.request.method": scope["method"], "http.route": self._path, "clipper.request_id": request_id}
        with self._spans.serving(f"{scope['method']} {self._path}", headers, about) as span:
            try:
                if self._admit is not None:
                    self._admit(scope["path_params"]["name"], caller)
                shares, body = self._of.access.shares, b""
                stated = _stated_bytes(headers, self._of.max_body_bytes) if "POST" in self._method else 0
                async with shares.bodies.turn(
                    caller.holder, shares.unstated_bytes if stated is None else stated
                ) as settle:
                    if stated != 0:
                        body = await _body(receive, self._of.max_body_bytes)
                        settle(len(body))
                    traced = record_headers(headers.get("traceparent"), request_id)
                    query = QueryParams(scope["query_string"]) if scope["query_string"] else _NO_QUERY
                    path = scope.get("path_params", {})
                    call = HttpCall(caller, body, headers, path, query, traced, peer, receive)
                    response = await self._handler(call)
            except ClipperError as error:
                response = self._of.refuse(logged_refusal(error), caller, headers)
            span.status = response.status_code
        return caller.name, response


def _check_single(headers: list[tuple[bytes, bytes]]) -> None:
    names = [name for name, _ in headers if name in SINGLE]
    if len(names) > 1 and len({*names}) < len(names):
        twice = next(name for name in names if names.count(name) > 1).decode()
        raise Refusal(400, f"header {twice} stands twice: send it once")


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
    """Return how large a body is by its headers, None where they do not say."""
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
