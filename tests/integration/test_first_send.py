"""A producer's first send to a topic needs the topic's metadata, which an outage keeps from it."""

import asyncio

import pytest
from builders.greetings import TOPIC, create

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.kafka.clients import make_producer
from clipper_agents.streaming.outbox import Outbox

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(60)]

REQUEST_TIMEOUT_MS = 500


async def test_a_first_send_in_an_outage_longer_than_its_timeout_waits(caplog):
    with EmbeddedBroker() as broker:
        producer = make_producer(broker.connection, request_timeout_ms=REQUEST_TIMEOUT_MS)
        await producer.start()
        create(broker.bootstrap)  # after the start, in which a producer hears of every topic
        try:
            broker.node(1).freeze()
            sending = asyncio.ensure_future(Outbox(producer).send(TOPIC, 0, [(None, b"value", ())]))
            while not sending.done() and "does not take records" not in caplog.text:
                await asyncio.sleep(0.05)
            broker.node(1).thaw()
            assert await sending == [0]
        finally:
            broker.node(1).thaw()
            await producer.stop()
