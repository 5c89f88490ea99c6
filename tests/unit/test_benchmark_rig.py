"""Benchmarks notice what is wrong, which none of their runs shows: wrong answers, work that was not done."""

import asyncio
import math
import time

import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from builders.benchmarks import BENCHMARKS, benchmark_module

from clipper_agents.settings import load_settings
from clipper_topics.catalogue import Catalogue

careless_clients, contenders = benchmark_module("rig.careless_clients"), benchmark_module("rig.contenders")
http_flood, http_load = benchmark_module("rig.http_flood"), benchmark_module("rig.http_load")
run, same_work = benchmark_module("rig.same_work_run"), benchmark_module("rivals.same_work")
DecisionFields = benchmark_module("rig.predictions").DecisionFields
CATALOGUE, END = Catalogue(partitions=4), b"\r\n\r\n"


# --- requests -------------------------------------------------------------------------------------------------------
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

    async def loading():
        app = web.Application()
        app.router.add_post("/", doubled)
        async with TestServer(app) as server:
            return await load(str(server.make_url("/")))

    return asyncio.run(loading())


def test_a_failed_or_wrong_answer_is_missing_and_late_for_ever_and_makes_no_server_ready():
    asked = [(b"1", [2]), (b"13", [26]), (b"2", [4]), (b"3", [7])]
    for found in (
        loaded(lambda url: http_load.paced(url, asked, list, 1_000.0)),
        loaded(lambda url: http_load.saturated(url, asked, list, 3, 10.0)),
    ):
        assert (found["queries"], found["missing"], found["p99_ms"]) == (4, 2, None)
    assert loaded(lambda url: http_load.answering(url, asked[0], list, 10.0))
    assert not loaded(lambda url: http_load.answering(url, asked[-1], list, 0.1))


def test_a_flood_says_what_became_of_each_request_of_each_phase():
    phases = [http_flood.Phase(200.0, 5 / 200.0), http_flood.Phase(1_000.0, 20 / 1_000.0)]
    bodies = [b"1", b"13", b"17", b"99", b"2"]
    first, second = loaded(lambda url: asyncio.to_thread(http_flood.flood, url, bodies, phases))
    assert first.status.tolist() == [200, 500, 200, 0, 200]
    assert first.default.tolist() == [False, False, True, False, False]
    assert np.isinf(first.took_s).tolist() == [False, False, False, True, False]
    assert np.allclose(second.due_s, np.arange(20) / 1_000.0)
    assert second.status.tolist() == first.status.tolist() * 4
    assert (second.took_s > 0).all()


def test_slow_clients_are_slow_with_headers_or_body_and_others_vanish_with_half_a_body_or_a_whole_one():
    received = {}

    async def serve(reader, writer):
        received[writer] = b""
        while byte := await reader.read(1):
            received[writer] += byte
        writer.close()

    async def until(expected):
        """Wait for what bodies begin with; `-`: the headers are not whole."""
        while sorted((text + END + b"-").split(END)[1][: len(max(expected))] for text in received.values()) != expected:
            await asyncio.sleep(0.01)

    async def calling():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/p"
            await careless_clients.vanishing_clients(url, b"xx", 4, 0.1)
            await until([b"x", b"x", b"xx", b"xx"])
            received.clear()
            async with careless_clients.slow_clients(url, b"x" * 20, 2) as slow:
                await until([b"-", b"x"])
                assert not any(text.endswith(b"x" * 20) for text in received.values())
            assert slow.cut_off == 0

    asyncio.run(asyncio.wait_for(calling(), 30))


# --- what rivals answered -------------------------------------------------------------------------------------------
def test_a_query_whose_batch_ends_past_its_deadline_gets_the_default():
    times = iter((1_000, 1_501))
    work = same_work.Work({}, {}, {}, {}, clock_ms=lambda: next(times))
    value = msgspec.json.encode({"query_id": "0-a", "application": "digits", "input": [0.0] * 64})
    ((_, answer),) = work.answer([same_work.Received(value, 1_000)])
    found = msgspec.json.decode(answer)
    assert (found["output"], found["reason"]) == (-1, "late")


def test_propensities_are_those_of_exp3():
    weight = math.exp(-same_work.ETA * 100.0)
    expected = (1 - same_work.EXPLORATION) * weight / (weight + 1) + same_work.EXPLORATION / 2
    assert same_work.propensities({"digits:1": 100.0})["digits:1"] == pytest.approx(expected)


def test_a_mapping_in_memory_keeps_an_entry_for_one_to_two_horizons():
    mapping = same_work.TwoGenerations()
    mapping["a"] = b"1"
    snapshot, later_s = mapping.copy(), time.time()
    for horizons, kept in ((1, b"1"), (2, None)):
        mapping.forget(later_s + 3_601 * horizons)
        assert mapping.get("a") == kept, horizons
    assert snapshot.get("a") == b"1"


def test_the_configuration_of_the_same_work_is_that_of_the_rivals():
    settings = load_settings(BENCHMARKS / "configs/same-work.toml", {})
    for application in settings.applications:
        assert application.policy.parameters == {"eta": same_work.ETA, "exploration": same_work.EXPLORATION}
        assert application.default_output == same_work.DEFAULT_OUTPUT
    assert [f"{model.name}:{model.version}" for model in settings.models] == [*same_work.MODELS]
    assert all(model.colocated and model.deterministic for model in settings.models)
    models = load_settings(BENCHMARKS / "configs/separate.toml", {}).models
    assert not any(model.colocated for model in models if model.ref == "digits:1")


def log_of(workload, last, scored):
    """The log of a system that does the work; feedback that is not in `scored` counts again."""
    work = same_work.Work({}, scored, {}, {}, {contenders.APPLICATION: contenders.NO_DEADLINE_MS})
    written_ms = int(time.time() * 1000) - 10_000
    found = []
    for records in (workload.earlier, workload.later, last):
        queries = [same_work.Received(one.value, written_ms) for one in records if one.topic == CATALOGUE.queries]
        found += [msgspec.json.decode(value, type=DecisionFields) for _, value in work.answer(queries)]
        if records is workload.earlier:
            work.learn(one.value for one in workload.later if one.topic == CATALOGUE.feedback)
    return found


LATER = 80
"""Where the first later query stands in the log: nothing is learned from it."""


def changed(log, at=LATER, **fields):
    """The log, with other fields in an answer."""
    return [*log[:at], msgspec.structs.replace(log[at], **fields), *log[at + 1 :]]


class Forgetful(dict[str, bytes]):
    """What counts every feedback again."""

    def __setitem__(self, key, value):
        pass


@pytest.mark.parametrize(
    ("spoil", "scored", "noticed"),
    [
        pytest.param(lambda log: log, dict, set(), id="nothing"),
        pytest.param(lambda log: log[:LATER] + log[LATER + 1 :], dict, {"missing"}, id="a query is not answered"),
        pytest.param(lambda log: [log[LATER], *log], dict, {"duplicates"}, id="a query is answered twice"),
        pytest.param(lambda log: changed(log, output=99), dict, {"wrong"}, id="an output is not the model's"),
        pytest.param(lambda log: changed(log, output=-1, default=True), dict, {"wrong"}, id="a default in time"),
        pytest.param(lambda log: changed(log, 0, application="b"), dict, {"changed"}, id="a repeat is answered anew"),
        pytest.param(lambda log: log, Forgetful, {"unlearned"}, id="a feedback counts twice"),
    ],
)
def test_a_log_is_complete_when_all_of_the_work_was_done_once(spoil, scored, noticed):
    workload, last = run.make_workload(CATALOGUE, 400), run.last_queries(CATALOGUE, 0)
    found = spoil(log_of(workload, last, scored()))
    checked = run.check(found, workload, last, contenders.contenders("msgpack")["confluent-same-work"])
    assert {name for name in ("missing", "duplicates", "wrong", "changed", "unlearned") if checked[name]} == noticed
    assert checked["complete"] == (not noticed)
    assert checked["hit_ratio"] > 0.1
