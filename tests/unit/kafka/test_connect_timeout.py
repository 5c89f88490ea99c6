"""A connection is made soon or not at all."""

import asyncio
import time
from types import SimpleNamespace

import pytest
from aiokafka import client
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

from clipper_agents.kafka.connect_timeout import install, soon


def test_a_broker_that_accepts_and_never_speaks_is_given_up_long_before_a_request_would_be():
    async def attempt():
        server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        began_s = time.monotonic()
        with pytest.raises((KafkaError, TimeoutError)):
            await soon(create_conn, attempt_ms=100)(host, port, request_timeout_ms=60_000)
        server.close()
        return time.monotonic() - began_s

    assert asyncio.run(attempt()) < 30


@pytest.mark.parametrize(("request_ms", "attempted_ms"), [(60_000, 3_000), (500, 500)])
def test_requests_on_the_connection_keep_their_own_timeout(request_ms, attempted_ms):
    asked = []

    async def connect(host, *, request_timeout_ms):
        asked.append(request_timeout_ms)
        return SimpleNamespace(_request_timeout=request_timeout_ms / 1000)

    connection = asyncio.run(soon(connect)("a", request_timeout_ms=request_ms))
    assert (asked, connection._request_timeout) == ([attempted_ms], request_ms / 1000)


def test_it_is_installed_once(monkeypatch):
    monkeypatch.setattr(client, "create_conn", create_conn)
    install()
    installed = client.create_conn
    install()
    assert client.create_conn is installed is not create_conn
