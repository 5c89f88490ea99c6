import asyncio
import json

import pytest
import uvicorn
from uvicorn.server import ServerState

from clipper_gateway.callers import Shares
from clipper_gateway.http_protocol import MOST_HEADER_BYTES, MOST_PIPELINED, BoundedHttpProtocol

SOON_S = 10.0


class Transport(asyncio.Transport):
    """Keeps what is written; `ended` is set when the connection is closed or aborted."""

    def __init__(self):
        super().__init__({"peername": ("127.0.0.1", 5), "sockname": ("127.0.0.1", 6)})
        self.written, self.is_aborted, self.ended, self.wrote = b"", False, asyncio.Event(), asyncio.Event()

    def write(self, data):
        self.written += data
        self.wrote.set()

    def close(self):
        self.ended.set()

    def abort(self):
        self.is_aborted = True
        self.ended.set()

    def is_closing(self):
        return self.ended.is_set()

    def get_write_buffer_size(self):
        return 245 * 1024 + 512

    def pause_reading(self):
        """Bytes come as a test sends them."""

    def resume_reading(self):
        """Bytes come as a test sends them."""


class HurriedProtocol(BoundedHttpProtocol):
    headers_s = body_s = 0.05


async def tell(scope, receive, send):
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        body, more = body + message["body"], message["more_body"]
    names = sorted(name.decode() for name, _ in scope["headers"])
    content = json.dumps({"path": scope["path"], "headers": names, "body": len(body)}).encode()
    headers = [(b"content-length", b"%d" % len(content))]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


def connected(kind=BoundedHttpProtocol, application=tell, **settings):
    config = uvicorn.Config(application, http=kind, ws="none", lifespan="off", log_config=None, **settings)
    protocol, transport = kind(config, ServerState(), {}), Transport()
    protocol.connection_made(transport)
    return protocol, transport


async def answers(transport, count):
    """What the application said, once it was asked so often."""
    async with asyncio.timeout(SOON_S):
        while transport.written.count(b'"body"') < count:
            transport.wrote.clear()
            await transport.wrote.wait()
    return [json.loads(part.partition(b"\r\n\r\n")[2]) for part in transport.written.split(b"HTTP/1.1 200 OK\r\n")[1:]]


async def answered(transport):
    async with asyncio.timeout(SOON_S):
        while b'"body"' not in transport.written:
            transport.wrote.clear()
            await transport.wrote.wait()


@pytest.mark.parametrize(
    "begin", [b"GET / HTTP/1.1\r\nx: ", b"POST / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n", b""]
)
async def test_a_connection_whose_headers_or_body_do_not_come_to_an_end_is_ended(begin):
    protocol, transport = connected(HurriedProtocol)
    if begin:
        protocol.data_received(begin)
    async with asyncio.timeout(SOON_S):
        while begin and not transport.is_closing():
            protocol.data_received(b"a")
            await asyncio.sleep(0.001)
        await transport.ended.wait()
    assert (transport.is_aborted, transport.written) == (True, b"")
    if begin.startswith(b"POST"):
        protocol.connection_lost(None)


async def refuse(scope, receive, send):
    await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"6")]})
    await send({"type": "http.response.body", "body": b'"body"'})


@pytest.mark.parametrize(
    ("application", "sent"),
    [
        (tell, [b"GET / HTTP/1.1\r\n\r\n"]),
        (refuse, [b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\n", b"ab"]),
    ],
    ids=["answered", "answered before its body was there"],
)
async def test_what_begins_no_request_does_not_keep_a_connection_open(application, sent):
    """Empty lines behind a finished request did: with 8,000 such connections everybody else was refused."""
    protocol, transport = connected(HurriedProtocol, application, timeout_keep_alive=0.05)
    for part in sent:
        protocol.data_received(part)
        await answered(transport)
    async with asyncio.timeout(SOON_S):
        while not transport.is_closing():
            protocol.data_received(b"\r\n")
            await asyncio.sleep(0.001)
    protocol.connection_lost(None)


async def test_a_request_that_began_before_an_answer_ended_is_answered_however_long_that_takes():
    goes_on, times = asyncio.Event(), []

    async def slow(scope, receive, send):
        times.append(scope["path"])
        if scope["path"] == "/slow":
            await goes_on.wait()
        await tell(scope, receive, send)

    protocol, transport = connected(application=slow, timeout_keep_alive=0.02)
    protocol.data_received(b"GET /quick HTTP/1.1\r\n\r\nGET /slow HT")
    await answers(transport, 1)
    protocol.data_received(b"TP/1.1\r\n\r\n")
    await asyncio.sleep(0.1)  # five times the wait for a next request
    assert (times, transport.is_closing()) == (["/quick", "/slow"], False)
    goes_on.set()
    assert [one["path"] for one in await answers(transport, 2)] == ["/quick", "/slow"]


async def test_one_address_has_a_bound_of_its_own(monkeypatch):
    monkeypatch.setattr(BoundedHttpProtocol, "shares", shares := Shares())
    shares.connections.take("127.0.0.1", shares.connections.of_caller - 1)
    (first, kept), (second, refused) = connected(), connected()
    assert (kept.is_closing(), refused.is_closing()) == (False, True)
    assert refused.written.startswith(b"HTTP/1.1 503 ")
    for protocol in (first, second):
        protocol.connection_lost(None)
    assert not connected()[1].is_closing()


@pytest.mark.parametrize("connection", ["Upgrade", "Upgrade, close"])
async def test_an_offer_of_another_protocol_leaves_a_body_a_body_wherever_it_is_cut(connection):
    body = b"GET /hidden HTTP/1.1\r\n\r\n"
    head = f"POST /a?b HTTP/1.1\r\nConnection: {connection}\r\nUpgrade: h2c\r\ncontent-length: {len(body)}\r\n\r\n"
    sent = head.encode() + body
    for cut in range(1, len(sent)):
        protocol, transport = connected()
        protocol.data_received(sent[:cut])
        protocol.data_received(sent[cut:])
        (answer,) = await answers(transport, 1)
        assert answer == {"path": "/a", "headers": ["connection", "content-length"], "body": len(body)}


OFFER = b"GET /offer HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-api-key: a\r\n\r\n"
LARGE = 2 * MOST_HEADER_BYTES
LARGE_BODY = b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % LARGE + b"a" * LARGE


@pytest.mark.parametrize(
    ("sent", "name", "told"),
    [
        ([OFFER + OFFER + b"GET /plain HTTP/1.1\r\n\r\n"], "path", ["/offer", "/offer", "/plain"]),
        ([CHUNKED + b"GET / HTTP/1.1\r\n\r\n"], "headers", [["transfer-encoding"], []]),
        ([LARGE_BODY[:100], LARGE_BODY[100:] + b"GET / HT", b"TP/1.1\r\n\r\n"], "body", [LARGE, 0]),
    ],
    ids=["behind offers of another protocol", "behind a header behind a body", "behind a large body"],
)
async def test_requests_of_one_connection_are_each_answered_for_themselves(sent, name, told):
    protocol, transport = connected()
    for part in sent:
        protocol.data_received(part)
    assert [each[name] for each in await answers(transport, len(told))] == told


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nx-large: " + b"a" * MOST_HEADER_BYTES + b"\r\n\r\n",
        b"GET /" + b"a" * MOST_HEADER_BYTES + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"x-some: %s\r\n" % (b"a" * 1_000) * 40 + b"\r\n",
    ],
    ids=["one header", "a path", "some headers"],
)
async def test_headers_of_one_segment_are_bounded(sent):
    """Of 120,000 bytes that came at once nothing was refused."""
    protocol, transport = connected()
    protocol.data_received(sent)
    assert (transport.is_closing(), transport.written[:13]) == (True, b"HTTP/1.1 431 ")
    protocol.connection_lost(None)


async def test_requests_that_wait_for_one_before_them_are_bounded():
    protocol, transport = connected()
    protocol.data_received(b"GET / HTTP/1.1\r\n\r\n" * (MOST_PIPELINED + 2))
    assert (transport.is_closing(), transport.written[:13]) == (True, b"HTTP/1.1 400 ")
    protocol.connection_lost(None)


async def test_answers_that_nobody_reads_are_not_kept(monkeypatch):
    """Of one address they were gigabytes: each of its connections kept its own."""
    monkeypatch.setattr(BoundedHttpProtocol, "shares", shares := Shares())
    connections = [connected() for _ in range(70)]
    for protocol, _ in connections:
        protocol.pause_writing()
    aborted = [transport.is_aborted for _, transport in connections]
    assert aborted == [False] * 66 + [True] * 4, "16 MiB of 245 KiB each"
    connections[0][0].resume_writing()
    connections[-1][0].pause_writing()
    assert shares.unread.fits("127.0.0.2", 2**24)
    for protocol, _ in connections:
        protocol.connection_lost(None)
    assert shares.unread.fits("127.0.0.1", 2**24)


@pytest.mark.parametrize("begin", [b"0\r\nx-large: ", b"1;"])
async def test_what_stands_around_a_body_is_bounded(begin):
    protocol, transport = connected()
    protocol.data_received(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + begin)
    protocol.data_received(b"a" * (MOST_HEADER_BYTES - 200))
    assert not transport.is_closing()
    protocol.data_received(b"a" * 200)
    assert transport.is_closing()
    assert transport.written.startswith(b"HTTP/1.1 431 ")
    protocol.connection_lost(None)
