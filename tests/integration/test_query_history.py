import asyncio
import json
import time
from contextlib import asynccontextmanager

import pytest
from faults.test_clocks import keep_the_clocks_of_applications
from integration.live_traffic import served, settled

from clipper_agents.kafka.clients import make_producer, transaction
from clipper_agents.status.query_history import QueryHistory, QueryHistoryReader, partitions_of_query
from clipper_stream.client.client_records import partition_for
from clipper_topics.query_ids import minted_id, offset_id

CREATE_TIME = 0


@asynccontextmanager
async def opened(kafka, catalogue):
    reader = QueryHistoryReader(kafka, catalogue)
    try:
        yield reader
    finally:
        await reader.close()


@pytest.fixture
async def reader(kafka, catalogue):
    async with opened(kafka, catalogue) as reader:
        yield reader


def hour_ago_ms():
    return int((time.time() - 3600) * 1000)


async def history(reader, query_id, context=None, application="app") -> QueryHistory:
    partitions = partitions_of_query(query_id, context, 2)
    return await reader.read(query_id, application, partitions, since_ms=hour_ago_ms())


async def test_queries_answers_and_feedback_of_a_router_are_found(at, reader):
    minted = minted_id(1)
    asked = [
        ({"query_id": minted}, None),
        ({"query_id": "order/7 é"}, "of another key"),
        ({"query_id": "order 8", "context": "ada"}, "ada"),
        ({"query_id": "order 8", "application": "other", "context": "ada"}, "ada"),
        ({}, None),
    ]
    async with served(at), at.router():
        places = []
        for query, key in asked:
            named = key or query.get("query_id")
            partition = partition_for(named.encode(), 2) if named and named != minted else 1 if named else 0
            (offset,) = await at.ask(query | {"input": [1, 2]}, partition=partition, key=key and key.encode())
            places.append((partition, offset))
        (again,) = await at.ask({"query_id": minted, "input": [9, 9]}, partition=1)
        await at.read(at.catalogue.predictions, lambda found: len(found) >= 6)
        labels = ({"label": 3, "ack": True}, {"label": 3, "ack": True}, {"label": 3}, {"label": [1], "ack": True})
        await at.tell(*({"query_id": minted} | label for label in labels), partition=1)
        await settled(at)

    ids = [minted, "order/7 é", "order 8", "order 8", offset_id(*places[4])]
    for number, (query_id, (query, _)) in enumerate(zip(ids, asked, strict=True)):
        found = await history(reader, query_id, query.get("context"), query.get("application", "app"))
        assert found.complete
        assert found.query[:2] == places[number]
        assert (found.prediction.query_id, found.prediction.output) == (query_id, 3)
        assert found.prediction.application == query.get("application", "app")
    assert (await history(reader, "order 8", "ada", None)).prediction.application == "app"
    found = await history(reader, minted)
    assert [one.outcome for one in found.feedback] == ["applied", "duplicate", None, "duplicate"]
    assert [one.said.label for one in found.feedback] == [3, 3, 3, [1]]
    assert (await reader.query_at(*places[0])).input == [1, 2]
    assert (await reader.query_at(1, again)).input == [9, 9]
    for nobody in (minted_id(0), minted_id(1), "order 9", offset_id(0, 77)):
        assert await history(reader, nobody) == QueryHistory()


async def test_a_query_of_a_transaction_that_was_aborted_can_be_compared_only(at, reader, kafka):
    topic = at.catalogue.queries
    async with make_producer(kafka, transactional_id=topic) as producer:
        async with transaction(producer, commit=False):
            value = b'{"application": "app", "query_id": "order 7", "input": [1, "%s"]}' % (b"x" * 300_000)
            sent = await producer.send_and_wait(topic, value, partition=0)
        assert (await reader.query_at(0, sent.offset)).query_id == "order 7"
        assert await reader.read("order 7", "app", [0], since_ms=hour_ago_ms()) == QueryHistory()
    assert await reader.query_at(0, sent.offset + 1) is None  # the marker of the transaction
    assert await reader.query_at(0, 1_000) is None
    (nonsense,) = await at.ask(b"nonsense")
    assert await reader.query_at(0, nonsense) is None


async def test_old_answers_are_found_among_many_of_others(at, reader, kafka):
    topic, now_ms, count = at.catalogue.predictions, int(time.time() * 1000), 6_000
    keep_the_clocks_of_applications(kafka, topic)
    wanted = {count // 10: minted_id(0), count // 2: "order 7", count - 1: minted_id(0)}
    async with at.producer() as producer:
        while (await producer.send_and_wait(topic, b"", partition=1)).timestamp_type != CREATE_TIME:
            pass
        for number in range(count):
            at_ms = now_ms - (count - number) * 500  # for fifty minutes
            query_id = wanted.get(number) or f"other {number}"
            content = {"query_id": query_id, "application": "app", "queried_at_ms": at_ms, "query_offset": number}
            await producer.send(topic, json.dumps(content).encode(), partition=0, timestamp_ms=at_ms)
        await producer.flush()
    for number, query_id in wanted.items():
        found = await reader.read(query_id, "app", [0], since_ms=now_ms - 3_600_000)
        assert (found.query.offset, found.complete) == (number, True)
    assert await reader.read(minted_id(0), "app", [0], since_ms=now_ms - 3_600_000) == QueryHistory()


async def test_searches_do_not_wait_for_each_other_and_are_cancelled_cleanly(at, reader):
    ids = [minted_id(1) for _ in range(12)]
    await at.send(at.catalogue.predictions, *[{"query_id": one, "application": "app"} for one in ids], partition=1)
    cancelled = asyncio.create_task(history(reader, ids[0]))
    await asyncio.sleep(0)
    cancelled.cancel()
    found = await asyncio.gather(*(history(reader, one) for one in ids))
    assert [one.prediction.query_id for one in found] == ids
