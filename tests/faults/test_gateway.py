"""A gateway under faults: a key has one answer, a call ends in time, and what was accepted is answered."""

import asyncio
import random
import re

import pytest
from e2e.gateways import readiness, serves
from e2e.programs import Shell, reserved_port, until
from faults import gateway_calls as http
from faults.deployment import GATEWAY, Deployment
from faults.gateway_calls import LONG_S, SETTINGS, THREADS, Gateways, KeyedCalls, Question, SingleCalls, callers
from faults.verdict import judge

from clipper_agents.kafka.topics import delete_topics, ensure_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture
def deployment(kafka, catalogue, tmp_path) -> Deployment:
    return Deployment.on(kafka, catalogue, tmp_path, GATEWAY)


@pytest.mark.short
def test_a_key_has_one_answer_whichever_gateway_is_killed(deployment, short, fault_report):
    """kill -9 of one of two gateways in the middle of calls; each key is asked until there is an answer, and again."""
    rng = random.Random(20191)
    with Gateways(deployment, fault_report) as gateways:
        gateways.start(2)
        calls = KeyedCalls(gateways)
        with callers(calls.ask):
            for _ in range(3 if short else 20):
                goal = len(calls.bodies) + rng.randrange(20, 60)
                until("answers", lambda goal=goal: len(calls.bodies) >= goal, LONG_S)
                gateways.restart(rng.randrange(2))
        gateways.finish()
        calls.ask_everywhere()
        url = gateways.any_url(rng)
        counted = [until("outcomes", lambda one=one: http.outcomes(url, one), LONG_S) for one in calls.told]
        verdict = judge(deployment)
    note = f"{len(calls.bodies)} keys, {calls.broken} calls broken off, refused {dict(calls.refused)}"
    gateways.conclude("kill -9 of one of two gateways", verdict, note=note)
    assert {number: bodies for number, bodies in calls.bodies.items() if len(bodies) > 1} == {}
    assert calls.broken, "no kill broke a call off"
    assert all(one["applied"] == 1 and one.keys() <= {"applied", "duplicate"} for one in counted), counted


@pytest.mark.short
def test_a_gateway_without_a_broker_says_so_and_comes_back(broker, tmp_path, short, fault_report):
    """A broker stopped, or killed, and started again: 503 in a bounded time meanwhile, and nothing accepted is lost."""
    deployment = Deployment.on(broker.connection, Catalogue(partitions=2), tmp_path, GATEWAY)
    with Gateways(deployment, fault_report) as gateways:
        gateways.start(1)
        url = gateways.urls[0]
        calls = SingleCalls(url)
        with callers(calls.ask):
            for kill in [False] if short else [False, True, True]:
                calls.wait_for_more()
                goal = calls.refusals + 3 * THREADS
                gateways.fault()
                broker.stop(kill=kill)
                until("the reason", lambda: readiness(url) == (503, ["no broker answers"]), LONG_S)
                until("refusals", lambda goal=goal: calls.refusals >= goal, LONG_S)
                assert http.call(url, "/livez").status_code == 200
                broker.start()
                serves(url, LONG_S)
                calls.wait_for_more()
            gateways.finish()
        calls.wait_for_answers()
        assert gateways.programs[0].code is None
        verdict = judge(deployment)
    gateways.conclude("the broker restarted, behind a gateway", verdict, note=str(calls))
    assert sum(verdict.applied.values()) >= len(calls.told)


def test_a_call_that_no_router_answers_in_time_has_its_answer_later(deployment, short, fault_report):
    """kill -9 of the only router under load: an answer, or 504 with the query's id, under which the answer will be."""
    with Gateways(deployment, fault_report) as gateways:
        gateways.start(1)
        calls = SingleCalls(gateways.urls[0])
        with callers(calls.ask):
            for _ in range(1 if short else 5):
                calls.wait_for_more()
                gateways.kill(gateways.router)
                goal = len(calls.late) + 1
                until("calls in vain", lambda goal=goal: len(calls.late) >= goal, LONG_S)
                gateways.start_router()
            calls.wait_for_more()
            gateways.finish()
        calls.wait_for_answers()
        verdict = judge(deployment)
    gateways.conclude("kill -9 of the router, behind a gateway", verdict, note=str(calls))
    assert calls.refusals == 0
    assert sum(verdict.applied.values()) == len(calls.told)


async def make_anew(kafka: KafkaConnection, catalogue: Catalogue) -> None:
    await delete_topics(kafka, [catalogue.queries, catalogue.predictions])
    await ensure_topics(kafka, catalogue)


def test_a_gateway_whose_topics_are_made_anew_ends_and_is_started_again(kafka, deployment, tmp_path, fault_report):
    """Under `up`: it says why it ends, the next one serves, and answers once the logs of the routers are renewed."""
    deployment.environ["CLIPPER_GATEWAY_ENABLED"] = "true"
    with reserved_port() as port, deployment.start("up", gateway_port=port, **SETTINGS) as up:
        url = up.ready()["gateway"]
        serves(url, LONG_S)
        first = http.ask(url, Question(0))
        assert first is not None
        assert first.json()["output"] == 3
        asyncio.run(make_anew(kafka, deployment.catalogue))
        until("its end", lambda: 'msg="child ended, restarting" child=gateway end="ended with exit code 4"' in up.log)
        assert re.search("worker cannot go on instance=gateway: topic .* was deleted and created again", up.log), up.log
        until("the next one", lambda: up.log.count('msg="child serves" child=gateway') == 2, LONG_S)
        Shell(tmp_path, deployment.environ)("topics renew --yes")
        again = until(
            "an answer", lambda: (found := http.ask(url, Question(1))) and found.status_code == 200 and found, LONG_S
        )
        assert again.json()["output"] == 4
        fault_report.add("topics made anew under a gateway", kills=1)
