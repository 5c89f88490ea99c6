"""What applications write in transactions: aborted records count for nobody, markers are neither gaps nor lag."""

import asyncio
import json
import signal

import msgspec
import oracle
import pytest
from aiokafka import TopicPartition
from builders.router_deployment import WITHIN_S
from integration.test_router_process import MODELS, app, total

from clipper_agents.replay.merged_log import MergedLog, TimeRange, log_reader, ranges_of
from clipper_agents.replay.verdicts import Verification
from clipper_agents.rollout.log_tailer import MergedLogTailer
from clipper_agents.status.collect import read_status

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(300)]

HOSTS = {"m:1": total, "n:1": total}
COUNT = 100
IDS = [f"q{number}" for number in range(COUNT)]


async def send_in_transaction(at, topic, values, *, commit):
    async with at.producer(transactional_id=f"{at.catalogue.prefix}-application") as producer:
        await producer.begin_transaction()
        for value in values:
            await producer.send(topic, json.dumps(value).encode(), partition=0)
        await producer.flush()
        await (producer.commit_transaction if commit else producer.abort_transaction)()


def queries(ids):
    return [{"query_id": one, "application": "app", "input": [place, 1]} for place, one in enumerate(ids)]


def feedback(shift):
    return [{"query_id": one, "label": place + 1 + shift} for place, one in enumerate(IDS)]


async def read_by_rollouts(at):
    tailer = MergedLogTailer(at.kafka, at.catalogue)
    await tailer.start(0)
    try:
        return [one for _, one in [each async for found in tailer.to_the_end() for each in found]]
    finally:
        await tailer.stop()


async def read_by_replays(at, topic):
    async with log_reader(at.kafka) as reader:
        log = MergedLog(reader, await ranges_of(reader, [TopicPartition(topic, 0)], TimeRange(since_ms=0)))
        return [record async for _, record in log.records()]


async def test_what_was_aborted_counts_for_nobody_and_once_when_sent_again(at, shell):
    await at.declare(app(), *MODELS)
    async with at.router() as router, at.host(HOSTS):
        await send_in_transaction(at, at.catalogue.queries, queries([*IDS, "ghost"]), commit=False)
        await send_in_transaction(at, at.catalogue.queries, queries(IDS), commit=True)
        _, counts = await at.predictions(*IDS)
        assert counts == dict.fromkeys(IDS, 1)
        await send_in_transaction(at, at.catalogue.feedback, feedback(-1), commit=False)
        await send_in_transaction(at, at.catalogue.feedback, feedback(0), commit=True)
        await at.read(
            at.catalogue.selection,
            lambda records: any(oracle.table([one])["app", None, 0].applied == COUNT for one in records),
        )
        assert await router.ended(signal.SIGTERM) == 0, router.log
    table = oracle.table(await at.read(at.catalogue.selection_changelog))
    sums = {model: sums[:2] for model, sums in table["app", None, 0].totals.items()}
    assert sums == {"m:1": [COUNT, 0], "n:1": [COUNT, 0]}
    assert await at.read(at.catalogue.dead_letters) == []
    (line,) = await asyncio.to_thread(shell, "replay", "verify", "--json")
    verified = msgspec.json.decode(line, type=Verification)
    assert (verified.equal, verified.feedbacks) == (True, COUNT)
    read = await read_by_rollouts(at)
    assert sum(one.topic == at.catalogue.feedback for one in read) == COUNT
    assert len(await read_by_replays(at, at.catalogue.queries)) == COUNT


async def test_a_transaction_for_each_query_gives_neither_warnings_nor_lag(at):
    await at.declare(app(), *MODELS)
    ids = [f"q{number}" for number in range(500)]
    async with at.router() as router, at.host(HOSTS):
        async with at.producer(transactional_id=f"{at.catalogue.prefix}-application") as producer:
            for value in queries(ids):
                async with producer.transaction():
                    await producer.send(at.catalogue.queries, json.dumps(value).encode(), partition=0)
        _, counts = await at.predictions(*ids)
        assert counts == dict.fromkeys(ids, 1)
        async with asyncio.timeout(WITHIN_S):
            while sum((await read_status(at.kafka, at.catalogue)).groups[0].lag.values()):
                await asyncio.sleep(0.1)
        assert "warning" not in router.log.lower()
        assert await router.ended(signal.SIGTERM) == 0, router.log


async def test_an_open_transaction_delays_only_what_is_behind_it_in_its_partition(at):
    await at.declare(app(), *MODELS)
    async with at.router() as router, at.host(HOSTS):
        async with at.producer(transactional_id=f"{at.catalogue.prefix}-application") as producer:
            await producer.begin_transaction()
            await producer.send_and_wait(at.catalogue.queries, json.dumps(queries(["open"])[0]).encode(), partition=0)
            await at.ask({"query_id": "behind", "input": [1, 2]}, partition=0)
            await at.ask({"query_id": "beside", "input": [1, 2]}, partition=1)
            _, counts = await at.predictions("beside")
            assert counts == {"beside": 1}
            await producer.commit_transaction()
        _, counts = await at.predictions("open", "behind")
        assert counts == {"beside": 1, "open": 1, "behind": 1}
        assert await router.ended(signal.SIGTERM) == 0, router.log
