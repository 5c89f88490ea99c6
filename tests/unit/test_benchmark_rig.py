"""Benchmarks notice what is wrong, which none of their runs shows: wrong answers, work that was not done."""

import asyncio
import time

import msgspec
import numpy as np
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from builders.benchmarks import BENCHMARKS, benchmark_module
from onnxruntime import InferenceSession

from clipper_agents.settings import load_settings
from clipper_topics.catalogue import Catalogue

contenders = benchmark_module("rig.contenders")
http_flood, http_load = benchmark_module("rig.http_flood"), benchmark_module("rig.http_load")
nets, tasks = benchmark_module("rig.nets"), benchmark_module("rig.tasks")
run, same_work = benchmark_module("rig.same_work_run"), benchmark_module("rivals.same_work")
DecisionFields = benchmark_module("rig.predictions").DecisionFields
CATALOGUE = Catalogue(partitions=4)


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


def test_the_configuration_of_the_same_work_is_that_of_the_rivals():
    assert {*same_work.MODELS} == {*tasks.DIGITS.models}
    for name, task in (("same-work", tasks.DIGITS), ("net", tasks.IMAGES)):
        settings = load_settings(BENCHMARKS / f"configs/{name}.toml", {})
        for application in settings.applications:
            assert application.policy.parameters == {"eta": same_work.ETA, "exploration": same_work.EXPLORATION}
            assert application.default_output == same_work.DEFAULT_OUTPUT
        assert [f"{model.name}:{model.version}" for model in settings.models] == [*task.models]
        assert all(model.colocated and model.deterministic for model in settings.models)
    models = load_settings(BENCHMARKS / "configs/separate.toml", {}).models
    assert not any(model.colocated for model in models if model.ref == "digits:1")


def test_the_file_of_a_net_says_what_the_net_says(tmp_path):
    rows = tasks.IMAGES.rows(np.random.default_rng(3), 500).astype(np.float32)
    for net in nets.NETS.values():
        (labels,) = InferenceSession(net.write(tmp_path)).run(["label"], {"input": rows})
        assert labels.tolist() == net(rows).tolist()
        assert len({*labels.tolist()}) > 3


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
    contender = contenders.contenders("msgpack")["confluent-same-work"]
    workload = run.make_workload(CATALOGUE, 400, contender.shape)
    last = run.last_queries(CATALOGUE, 0, contender.shape)
    found = spoil(log_of(workload, last, scored()))
    checked = run.check(found, workload, last, contender)
    assert {name for name in ("missing", "duplicates", "wrong", "changed", "unlearned") if checked[name]} == noticed
    assert checked["complete"] == (not noticed)
    assert checked["hit_ratio"] > 0.1
