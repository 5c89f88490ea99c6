"""Requests over HTTP as `benchmarks/rig/http_load.py` sends them, to a server of this process."""

import asyncio
import json

from aiohttp import web
from builders.benchmarks import benchmark_module

http_load = benchmark_module("rig.http_load")


async def doubled(request):
    """Twice the number in the body; none for 13."""
    number = await request.json()
    return web.Response(status=500) if number == 13 else web.json_response([2 * number])


def loaded(load):
    """What a load on such a server returns."""

    async def run():
        app = web.Application()
        app.router.add_post("/", doubled)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            return await load(f"http://127.0.0.1:{runner.addresses[0][1]}/")
        finally:
            await runner.cleanup()

    return asyncio.run(run())


def requests(*numbers, label=None):
    return [(json.dumps(number).encode(), 2 * number if label is None else label) for number in numbers]


def test_every_right_answer_counts_at_a_fixed_rate_and_at_saturation():
    paced = loaded(lambda url: http_load.paced(url, requests(*range(10)), list, 1_000.0))
    assert (paced["queries"], paced["missing"]) == (10, 0)
    assert 0 < paced["p50_ms"] <= paced["p99_ms"]
    saturated = loaded(lambda url: http_load.saturated(url, requests(*range(10)), list, 3, 10.0))
    assert (saturated["queries"], saturated["missing"]) == (10, 0)


def test_a_failed_and_a_wrong_answer_are_missing_and_late_for_ever():
    asked = requests(1, 13, 2) + requests(3, label=-1)
    found = loaded(lambda url: http_load.paced(url, asked, list, 1_000.0))
    assert (found["missing"], found["p99_ms"]) == (2, None)


def test_a_server_is_ready_when_it_gives_the_right_answer():
    assert loaded(lambda url: http_load.answering(url, requests(1)[0], list, 10.0))
    assert not loaded(lambda url: http_load.answering(url, requests(1, label=-1)[0], list, 0.1))
