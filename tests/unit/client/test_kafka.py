import asyncio
from contextlib import suppress

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.client import AIOKafkaClient

from clipper_stream.client.kafka import stop


@pytest.mark.parametrize("kind", [AIOKafkaConsumer, AIOKafkaProducer, AIOKafkaAdminClient, AIOKafkaClient])
def test_who_is_cancelled_while_it_stops_a_client_ends_and_so_does_the_client(kind):
    """aiokafka swallows the cancellation of a task that awaits its `stop` or `close`."""

    async def run():
        client, begun, may_end, ended = kind.__new__(kind), asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def slow_stop():
            begun.set()
            with suppress(asyncio.CancelledError):
                await may_end.wait()
            ended.set()

        client.stop = client.close = slow_stop
        client._closed = True
        stopping = asyncio.ensure_future(stop(client))
        await begun.wait()
        stopping.cancel()
        await asyncio.sleep(0)
        may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await stopping
        assert ended.is_set()

    asyncio.run(run())
