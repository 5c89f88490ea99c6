import asyncio
import contextlib
import ssl
import struct
from io import BytesIO
from types import SimpleNamespace

import pytest
import trustme
import uvloop
from aiokafka.client import AIOKafkaClient, ConnectionGroup
from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError

from clipper_agents.kafka.aiokafka_patches import connect_in_time


def framed(*contents):
    return b"".join(struct.pack(">i", len(one)) + one for one in contents)


class Echo:
    """A request that is answered by its own bytes."""

    RESPONSE_TYPE = SimpleNamespace(decode=BytesIO.read)

    def __init__(self, content):
        self.content = content

    def prepare(self, versions):
        return self

    def build_request_header(self, correlation_id, client_id):
        return SimpleNamespace(encode=lambda: correlation_id.to_bytes(4, "big"))

    def encode(self):
        return self.content

    def parse_response_header(self, answer):
        return SimpleNamespace(correlation_id=int.from_bytes(answer.read(4), "big"))


class Broker:
    """Answers each request by what it holds; a silent one answers the first, about versions, and takes nothing then.

    Args:
        context: Of TLS; None: there is none.
    """

    def __init__(self, *, greets=True, is_silent=False, context=None):
        self.may_speak, self.answer, self.writers = asyncio.Event(), framed, []
        self.greets, self.context = greets, context
        if not is_silent:
            self.may_speak.set()

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.serve, "127.0.0.1", 0, ssl=self.context)
        self.address = self.server.sockets[0].getsockname()
        return self

    async def serve(self, reader, writer):
        self.writers.append(writer)
        request = await reader.readexactly(int.from_bytes(await reader.readexactly(4), "big"))
        if self.greets:
            writer.write(framed(request[4:8] + bytes(6)))
        while size := await reader.read(4):
            await self.may_speak.wait()
            writer.write(self.answer(await reader.readexactly(int.from_bytes(size, "big"))))

    async def __aexit__(self, *_):
        for writer in self.writers:
            writer.transport.abort()
        self.server.close()


@contextlib.asynccontextmanager
async def connected(timeout_ms=60_000, attempt_ms=1_000, client_options=None, **of_broker):
    async with Broker(**of_broker) as broker:
        options = client_options or {}
        connection = await connect_in_time(
            *broker.address, request_timeout_ms=timeout_ms, attempt_ms=attempt_ms, **options
        )
        yield broker, connection
        connection.close()


async def test_answers_come_in_the_order_of_their_requests():
    async with connected() as (_, connection):
        contents = [b"a", b"b" * 300_000, b""]
        assert await asyncio.gather(*(connection.send(Echo(one)) for one in contents)) == contents


async def test_requests_that_are_late_together_end_by_errors_that_are_tried_again():
    async with connected(timeout_ms=200, is_silent=True) as (broker, connection):
        client = AIOKafkaClient(bootstrap_servers=":".join(map(str, broker.address)))
        client._conns[0, ConnectionGroup.DEFAULT] = connection
        connection._on_close_cb = lambda *_: client._conns.clear()  # as whoever asks the broker next does
        found = await asyncio.gather(*(client.send(0, Echo(b"late")) for _ in range(3)), return_exceptions=True)
        assert [getattr(error, "retriable", error) for error in found] == [True] * 3


@pytest.mark.parametrize("error", [RuntimeError("the handler is closed"), BrokenPipeError()], ids=["uvloop", "socket"])
async def test_a_request_on_a_connection_that_has_ended_is_a_connection_error(error):
    def write(_):
        raise error

    async with connected(is_silent=True) as (_, connection):
        waiting = connection.send(Echo(b"a"))
        connection._writer.write = write
        with pytest.raises(KafkaConnectionError):
            connection.send(Echo(b"b"))
        with pytest.raises(KafkaConnectionError):
            await waiting
        assert not connection.connected()


@pytest.mark.parametrize("answer", [lambda _: framed(b"\0\0\0\7 of another request"), None])
async def test_a_broken_connection_fails_what_waits_for_it(answer):
    async with connected() as (broker, connection):
        broker.answer = answer or (lambda _: broker.writers[0].close() or b"")
        with pytest.raises(KafkaError):
            await connection.send(Echo(b"a"))
        assert not connection.connected()
        with pytest.raises(KafkaError):
            connection.send(Echo(b"b"))


async def test_a_broker_that_accepts_and_never_speaks_is_given_up_soon():
    with pytest.raises(RequestTimedOutError):
        async with connected(timeout_ms=600_000, attempt_ms=50, greets=False):
            pass


@pytest.mark.parametrize("request_ms", [60_000, 500])
async def test_requests_on_the_connection_keep_their_own_timeout(request_ms):
    async with connected(request_ms) as (_, connection):
        assert connection._request_timeout == request_ms / 1000


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("is_secure", [False, True], ids=["plain", "tls"])
def test_a_connection_ends_though_its_peer_takes_nothing_any_more(loop, is_secure):
    options = {}
    if is_secure:
        authority, client = trustme.CA(), ssl.create_default_context()
        server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("127.0.0.1").configure_cert(server)
        authority.configure_trust(client)
        options = dict(client_options={"security_protocol": "SSL", "ssl_context": client}, context=server)

    async def close():
        async with connected(is_silent=True, attempt_ms=3_000, **options) as (_, connection):
            waiting = connection.send(Echo(b"a" * 20_000_000))
            await asyncio.wait_for(connection.close(), 20)
            with pytest.raises(KafkaConnectionError):
                await asyncio.wait_for(waiting, 20)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(close())
