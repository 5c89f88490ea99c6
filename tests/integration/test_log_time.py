"""Which feedback counts is told by the log's time: not by when a router read it, nor by what it still had."""

import asyncio
import shutil
import signal

import oracle
import pytest
from aiokafka import AIOKafkaProducer

from clipper_topics import codec
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec
from clipper_topics.prediction import PolicyRef, Prediction

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(300)]

APP = ApplicationManifest(
    name="app", models=["m:1"], input=InputSpec(shape=[2]), policy=PolicySpec(name="exp3"), objective_ms=20_000
)
MODEL = ModelManifest(name="m", uri="x:y", input=InputSpec(shape=[2]))
HOSTS = {"m:1": lambda row: int(row.sum())}
HORIZON_S = 4.0
COUNT = 1_200
"""More than two learning steps: while the first of them is made, decisions of the time after the outage come in."""


def label(number):
    return {"query_id": f"q{number}", "label": number}


def query(number):
    return {"query_id": f"q{number}", "input": [number, 0]}


async def applied(at, count):
    """Wait until so many feedbacks have counted in partition 0."""
    await at.read(
        at.catalogue.selection_changelog,
        lambda records: oracle.table(records).get(("app", None, 0), oracle.Row()).applied >= count,
    )


async def let_the_log_pass(at, seconds):
    """Ask until the broker's clock is so much later."""
    async with AIOKafkaProducer(**at.kafka.aiokafka()) as producer:
        first = last = None
        while first is None or last < first + seconds * 1000:
            value = b'{"application": "app", "input": [0, 0]}'
            last = (await producer.send_and_wait(at.catalogue.queries, value, partition=0)).timestamp
            first = first or last
            await asyncio.sleep(0.05)


async def test_feedback_that_comes_before_its_query_waits_for_it(at):
    await at.declare(APP, MODEL)
    async with at.router() as router, at.host(HOSTS):
        await at.send(at.catalogue.feedback, *map(label, range(COUNT)))
        await let_the_log_pass(at, 1.0)
        await at.ask(*map(query, range(COUNT)))
        await applied(at, COUNT)
        assert await router.ended(signal.SIGTERM) == 0, router.log
    assert await at.read(at.catalogue.dead_letters) == []


@pytest.mark.parametrize("wiped", [pytest.param(False, marks=pytest.mark.long), True], ids=["kept", "wiped"])
async def test_feedback_in_time_counts_however_long_routers_were_down(at, wiped):
    """With the router's clock, all of it was refused: 48 s down, a horizon of 20 s, 1,000 of 1,500."""
    await at.declare(APP, MODEL)
    async with at.router(horizon_s=HORIZON_S) as router, at.host(HOSTS):
        await at.ask(*map(query, range(COUNT)))
        await at.predictions(*(f"q{number}" for number in range(COUNT)))
        assert await router.ended(signal.SIGTERM) == 0, router.log
    await at.send(at.catalogue.feedback, *map(label, range(COUNT)))
    await let_the_log_pass(at, 3 * HORIZON_S)
    other = Prediction(query_id="other", application="app", output=1, policy=PolicyRef(name="exp3"), query_offset=-1)
    await at.send(at.catalogue.predictions, codec.predictions.encode(other))
    if wiped:
        shutil.rmtree(at.folder / "data")
    async with at.router(horizon_s=HORIZON_S) as router, at.host(HOSTS):
        await applied(at, COUNT)
        await at.ask({"query_id": "after", "input": [1, 1]})
        await at.predictions("after")
        assert await router.ended(signal.SIGTERM) == 0, router.log
    assert await at.read(at.catalogue.dead_letters) == []


async def test_early_feedback_that_a_wiped_router_reads_again_counts_once(at):
    """Its credit was older than the horizon when the state was built anew, though its decision was not."""
    await at.declare(APP, MODEL)
    async with at.router(horizon_s=HORIZON_S) as router, at.host(HOSTS):
        await at.send(at.catalogue.feedback, label(0))
        await at.ask(query(0))
        await applied(at, 1)
        assert await router.ended(signal.SIGTERM) == 0, router.log
    shutil.rmtree(at.folder / "data")
    await at.send(at.catalogue.feedback, label(0))
    async with at.router(horizon_s=HORIZON_S) as router, at.host(HOSTS):
        await at.ask(query(1))
        await at.predictions("q1")
        await at.send(at.catalogue.feedback, label(1))
        await applied(at, 2)
        assert await router.ended(signal.SIGTERM) == 0, router.log
    table = oracle.table(await at.read(at.catalogue.selection_changelog))
    assert table["app", None, 0].applied == 2
