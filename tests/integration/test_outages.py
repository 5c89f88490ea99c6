"""A broker that is frozen, killed, started again, or narrower than by default: who uses it says so, and goes on.

All tests share it; each leaves it running.
"""

import asyncio
import json
import signal
import time
from contextlib import asynccontextmanager

import pytest
from builders.greetings import TOPIC, create
from e2e.programs import Program, environment_of, run, until
from integration.stand_in_router import answer_everything, stand_in_router
from integration.test_client import left_running
from integration.test_console_view import followed, shows
from integration.test_watching_applications import declared, flowing, write

from clipper_agents import exits
from clipper_agents.broker import EmbeddedBroker
from clipper_agents.kafka.clients import make_producer
from clipper_agents.status.collect import SILENT
from clipper_agents.streaming.outbox import Outbox
from clipper_agents.streaming.partition_writer import PartitionWriter
from clipper_stream.client import BrokerUnavailable, Client, ClientClosed, PredictionTimeout

NARROW = {"transaction.max.timeout.ms": 20_000, "group.min.session.timeout.ms": 20_000}


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker(extra_properties=NARROW) as running:
        yield running


@pytest.fixture(scope="module")
def kafka(broker):
    return broker.connection


@asynccontextmanager
async def killed(broker):
    await asyncio.to_thread(broker.stop, kill=True)
    try:
        yield
    finally:
        await asyncio.to_thread(broker.start)


async def test_narrow_limits_are_kept_or_told_in_a_line(kafka, catalogue, tmp_path):
    """A router began anew for ever, with a traceback each time; it waited for ever, with one line of a library's."""
    writer = PartitionWriter(kafka, catalogue.selection_changelog, 0, ())
    await writer.take_over()
    assert len(await writer.write([(b"key", b"value", ())])) == 1
    await writer.stop()
    words, environ = ("worker", "router", "--instance", "router-0"), environment_of(kafka, catalogue)
    router = await asyncio.to_thread(run, *words, folder=tmp_path, environ=environ)
    assert router.code == exits.SETUP
    assert "error: the brokers take no session of 10 s: set group.min.session.timeout.ms" in router.err[-1]


async def test_a_first_send_in_an_outage_longer_than_its_timeout_waits(broker, caplog):
    producer = make_producer(broker.connection, request_timeout_ms=500)
    await producer.start()
    await producer.client.add_topic("another")  # a producer that has written nothing hears of every topic
    create(broker.bootstrap)
    try:
        broker.node.send(signal.SIGSTOP)
        sending = asyncio.ensure_future(Outbox(producer).send(TOPIC, 0, [(None, b"value", ())]))
        async with asyncio.timeout(60):
            while "does not take records" not in caplog.text:
                await asyncio.sleep(0.05)
        broker.node.send(signal.SIGCONT)
        assert await sending == [0]
    finally:
        broker.node.send(signal.SIGCONT)
        await producer.stop()


def test_a_watch_says_that_no_broker_answers_until_one_does_again(broker, kafka, catalogue, tmp_path):
    environ = environment_of(kafka, catalogue)
    with Program("status", "--watch", "--json", folder=tmp_path, environ=environ) as watching:

        def reasons():
            return [one.partition(",")[0] for one in json.loads(watching.lines[-1])["reasons"]]

        until("a look", lambda: watching.lines)
        assert SILENT not in reasons()
        try:
            broker.node.send(signal.SIGSTOP)
            until("it is told", lambda: SILENT in reasons())
        finally:
            broker.node.send(signal.SIGCONT)
        until("it is over", lambda: SILENT not in reasons())
        watching.signal(signal.SIGINT)
        assert watching.ended() == 0


def test_clients_say_in_time_that_kafka_is_away_and_close_or_recover(broker, kafka, catalogue):
    async def work():
        closed, client = (Client(kafka, prefix=catalogue.prefix, send_timeout_s=2.0) for _ in range(2))
        await closed.open()
        await client.open()
        async with stand_in_router(kafka, catalogue, lambda query: []) as router:
            read = asyncio.create_task(client.predict("digits", [1], timeout_s=4.0))
            await router.has_read(1)
        await client.feedback("0@1", label=1)  # acknowledged, and with it the query that was sent before
        async with killed(broker):
            with pytest.raises(BrokerUnavailable, match="did not acknowledge the query within 1 s"):
                await client.predict("digits", [1], timeout_s=1.0)
            with pytest.raises(BrokerUnavailable, match="did not take a record"):
                await client.feedback("0@1", label=1)
            with pytest.raises(PredictionTimeout, match="see whether a router"):
                await read
            waiting = asyncio.create_task(closed.predict("digits", [1], timeout_s=60.0))
            await asyncio.sleep(0)
            await asyncio.wait_for(closed.close(), 60)
            with pytest.raises(ClientClosed):
                await waiting
        async with stand_in_router(kafka, catalogue, answer_everything):
            assert (await client.predict("digits", [2])).output == 1
        await client.close()
        return await left_running()

    assert asyncio.run(work()) == set()


async def test_a_console_says_that_the_broker_went_away_and_follows_it_on(broker, kafka, catalogue, tmp_path):
    await write(kafka, declared(catalogue, int(time.time() * 1000)), "test")
    async with followed(kafka, catalogue, tmp_path / "history") as view:
        await shows(view, lambda: view.applications() and not view.stale_reason)
        async with killed(broker):
            await shows(view, lambda: view.stale_reason.startswith("no broker answers since "))
            assert view.applications()
        await shows(view, lambda: not view.stale_reason)
        await write(kafka, flowing(catalogue), "test")
        await shows(view, lambda: view.applications()[0].queries == 10)
