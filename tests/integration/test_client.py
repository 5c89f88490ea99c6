"""The clients against a real Kafka and a stand-in router."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from builders.stand_in_router import answer_by_default, stand_in_router
from confluent_kafka import Producer

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import free_port
from clipper_agents.kafka.topics import ensure_topics
from clipper_stream.client import (
    BrokerUnavailable,
    Client,
    ClientClosed,
    InvalidFeedback,
    InvalidQuery,
    PredictionTimeout,
    RecordTooLarge,
    SyncClient,
)
from clipper_stream.client.keys import partition_for
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.prediction import ModelAnswer, PolicyRef, Prediction
from clipper_topics.query_ids import partition_of

pytestmark = pytest.mark.integration


def echo(query):
    """Answers with what was asked."""
    several = codec.queries.encode(query).find(b'"inputs"') > 0
    outputs = {"outputs": query.inputs} if several else {"output": query.input}
    return [
        Prediction(
            query_id=query.query_id,
            application=query.application,
            context=query.context,
            confidence=0.75,
            policy=PolicyRef(name="single"),
            models=[ModelAnswer(model="echo", version="1", propensity=1.0, **outputs)],
            **outputs,
        )
    ]


def silence(query):
    return []


async def has_read(router, count):
    """Returns once the router, which runs on this loop, has read so many queries."""
    while len(router.queries) < count:
        await asyncio.sleep(0.01)


async def left_running():
    """Tasks that go on by themselves; one that was cancelled just now is given the time to end."""
    others = asyncio.all_tasks() - {asyncio.current_task()}
    return (await asyncio.wait(others, timeout=5))[1] if others else set()


@pytest.fixture
async def router(kafka, catalogue):
    async with stand_in_router(kafka, catalogue, echo) as running:
        yield running


@pytest.fixture
async def client(kafka, catalogue, router):
    async with Client(kafka, prefix=catalogue.prefix) as opened:
        yield opened


async def records_of(kafka, topic, partitions, count):
    """The first records of a topic: partition, key, value and headers of each."""
    found = []
    async with AIOKafkaConsumer(**kafka.aiokafka(), auto_offset_reset="earliest") as consumer:
        consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
        while len(found) < count:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                found += [(record.partition, record.key, record.value, record.headers) for record in records]
    return found


async def test_a_query_is_answered_and_its_feedback_lands_beside_it(kafka, catalogue, client, router):
    answer = await client.predict("digits", [0.0, 0.5], deadline_ms=50, models=["echo:1"])
    await client.feedback(answer, label=3)
    assert (answer.output, answer.outputs, answer.confidence, answer.default) == ([0.0, 0.5], None, 0.75, False)
    assert answer.models[0].model == "echo"
    assert 0 < answer.latency_s < 10
    assert (router.queries[0].deadline_ms, router.queries[0].models) == (50, ["echo:1"])
    assert router.records == [(answer.partition, answer.key)]
    assert partition_of(answer.query_id) == answer.partition == partition_for(answer.key, catalogue.partitions)
    value = b'{"query_id":"' + answer.query_id.encode() + b'","application":"digits","label":3}'
    feedback = await records_of(kafka, catalogue.feedback, catalogue.partitions, 1)
    assert feedback == [(answer.partition, answer.key, value, ())]


async def test_a_client_can_write_msgpack(kafka, catalogue, router):
    async with Client(kafka, prefix=catalogue.prefix, content_type=codec.MSGPACK) as client:
        answer = await client.predict("digits", np.arange(3, dtype=np.float32))
        await client.feedback(answer.query_id, reward=np.float32(0.5))
    ((partition, key, value, headers),) = await records_of(kafka, catalogue.feedback, catalogue.partitions, 1)
    assert answer.output == [0.0, 1.0, 2.0]
    assert (partition, key) == (answer.partition, None)
    assert codec.feedback.decode(value, headers).reward == 0.5


async def test_queries_and_feedback_of_a_context_have_it_as_key_and_one_partition(kafka, catalogue, client, router):
    for number in range(4):
        await client.predict("spam", f"letter {number}", context="user-42", query_id=f"letter {number}")
    await client.feedback("letter 3", context="user-42", loss=0.25)
    partition = partition_for(b"user-42", catalogue.partitions)
    feedback = [record[:2] for record in await records_of(kafka, catalogue.feedback, 2, 1)]
    assert router.records + feedback == [(partition, b"user-42")] * 5


def test_the_partition_of_a_key_is_that_of_librdkafka_with_murmur2_random(kafka, catalogue):
    delivered = {}
    producer = Producer({**kafka.librdkafka(), "partitioner": "murmur2_random"})
    for number in range(50):
        producer.produce(
            catalogue.queries,
            key=f"user {number}",
            on_delivery=lambda error, message: delivered.update({message.key(): message.partition()}),
        )
    assert producer.flush(30) == 0
    assert delivered == {key: partition_for(key, catalogue.partitions) for key in delivered}
    assert len(delivered) == 50


async def test_five_hundred_concurrent_calls_get_each_their_own_answer(client):
    answers = await asyncio.gather(*(client.predict("digits", [number]) for number in range(500)))
    assert [answer.output for answer in answers] == [[number] for number in range(500)]
    assert {answer.partition for answer in answers} == {0, 1}


async def test_many_inputs_are_many_queries_and_a_packed_one_is_a_single_query(client, router):
    many = await client.predict_many("digits", np.eye(3), context="me")
    packed = await client.predict_packed("digits", np.eye(3))
    assert [answer.output for answer in many] == packed.outputs == np.eye(3).tolist()
    assert (packed.output, len(router.queries)) == (None, 4)


async def test_two_clients_of_one_topic_get_their_own_answers(kafka, catalogue, client):
    async with Client(kafka, prefix=catalogue.prefix) as other:
        calls = [(client, other)[number % 2].predict("digits", [number]) for number in range(40)]
        assert [answer.output for answer in await asyncio.gather(*calls)] == [[number] for number in range(40)]


async def test_a_default_answer_says_why(client, router):
    router.answering = lambda query: [answer_by_default(query, "no_models")]
    answer = await client.predict("digits", [1])
    assert (answer.default, answer.reason, answer.output, answer.policy) == (True, "no_models", None, None)


async def test_a_second_answer_to_a_query_and_records_that_are_no_predictions_are_skipped(
    kafka, catalogue, client, router
):
    router.answering = lambda query: echo(query) * 2
    async with AIOKafkaProducer(**kafka.aiokafka()) as producer:
        for value in (b"", b"{", b"\xff", b"[]", None):
            await producer.send_and_wait(catalogue.predictions, value, b"key", partition=0)
            await producer.send_and_wait(catalogue.predictions, value, b"key", partition=1)
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
    assert len(client._waiting) == 0


async def test_a_query_can_be_asked_again_under_its_id_after_a_timeout_but_not_meanwhile(client, router):
    router.answering = silence
    first = asyncio.create_task(client.predict("digits", [1], query_id="seven", timeout_s=2.0))
    await has_read(router, 1)
    with pytest.raises(InvalidQuery, match="is being asked by another call"):
        await client.predict("digits", [1], query_id="seven")
    with pytest.raises(PredictionTimeout):
        await first
    router.answering = echo
    assert (await client.predict("digits", [1], query_id="seven")).output == [1]


async def test_a_cancelled_call_leaves_nothing_behind(client, router):
    router.answering = silence
    calls = asyncio.gather(client.predict("digits", [1]), client.predict_many("digits", [[2], [3]]))
    await has_read(router, 3)
    assert len(client._waiting) == 3
    calls.cancel()
    await asyncio.gather(calls, return_exceptions=True)
    await asyncio.sleep(0)
    assert len(client._waiting) == 0


async def test_what_cannot_be_asked_is_refused_before_anything_is_sent(client, router):
    for wrong, options in [([1], {"deadline_ms": 0}), ([1], {"models": []}), ([object()], {}), ("\ud800", {})]:
        with pytest.raises(InvalidQuery):
            await client.predict("digits", wrong, **options)
    with pytest.raises(InvalidQuery, match="names partition 7"):
        await client.predict("digits", [1], query_id=f"7-{'a' * 32}")
    with pytest.raises(InvalidQuery, match="choose another id"):
        await client.predict("digits", [1], query_id="1@41")
    with pytest.raises(RecordTooLarge, match="send fewer rows"):
        await client.predict("digits", "x" * 2_000_000)
    for id_, truth in [("0@1", {}), ("0@1", {"loss": 2.0}), ("order", {"loss": 1.0}), ("7@1", {"label": 1})]:
        with pytest.raises(InvalidFeedback):
            await client.feedback(id_, **truth)
    assert (router.queries, len(client._waiting)) == ([], 0)


async def test_calls_that_wait_when_the_client_closes_are_told_so(client, router):
    router.answering = silence
    call = asyncio.create_task(client.predict("digits", [1]))
    await has_read(router, 1)
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
    await has_read(router, 1)
    await client._reader._consumer.stop()
    for failing in (call, client.predict("digits", [1])):
        with pytest.raises(BrokerUnavailable, match=f"reading {catalogue.predictions} ended"):
            await failing


def test_opening_that_is_cancelled_at_any_moment_leaves_nothing_behind(kafka, catalogue):
    async def work(delay_s):
        client = Client(kafka, prefix=catalogue.prefix)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(client.open(), delay_s)
        await client.close()
        return await left_running()

    for milliseconds in range(0, 40, 4):
        assert asyncio.run(work(milliseconds / 1000)) == set()


async def test_topics_that_do_not_exist_are_named(kafka):
    with pytest.raises(BrokerUnavailable, match=r"has no topic nowhere\.queries"):
        await Client(kafka, prefix="nowhere", send_timeout_s=0.5).open()


async def test_a_kafka_that_does_not_run_is_named():
    where = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnavailable, match=f"no Kafka answers at {where}"):
        await Client(where).open()
    with pytest.raises(BrokerUnavailable, match=f"no Kafka answers at {where}"):
        await asyncio.to_thread(SyncClient(where).open)


@pytest.fixture(scope="module")
def broker():
    with EmbeddedBroker() as running:
        yield running


def test_a_stopped_kafka_is_an_error_in_time_and_the_client_recovers(broker):
    catalogue = Catalogue(prefix="stopping", partitions=2)

    async def work(broker):
        kafka = broker.connection
        await ensure_topics(kafka, catalogue)
        async with asyncio.timeout(90), Client(kafka, prefix=catalogue.prefix, send_timeout_s=2.0) as client:
            async with stand_in_router(kafka, catalogue, silence) as router:
                call = asyncio.create_task(client.predict("digits", [1], timeout_s=4.0))
                await has_read(router, 1)
            await asyncio.to_thread(broker.stop, kill=True)
            with pytest.raises(BrokerUnavailable, match="did not acknowledge the query within 1 s"):
                await client.predict("digits", [1], timeout_s=1.0)
            with pytest.raises(BrokerUnavailable, match="did not take a record"):
                await client.feedback("0@1", label=1)
            # the router has the record; whether its acknowledgement was still on the way, nobody can tell
            with pytest.raises(
                (PredictionTimeout, BrokerUnavailable), match=r"see whether a router|did not take a record"
            ):
                await call
            await asyncio.to_thread(broker.start)
            async with stand_in_router(kafka, catalogue, echo):
                assert (await client.predict("digits", [2])).output == [2]

    asyncio.run(work(broker))


def test_an_outage_is_two_lines_in_the_log_of_an_application(broker, caplog):
    catalogue = Catalogue(prefix="outages", partitions=2)

    def lines():
        return [record for record in caplog.records if not record.name.startswith("clipper_agents")]

    async def logged(count):
        while len(lines()) < count:
            await asyncio.sleep(0.05)

    async def work(broker):
        await ensure_topics(broker.connection, catalogue)
        async with (
            asyncio.timeout(90),
            Client(broker.connection, prefix=catalogue.prefix, send_timeout_s=1.0) as client,
        ):
            await asyncio.to_thread(broker.stop, kill=True)
            await logged(1)
            for _ in range(2):
                with pytest.raises(BrokerUnavailable):
                    await client.feedback("0@1", label=1)
            await asyncio.to_thread(broker.start)
            await logged(2)
            await client.feedback("0@1", label=1)

    caplog.set_level("INFO")
    asyncio.run(work(broker))
    where = broker.connection.bootstrap
    assert [record.getMessage() for record in lines()] == [
        f"no Kafka answers at {where}: calls wait for it until their time is over",
        f"Kafka at {where} answers again",
    ]


def test_a_client_closes_while_kafka_is_down(broker):
    catalogue = Catalogue(prefix="closing", partitions=2)

    async def work(broker):
        await ensure_topics(broker.connection, catalogue)
        async with (
            asyncio.timeout(60),
            Client(broker.connection, prefix=catalogue.prefix, send_timeout_s=1.0) as client,
        ):
            broker.stop(kill=True)
            call = asyncio.create_task(client.predict("digits", [1]))
            with pytest.raises(BrokerUnavailable):
                await client.predict("digits", [1])
        with pytest.raises((BrokerUnavailable, ClientClosed)):
            await call
        return await left_running()

    assert asyncio.run(work(broker)) == set()


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

    def work():
        client = SyncClient(kafka, prefix=catalogue.prefix)
        client.open()
        with ThreadPoolExecutor(4) as pool:
            calls = [pool.submit(client.predict, "digits", [number]) for number in range(4)]
            while len(router.queries) < 4:
                threading.Event().wait(0.01)
            client.close()
            client.close()
            errors = [type(call.exception(10)) for call in calls]
        with pytest.raises(ClientClosed):
            client.predict("digits", [1])
        return errors

    assert await asyncio.to_thread(work) == [ClientClosed] * 4
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
