"""uvicorn's protocol for one connection, which a slow or careless client cannot hold for ever.

uvicorn bounds how long a connection is idle between requests. Not how long headers and bodies may take or how large
headers are, nor how long a client may take nothing of its answer.

httptools takes a request that offers another protocol (`Upgrade: h2c`, as Java's client does) for one without a body,
and its body for the next request. Trailers it takes for headers. Here offers and trailers are ignored, as RFC 9110 has
it for who knows neither.
"""

import asyncio
from typing import Any, ClassVar

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from clipper_gateway.callers import Shares, holder_of
from clipper_gateway.errors import Refusal

BODY_S = 20.0
"""From the headers on until the body is there, also where it was answered before: a megabyte at 50 kB a second."""
HEADERS_S = 10.0
"""From the first byte of a request, or from the connection on, until its headers are there."""
STALLED_S = 30.0
"""Without a byte of the answer taken."""
MOST_HEADER_BYTES = 32 * 1024
MOST_HEADERS = 100
MOST_PIPELINED = 100
"""Requests that wait for the answer of one before them: a segment could hold ten thousand."""
UVICORN: dict[str, Any] = {
    "ws": "none",
    "lifespan": "off",
    "log_config": None,
    "access_log": False,
    "server_header": False,
    "date_header": False,
    "proxy_headers": False,
}
"""Settings of a server with this protocol: it does nothing beside."""


class _Parser(httptools.HttpRequestParser):
    """A parser that reads the headers of a request that offers another protocol again, without the offer."""

    def __init__(self, protocol: "BoundedHttpProtocol") -> None:
        self._protocol = protocol
        self._begin()

    def _begin(self) -> None:
        super().__init__(self._protocol)
        self.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn's own

    def feed_data(self, data: Any) -> None:
        while True:
            try:
                super().feed_data(data)
            except httptools.HttpParserUpgrade as offer:
                head = self._protocol.head_without_offer()
                self._begin()
                super().feed_data(head)
                data = data[offer.args[0] :]
            else:
                return


class BoundedHttpProtocol(HttpToolsProtocol):
    """A connection whose every wait for the client has an end: at each moment a timer runs, or the gateway works.

    What begins no request ends no wait for one. An address has a share of the connections, unless it is a trusted
    proxy's, and of the bytes of answers that nobody has read. A gateway sets its `shares` in a class of its own.
    """

    shares: ClassVar[Shares] = Shares()
    headers_s, body_s = HEADERS_S, BODY_S
    _connections = _unread_bytes = 0
    _in_headers = _headers_too_large = _has_read_body = False
    _body_is_there = True
    _header_bytes = _parsed_bytes = 0
    _timer: asyncio.TimerHandle | None = None
    _stalled: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.parser = _Parser(self)
        self._end_in(self.headers_s)
        connected = self.client[0] if self.client else ""
        self._peer = holder_of(connected)
        try:
            if not self.shares.is_proxy(connected):
                self.shares.connections.take(self._peer)
                self._connections = 1
        except Refusal:
            self._refuse(503)

    def connection_lost(self, exc: Exception | None) -> None:
        self.shares.connections.give_back(self._peer, self._connections)
        self._end_in(None)
        self._end_idle()
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._has_read_body = False
        super().data_received(data)
        if not (self._body_is_there or self._has_read_body):  # headers, trailers, or what is between chunks
            self._header_bytes += len(data)
            if self._header_bytes > MOST_HEADER_BYTES:
                self._headers_too_large = True
                self.send_400_response("")
        if self._timer is None and not self._body_is_there:
            self._end_in(self.headers_s if self._in_headers else self.body_s)

    def head_without_offer(self) -> bytes:
        """Return the request line and the headers that were read last, without `Upgrade`."""
        lines = [b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())]
        lines += [b"%b: %b" % header for header in self.headers if header[0] != b"upgrade"]
        return b"\r\n".join([*lines, b"", b""])

    def send_400_response(self, msg: str) -> None:
        if self.transport.is_closing():
            return
        if self._headers_too_large:
            self._refuse(431)
        else:
            super().send_400_response(msg)

    def _refuse(self, status: int) -> None:
        self.transport.write(STATUS_LINE[status] + b"content-length: 0\r\nconnection: close\r\n\r\n")
        self.transport.close()

    def _unset_keepalive_if_required(self) -> None:
        """Keep the timer of an idle connection, whatever bytes came: a request that begins ends it."""

    def _end_idle(self) -> None:
        super()._unset_keepalive_if_required()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self._body_is_there:  # of this request, or of one that has begun
            self._end_idle()

    def on_message_begin(self) -> None:
        self._end_idle()
        super().on_message_begin()
        self._in_headers, self._body_is_there, self._header_bytes, self._parsed_bytes = True, False, 0, 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        self._take_header_bytes(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._in_headers:
            return
        super().on_header(name, value)
        self._take_header_bytes(len(name) + len(value) + len(": \r\n"))

    def _take_header_bytes(self, size: int) -> None:
        """Count what was parsed: a segment may have more than all headers may, and their end."""
        self._parsed_bytes += size
        if len(self.headers) > MOST_HEADERS or self._parsed_bytes > MOST_HEADER_BYTES:
            self._headers_too_large = True
            raise ValueError("the headers are too large")

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise ValueError("this is no proxy")
            return
        if len(self.pipeline) >= MOST_PIPELINED:
            raise ValueError("send further requests when some are answered")
        self._in_headers, self._header_bytes = False, 0
        self._end_in(None)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._has_read_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._body_is_there = True
        self._end_in(None)
        super().on_message_complete()
        if self.cycle.response_complete and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def pause_writing(self) -> None:
        super().pause_writing()
        self._stalled = self.loop.call_later(STALLED_S, self.transport.abort)
        size = self.transport.get_write_buffer_size()
        try:
            self.shares.unread.take(self._peer, size)
            self._unread_bytes += size
        except Refusal:
            self.transport.abort()

    def resume_writing(self) -> None:
        self.shares.unread.give_back(self._peer, self._unread_bytes)
        self._unread_bytes = 0
        if self._stalled is not None:
            self._stalled.cancel()
            self._stalled = None
        super().resume_writing()

    def _end_in(self, seconds: float | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.abort()
