import asyncio
import contextlib
import itertools
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from integration.stand_in_router import stand_in_router

from clipper_stream.client import (
    BrokerUnavailable,
    Client,
    ClientClosed,
    InvalidFeedback,
    InvalidQuery,
    PredictionTimeout,
    QueryRefused,
    RecordTooLarge,
    SyncClient,
)
from clipper_stream.client.client_records import partition_for
from clipper_topics import codec
from clipper_topics.prediction import REFUSALS, ModelAnswer, PolicyRef, Prediction
from clipper_topics.query_ids import partition_of


def echo(query):
    outputs = {"output": query.input} if query.inputs is None else {"outputs": query.inputs}
    return [
        Prediction(
            query_id=query.query_id, application=query.application, context=query.context, confidence=0.75,
            policy=PolicyRef(name="single"), models=[ModelAnswer(model="echo", version="1", propensity=1.0, **outputs)],
            **outputs,
        )
    ]  # fmt: skip


def silence(query):
    return []


@pytest.fixture
async def router(kafka, catalogue):
    async with stand_in_router(kafka, catalogue, echo) as running:
        yield running


@pytest.fixture
async def client(kafka, catalogue, router):
    async with Client(kafka, prefix=catalogue.prefix) as opened:
        yield opened


async def test_a_query_is_answered_and_its_feedback_lands_beside_it(catalogue, client, router, at):
    answer = await client.predict("digits", [0.0, 0.5], deadline_ms=50, models=["echo:1"])
    await client.feedback(answer, label=3)
    assert (answer.output, answer.outputs, answer.confidence, answer.default) == ([0.0, 0.5], None, 0.75, False)
    assert answer.models[0].model == "echo"
    assert 0 < answer.latency_s < 10
    assert (router.queries[0].deadline_ms, router.queries[0].models) == (50, ["echo:1"])
    assert router.records == [(answer.partition, answer.key)]
    assert partition_of(answer.query_id) == answer.partition == partition_for(answer.key, catalogue.partitions)
    value = b'{"query_id":"' + answer.query_id.encode() + b'","application":"digits","label":3}'
    (feedback,) = await at.read(catalogue.feedback)
    assert (feedback.partition, feedback.key, feedback.value) == (answer.partition, answer.key, value)
    assert feedback.headers == {}


@pytest.mark.parametrize("reason", sorted(REFUSALS))
async def test_a_query_at_fault_raises_unless_the_client_wants_its_default(kafka, catalogue, client, router, reason):
    default = {"output": -1, "default": True, "reason": reason, "explanation": "give another"}
    router.answering = lambda query: [Prediction(query_id=query.query_id, application=query.application, **default)]
    with pytest.raises(QueryRefused, match=f"^{reason}: give another$") as caught:
        await client.predict("digits", "text")
    assert (caught.value.answer.output, caught.value.answer.reason) == (-1, reason)
    async with Client(kafka, prefix=catalogue.prefix, raise_refusals=False) as asking:
        assert (await asking.predict("digits", "text")).reason == reason


async def test_a_client_can_write_msgpack(kafka, catalogue, router, at):
    async with Client(kafka, prefix=catalogue.prefix, content_type=codec.MSGPACK) as client:
        answer = await client.predict("digits", np.arange(3, dtype=np.float32))
        await client.feedback(answer.query_id, reward=np.float32(0.5))
    (feedback,) = await at.read(catalogue.feedback)
    assert answer.output == [0.0, 1.0, 2.0]
    assert (feedback.partition, feedback.key) == (answer.partition, None)
    assert codec.feedback.decode(feedback.value, list(feedback.headers.items())).reward == 0.5


async def test_many_inputs_are_many_queries_and_a_packed_one_is_a_single_query(client, router):
    many = await client.predict_many("digits", np.eye(3), context="me")
    packed = await client.predict_packed("digits", np.eye(3))
    assert [answer.output for answer in many] == packed.outputs == np.eye(3).tolist()
    assert (packed.output, len(router.queries)) == (None, 4)


async def test_a_second_answer_to_a_query_and_records_that_are_no_predictions_are_skipped(
    catalogue, client, router, at
):
    router.answering = lambda query: echo(query) * 2
    async with at.producer() as producer:
        for value, partition in itertools.product((b"", b"{", b"\xff", b"[]", None), (0, 1)):
            await producer.send_and_wait(catalogue.predictions, value, b"key", partition=partition)
    assert [(await client.predict("digits", [number])).output for number in range(6)] == [[n] for n in range(6)]


async def test_an_answer_that_does_not_come_is_a_timeout_that_says_where_to_look(catalogue, client, router):
    router.answering = silence
    with pytest.raises(PredictionTimeout) as caught:
        await client.predict("digits", [1], timeout_s=0.3, query_id="order seven")
    message = str(caught.value)
    assert "no answer of application 'digits' to query 'order seven' within 0.3 s" in message
    assert f"is record 0 of {catalogue.queries} partition" in message
    assert catalogue.router_group in message
    assert catalogue.dead_letters in message


async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(client, router):
    with pytest.raises(InvalidQuery, match="names partition 7"):  # test_client_records has the other rules
        await client.predict("digits", [1], query_id=f"7-{'a' * 32}")
    with pytest.raises(RecordTooLarge, match="send fewer rows"):
        await client.predict("digits", "x" * 2_000_000)
    with pytest.raises(InvalidFeedback):
        await client.feedback("7@1", label=1)
    assert (await client.predict("digits", [1])).output == [1]
    assert len(router.queries) == 1


async def test_calls_that_wait_when_the_client_closes_are_told_so(client, router):
    router.answering = silence
    call = asyncio.create_task(client.predict("digits", [1]))
    await router.has_read(1)
    await client.close()
    with pytest.raises(ClientClosed, match="closed while the call waited"):
        await call
    for later in (client.predict("digits", [1]), client.feedback("0@1", label=1)):
        with pytest.raises(ClientClosed, match="async with Client"):
            await later
    await client.open()
    await client.feedback("0@1", label=1)


async def test_when_reading_ends_every_call_fails_and_says_so(catalogue, client, router):
    router.answering = silence
    call = asyncio.create_task(client.predict("digits", [1]))
    await router.has_read(1)
    await client._reader._consumer.stop()
    for failing in (call, client.predict("digits", [1])):
        with pytest.raises(BrokerUnavailable, match=f"reading {catalogue.predictions} ended"):
            await failing


async def left_running():
    """Tasks that go on by themselves; one that was cancelled just now is given the time to end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return (await asyncio.wait(others, timeout=5))[1] if others else set()


def test_opening_that_is_cancelled_at_any_moment_leaves_nothing_behind(kafka, catalogue):
    async def work(delay_s):
        client = Client(kafka, prefix=catalogue.prefix)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.open(), delay_s)
        await client.close()
        return await left_running()

    for milliseconds in range(0, 40, 8):
        assert asyncio.run(work(milliseconds / 1000)) == set()


async def test_topics_that_do_not_exist_and_a_kafka_that_does_not_run_are_named(kafka):
    with pytest.raises(BrokerUnavailable, match=r"has no topic nowhere\.queries"):
        await Client(kafka, prefix="nowhere", send_timeout_s=0.5).open()
    with pytest.raises(BrokerUnavailable, match=r"no Kafka answers at 127\.0\.0\.1:1 "):
        await asyncio.to_thread(SyncClient("127.0.0.1:1").open)


async def test_a_blocking_client_serves_many_threads(kafka, catalogue, router):
    def work():
        with SyncClient(kafka, prefix=catalogue.prefix) as client, ThreadPoolExecutor(16) as pool:
            outputs = list(pool.map(lambda number: client.predict("digits", [number]).output, range(200)))
            packed = client.predict_packed("digits", [[1], [2]])
            many = client.predict_many("digits", [[1], [2]])
            client.feedback(packed, label=[1, 2])
            return outputs, packed.outputs, [answer.output for answer in many]

    outputs, packed, many = await asyncio.to_thread(work)
    assert outputs == [[number] for number in range(200)]
    assert packed == many == [[1], [2]]


async def test_closing_a_blocking_client_frees_the_threads_that_wait(kafka, catalogue, router):
    router.answering = silence

    client = SyncClient(kafka, prefix=catalogue.prefix)
    await asyncio.to_thread(client.open)
    with ThreadPoolExecutor(4) as pool:
        calls = [pool.submit(client.predict, "digits", [number]) for number in range(4)]
        await router.has_read(4)
        for _ in range(2):
            await asyncio.to_thread(client.close)
        assert [type(call.exception(10)) for call in calls] == [ClientClosed] * 4
    with pytest.raises(ClientClosed):
        client.predict("digits", [1])
    assert not [thread for thread in threading.enumerate() if thread.name == "clipper client"]


def test_an_interpreter_ends_though_a_blocking_client_was_left_open(kafka, catalogue):
    code = (
        "from clipper_stream.client import SyncClient\n"
        f"client = SyncClient({kafka.bootstrap!r}, prefix={catalogue.prefix!r})\n"
        "client.open()\n"
        "client.feedback('0@1', label=1)\n"
        "print('done')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr, ended.returncode) == ("done\n", "", 0)
