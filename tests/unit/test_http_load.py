"""Requests over HTTP as benchmarks send them, to a server of this process."""

import asyncio
import json
from contextlib import suppress

import numpy as np
from aiohttp import web
from aiohttp.test_utils import TestServer
from builders.benchmarks import benchmark_module

http_load, http_flood = benchmark_module("rig.http_load"), benchmark_module("rig.http_flood")
careless_clients = benchmark_module("rig.careless_clients")
FEW, MANY = 5, 20


async def doubled(request):
    """Twice the number in the body; none for 13, a default for 17, no connection any more for 99."""
    number = await request.json()
    if number == 99:
        request.transport.abort()
    if number == 17:
        return web.Response(body=b'{"default":true}')
    return web.Response(status=500) if number == 13 else web.json_response([2 * number])


def loaded(load):
    """What a load on such a server returns."""

    async def run():
        app = web.Application()
        app.router.add_post("/", doubled)
        async with TestServer(app) as server:
            return await load(str(server.make_url("/")))

    return asyncio.run(run())


def requests(*numbers, label=None):
    return [(json.dumps(number).encode(), [2 * number if label is None else label]) for number in numbers]


def test_every_right_answer_counts_and_a_failed_or_wrong_one_is_missing_and_late_for_ever():
    found = loaded(lambda url: http_load.paced(url, requests(*range(10)), list, 1_000.0))
    assert (found["queries"], found["missing"]) == (10, 0)
    assert 0 < found["p50_ms"] <= found["p99_ms"]
    found = loaded(lambda url: http_load.saturated(url, requests(*range(10)), list, 3, 10.0))
    assert (found["queries"], found["missing"]) == (10, 0)
    asked = requests(1, 13, 2) + requests(3, label=-1)
    found = loaded(lambda url: http_load.paced(url, asked, list, 1_000.0))
    assert (found["missing"], found["p99_ms"]) == (2, None)


def test_a_server_is_ready_when_it_gives_the_right_answer():
    assert loaded(lambda url: http_load.answering(url, requests(1)[0], list, 10.0))
    assert not loaded(lambda url: http_load.answering(url, requests(1, label=-1)[0], list, 0.1))


def test_a_flood_says_what_became_of_each_request_of_each_phase():
    phases = [http_flood.Phase(200.0, FEW / 200.0), http_flood.Phase(1_000.0, MANY / 1_000.0)]
    bodies = [b"1", b"13", b"17", b"99", b"2"]
    first, second = loaded(lambda url: asyncio.to_thread(http_flood.flood, url, bodies, phases))
    assert first.status.tolist() == [200, 500, 200, 0, 200]
    assert first.default.tolist() == [False, False, True, False, False]
    assert np.isinf(first.took_s).tolist() == [False, False, False, True, False]
    assert np.allclose(second.due_s, np.arange(MANY) / 1_000.0)
    assert second.status.tolist() == first.status.tolist() * (MANY // FEW)
    assert (second.took_s > 0).all()


def careless(clients):
    """Run clients against a server that answers each whole request `xx`; what each connection received, all ended."""

    async def run():
        received, ended = {}, []

        async def serve(reader, writer):
            received[writer] = b""
            with suppress(ConnectionResetError):
                while byte := await reader.read(1):
                    received[writer] += byte
                    if received[writer].endswith(b"\r\n\r\nxx"):
                        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n42")
            writer.close()
            ended.append(writer)

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            await clients(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/p", received)
            while len(ended) < len(received):
                await asyncio.sleep(0.01)
        return list(received.values())

    return asyncio.run(run())


def test_idle_clients_ask_once_and_keep_their_connections():
    async def clients(url, received):
        async with careless_clients.idle_clients(url, b"xx", MANY):
            assert len(received) == MANY

    assert {text.partition(b"\r\n")[0] for text in careless(clients)} == {b"POST /p HTTP/1.1"}


def test_slow_clients_are_slow_with_headers_or_with_their_body():
    async def clients(url, received):
        async with careless_clients.slow_clients(url, b"x" * MANY, 2) as slow:
            parts = [(b"", b"")]
            while {(b"\r\n\r\n" in text, 0 < len(body) < MANY) for text, body in parts} != {
                (False, False),
                (True, True),
            }:
                await asyncio.sleep(0.01)
                parts = [(text, text.partition(b"\r\n\r\n")[2]) for text in received.values() if text]
        assert slow.cut_off == 0

    assert len(careless(clients)) == 2


def test_vanishing_clients_leave_with_half_a_body_or_without_their_answer():
    found = careless(lambda url, received: careless_clients.vanishing_clients(url, b"xx", 4, 0.1))
    assert sorted(text.partition(b"\r\n\r\n")[2] for text in found) == [b"x", b"x", b"xx", b"xx"]
