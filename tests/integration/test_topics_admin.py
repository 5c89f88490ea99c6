import asyncio
import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import NewTopic
from builders.router_deployment import publish_manifests
from e2e.programs import reserved_port

from clipper_agents.control.state import read_control
from clipper_agents.kafka.clients import administration
from clipper_agents.kafka.errors import KafkaUnreachable, TopicMismatch, TopicRefused
from clipper_agents.kafka.topics import TopicsReport, delete_topics, ensure_topics, existing_topics
from clipper_topics.catalogue import Catalogue, TopicCreation
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelManifest


def svm(version="2", **fields):
    return ModelManifest(name="svm", version=version, uri="models:svm", **fields)


async def create(kafka, *topics):
    async with administration(kafka) as admin:
        response = await admin.create_topics(list(topics))
    assert all(code == 0 for _, code, _ in response.topic_errors)


async def test_topics_are_created_once_with_the_partitions_of_the_catalogue(kafka, catalogue):
    fixed = {spec.name: spec.partitions for spec in catalogue.fixed_topics()}
    assert await existing_topics(kafka, catalogue.prefix) == fixed
    at_once = await asyncio.gather(*(ensure_topics(kafka, catalogue, [svm(replicas=2)]) for _ in range(4)))
    requests = catalogue.requests("svm", "2")
    assert [name for report in at_once for name in report.created] == [requests]
    again = await ensure_topics(kafka, catalogue, [svm(replicas=2)])
    assert again == TopicsReport(existing=(*fixed, requests))
    assert await existing_topics(kafka, catalogue.prefix) == fixed | {requests: 2}


async def test_a_requests_topic_grows_with_the_replicas_of_its_model_and_never_shrinks(kafka, catalogue):
    name = catalogue.requests("svm", "2")
    assert (await ensure_topics(kafka, catalogue, [svm(colocated=True)])).created == ()
    defaults = await ensure_topics(kafka, catalogue, [svm(replicas=1)], creation=TopicCreation())
    assert defaults.created == (name,)
    assert (await ensure_topics(kafka, catalogue, [svm(replicas=3)])).grown == (name,)
    assert (await ensure_topics(kafka, catalogue, [svm(replicas=2)])).grown == ()
    assert (await existing_topics(kafka, catalogue.prefix))[name] == 3
    with pytest.raises(TopicRefused, match=r"requests\.svm\.3: .*replicat"):
        await ensure_topics(kafka, catalogue, [svm("3")], creation=TopicCreation(99))


async def test_topics_that_others_have_made_are_refused_or_reported_with_the_command(kafka, catalogue):
    with pytest.raises(TopicMismatch) as raised:
        await ensure_topics(kafka, Catalogue(prefix=catalogue.prefix, partitions=6))
    assert f"topic {catalogue.queries} has 2 partitions, 6 are configured" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 7  # those that are partitioned as the queries are

    requests, zstd = catalogue.requests("svm", "2"), {"compression.type": "zstd", "cleanup.policy": "delete"}
    await delete_topics(kafka, [catalogue.feedback, catalogue.outputs, f"{catalogue.prefix}.never"])
    assert catalogue.feedback not in await existing_topics(kafka, catalogue.prefix)
    await create(
        kafka,
        NewTopic(catalogue.feedback, 2, 1),
        NewTopic(catalogue.outputs, 2, 1, topic_configs=zstd),
        NewTopic(requests, 1, 1, topic_configs=zstd),
    )
    report = await ensure_topics(kafka, catalogue, [svm()])
    assert catalogue.feedback in report.existing
    altered = {line.split()[1]: line for line in report.advice if "compression.type" in line}
    assert altered.keys() == {catalogue.feedback, catalogue.outputs, requests}
    assert "has compression.type=producer" in altered[catalogue.feedback]
    assert "has compression.type=zstd" in altered[requests]
    assert altered[catalogue.outputs].endswith(
        f"--entity-name {catalogue.outputs} --add-config compression.type=producer"
    )
    (clock,) = [line for line in report.advice if line not in altered.values()]
    assert f"topic {catalogue.feedback} has message.timestamp.type=CreateTime" in clock
    assert f"--bootstrap-server {kafka.bootstrap} --alter --entity-type topics" in clock
    assert clock.endswith("--add-config message.timestamp.type=LogAppendTime")

    await delete_topics(kafka, [catalogue.control])
    await create(kafka, NewTopic(catalogue.control, 1, 1))
    with pytest.raises(TopicMismatch, match=r"\.control has cleanup.policy=delete, it must be compact"):
        await ensure_topics(kafka, catalogue)


async def test_an_address_where_nobody_listens_and_topics_that_are_missing_are_named(kafka):
    with reserved_port() as port:
        nowhere = KafkaConnection(f"127.0.0.1:{port}")
        with pytest.raises(KafkaUnreachable, match=nowhere.bootstrap):
            await existing_topics(nowhere)
    nobody = Catalogue(prefix="tnobody")
    for refused in (read_control(kafka, nobody), publish_manifests(kafka, nobody, [svm()])):
        with pytest.raises(TopicMismatch, match="clipper-stream topics create"):
            await refused


async def test_records_of_applications_have_the_brokers_clock(kafka, catalogue):
    """And both consumers, and the acknowledgement of our own producer, say so."""
    async with AIOKafkaProducer(**kafka.aiokafka()) as producer, AIOKafkaConsumer(**kafka.aiokafka()) as consumer:
        for topic in (catalogue.queries, catalogue.predictions, catalogue.feedback, catalogue.outputs):
            sent = await producer.send_and_wait(topic, b"{", partition=0, timestamp_ms=1_000)
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.seek_to_beginning()
            record = await consumer.getone()
            if topic == catalogue.outputs:
                assert record.timestamp == 1_000
                continue
            assert sent.timestamp == record.timestamp == pytest.approx(time.time() * 1000, abs=60_000)
            assert record.timestamp_type == 1


async def test_where_topics_are_made_by_others_those_that_are_missing_are_named(kafka, catalogue):
    never = TopicCreation(is_allowed=False)
    assert (await ensure_topics(kafka, catalogue, creation=never)).created == ()
    await ensure_topics(kafka, catalogue, [svm(replicas=1)])
    said = rf"kafka.create_topics is false: {catalogue.requests('svm', '3')} \(2 partitions\), "
    said += rf"{catalogue.requests('svm', '2')} has 1 of 3 partitions$"
    with pytest.raises(TopicRefused, match=said):
        await ensure_topics(kafka, catalogue, [svm(replicas=3), svm("3", replicas=2)], never)
