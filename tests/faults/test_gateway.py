"""A gateway under faults: a key has one answer, a call ends in time, and what was accepted is answered."""

import asyncio
import random
import re
import signal
import time
import tomllib
from contextlib import ExitStack
from pathlib import Path

import pytest
from e2e.gateways import serves
from e2e.programs import run, until
from faults.deployment import OwnDeployment
from faults.gateway_calls import (
    CONFIGURATION,
    LONG_S,
    SETTINGS,
    THREADS,
    Gateways,
    KeyedCalls,
    Question,
    SingleCalls,
    ask,
    callers,
    get,
    outcomes,
    readiness,
)
from faults.report import FaultReport
from faults.verdict import judge
from faults.watching import Watch

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import free_port
from clipper_agents.kafka.topics import delete_topics, ensure_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]

APPLICATIONS = {one["name"]: one for one in tomllib.loads(CONFIGURATION.read_text())["application"]}


@pytest.mark.short
def test_a_key_has_one_answer_whichever_gateway_is_killed(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, short: bool, fault_report: FaultReport
):
    """kill -9 of one of two gateways in the middle of calls; each key is asked until there is an answer, and again."""
    rng, times = random.Random(20191), 3 if short else 20
    deployment = OwnDeployment.on(kafka, catalogue, tmp_path, configuration=CONFIGURATION)
    with (
        ExitStack() as stack,
        deployment.worker("router") as router,
        Watch(deployment.client, catalogue.predictions) as watch,
    ):
        router.ready()
        gateways, killed_s = Gateways(stack, deployment, 2), list[float]()
        calls = KeyedCalls(gateways)
        with callers(calls.ask):
            for _ in range(times):
                goal = len(calls.bodies) + rng.randrange(20, 60)
                until("answers", lambda goal=goal: len(calls.bodies) >= goal, LONG_S)
                killed_s.append(time.monotonic())
                gateways.restart(rng.randrange(2))
        stalls_s = watch.stalls_s(killed_s)
        calls.ask_everywhere()
        url = gateways.any_url(rng)
        counted = [until("outcomes", lambda one=one: outcomes(url, one), LONG_S) for one in calls.told]
        verdict = judge(deployment.client, catalogue.prefix, APPLICATIONS)
    note = f"{len(calls.bodies)} keys, {calls.broken} calls broken off, refused {dict(calls.refused)}"
    fault_report.add("kill -9 of one of two gateways", verdict, kills=times, stalls_s=stalls_s, note=note)
    assert {number: bodies for number, bodies in calls.bodies.items() if len(bodies) > 1} == {}
    assert calls.broken, "no kill broke a call off"
    assert all(one["applied"] == 1 and one.keys() <= {"applied", "duplicate"} for one in counted), counted
    verdict.check()


@pytest.mark.short
def test_a_gateway_without_a_broker_says_so_and_comes_back(tmp_path: Path, short: bool, fault_report: FaultReport):
    """A broker stopped, or killed, and started again: 503 in a bounded time meanwhile, and nothing accepted is lost."""
    kills, outages_s = [False] if short else [False, True, True], list[float]()
    with ExitStack() as stack:
        broker = stack.enter_context(EmbeddedBroker(tmp_path / "kafka", heap_mib=256))
        catalogue = Catalogue(partitions=2)
        deployment = OwnDeployment.on(broker.connection, catalogue, tmp_path, configuration=CONFIGURATION)
        stack.enter_context(deployment.worker("router")).ready()
        gateways = Gateways(stack, deployment, 1)
        url = gateways.urls[0]
        calls = SingleCalls(url)
        with callers(calls.ask):
            for kill in kills:
                calls.wait_for_more()
                since_s, goal = time.monotonic(), calls.refusals + 3 * THREADS
                broker.stop(kill=kill)
                until("the reason", lambda: readiness(url) == (503, ["no broker answers"]), LONG_S)
                until("refusals", lambda goal=goal: calls.refusals >= goal, LONG_S)
                assert get(url, "/livez").status == 200
                broker.start()
                gateways.wait_ready(0)
                calls.wait_for_more()
                outages_s.append(time.monotonic() - since_s)
        calls.wait_for_answers()
        assert gateways.programs[0].code is None
        verdict = judge(deployment.client, catalogue.prefix, APPLICATIONS)
    fault_report.add(
        "the broker restarted, behind a gateway", verdict, kills=len(kills), stalls_s=outages_s, note=str(calls)
    )
    assert sum(verdict.applied.values()) >= len(calls.told)
    verdict.check()


def test_a_call_that_no_router_answers_in_time_has_its_answer_later(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, short: bool, fault_report: FaultReport
):
    """kill -9 of the only router under load: an answer, or 504 with the query's id, under which the answer will be."""
    times, killed_s = 1 if short else 5, list[float]()
    deployment = OwnDeployment.on(kafka, catalogue, tmp_path, configuration=CONFIGURATION)
    with ExitStack() as stack, Watch(deployment.client, catalogue.predictions) as watch:
        router = stack.enter_context(deployment.worker("router"))
        router.ready()
        calls = SingleCalls(Gateways(stack, deployment, 1).urls[0])
        with callers(calls.ask):
            for _ in range(times):
                calls.wait_for_more()
                killed_s.append(time.monotonic())
                router.signal(signal.SIGKILL)
                router.ended()
                goal = len(calls.late) + 1
                until("calls in vain", lambda goal=goal: len(calls.late) >= goal, LONG_S)
                router = stack.enter_context(deployment.worker("router"))
                router.ready()
            calls.wait_for_more()
        calls.wait_for_answers()
        stalls_s = watch.stalls_s(killed_s)
        verdict = judge(deployment.client, catalogue.prefix, APPLICATIONS)
    fault_report.add(
        "kill -9 of the router, behind a gateway", verdict, kills=times, stalls_s=stalls_s, note=str(calls)
    )
    assert calls.refusals == 0
    assert sum(verdict.applied.values()) == len(calls.told)
    verdict.check()


async def make_anew(kafka: KafkaConnection, catalogue: Catalogue) -> None:
    await delete_topics(kafka, [catalogue.queries, catalogue.predictions])
    await ensure_topics(kafka, catalogue)


def test_a_gateway_whose_topics_are_made_anew_ends_and_is_started_again(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path, fault_report: FaultReport
):
    """Under `up`: it says why it ends, the next one serves, and answers once the logs of the routers are renewed."""
    deployment = OwnDeployment.on(kafka, catalogue, tmp_path, configuration=CONFIGURATION)
    settings = ("--set", "gateway.enabled=true", "--set", f"gateway.port={free_port()}", *SETTINGS)
    with deployment.start("up", *settings) as up:
        url = up.ready()["gateway"]
        serves(url, LONG_S)
        first = ask(url, Question(0))
        assert first is not None
        assert first.content["output"] == 3
        asyncio.run(make_anew(kafka, catalogue))
        until("its end", lambda: 'msg="child ended, restarting" child=gateway end="ended with exit code 4"' in up.log)
        assert re.search("worker cannot go on instance=gateway: topic .* was deleted and created again", up.log), up.log
        until("the next one", lambda: up.log.count('msg="child serves" child=gateway') == 2, LONG_S)
        renewed = run("topics", "renew", "--yes", folder=tmp_path, environ=deployment.environ)
        assert renewed.code == 0, renewed.err
        again = until("an answer", lambda: (found := ask(url, Question(1))) and found.status == 200 and found, LONG_S)
        assert again.content["output"] == 4
        fault_report.add("topics made anew under a gateway", kills=1)
