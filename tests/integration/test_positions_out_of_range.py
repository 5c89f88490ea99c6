"""Who stands before a log goes on at its first record, who stands behind it waits: nothing is read twice."""

import asyncio
import signal

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.admin import RecordsToDelete
from builders.router_deployment import WITHIN_S
from integration.test_router_process import MODELS, app, total

from clipper_agents.kafka.clients import administration
from clipper_agents.kafka.reader import Range, open_reader

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


async def read(at, tp, wanted, after=None):
    """Offsets that are read of a range; `after` happens when the first fetch has brought nothing."""
    async with open_reader(at.kafka, isolation_level="read_committed") as reader:
        reader.assign({tp: wanted})
        found = (await reader.fetch(wait_s=1.0)).get(tp, [])
        if after is not None:
            assert found == []
            await after
        while reader.unread:
            found += (await reader.fetch(wait_s=0.1)).get(tp, [])
        return [one.offset for one in found]


async def test_a_reader_goes_on_behind_deleted_records_and_says_so(at, caplog):
    tp = TopicPartition(at.catalogue.feedback, 0)
    await at.send(tp.topic, *range(10))
    async with administration(at.kafka) as admin:
        await admin.delete_records({tp: RecordsToDelete(before_offset=5)})
    assert await read(at, tp, Range(2, 10)) == [5, 6, 7, 8, 9]
    assert "offset=2: records up to 4 were deleted before they were read" in caplog.text


async def test_a_reader_behind_the_end_of_a_log_waits_for_it(at, caplog):
    tp = TopicPartition(at.catalogue.feedback, 0)
    await at.send(tp.topic, *range(3))
    assert await read(at, tp, Range(5, 7), at.send(tp.topic, *range(4))) == [5, 6]
    assert "offset=5: the log ends at 3" in caplog.text


async def test_a_router_behind_the_end_of_a_log_reads_nothing_twice(at):
    await at.declare(app(), *MODELS)
    queries, group = TopicPartition(at.catalogue.queries, 0), at.catalogue.router_group
    async with AIOKafkaConsumer(**at.kafka.aiokafka(), group_id=group, enable_auto_commit=False) as consumer:
        consumer.assign([queries])
        await consumer.commit({queries: 2})
        assert await consumer.committed(queries) == 2
    await at.ask({"query_id": "before", "input": [1, 2]})
    async with at.router() as router, at.host({"m:1": total, "n:1": total}):
        async with asyncio.timeout(WITHIN_S):
            while "offset=2: the log ends at 1" not in router.log:
                await asyncio.sleep(0.05)
        await at.ask({"query_id": "between", "input": [1, 2]}, {"query_id": "behind", "input": [1, 2]})
        assert (await at.predictions("behind"))[1] == {"behind": 1}
        assert await router.ended(signal.SIGTERM) == 0, router.log
