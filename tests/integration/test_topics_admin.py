"""Are the topics of a deployment what its catalogue says, and the manifests what was published last?"""

import asyncio
import time

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from builders.router_deployment import publish_manifests, withdraw_manifests

from clipper_agents.broker.properties import free_port
from clipper_agents.control.state import read_manifests
from clipper_agents.kafka.errors import KafkaUnreachable, TopicMismatch, TopicRefused
from clipper_agents.kafka.topics import TopicsReport, delete_topics, ensure_topics, existing_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import application_key, model_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest

pytestmark = pytest.mark.integration


def svm(replicas: int = 1, colocated: bool = False) -> ModelManifest:
    return ModelManifest(name="svm", version="2", uri="models:svm", replicas=replicas, colocated=colocated)


def digits() -> ApplicationManifest:
    return ApplicationManifest(name="digits", models=["svm:2"])


async def create(kafka: KafkaConnection, *topics: NewTopic) -> None:
    admin = AIOKafkaAdminClient(**kafka.aiokafka())
    await admin.start()
    try:
        response = await admin.create_topics(list(topics))
        assert all(code == 0 for _, code, _ in response.topic_errors)
    finally:
        await admin.close()


async def test_the_topics_have_the_partitions_of_the_catalogue(kafka: KafkaConnection, catalogue: Catalogue):
    found = await existing_topics(kafka, catalogue.prefix)
    assert found == {spec.name: spec.partitions for spec in catalogue.fixed_topics()}


async def test_creating_the_topics_again_changes_nothing(kafka: KafkaConnection, catalogue: Catalogue):
    await ensure_topics(kafka, catalogue, [svm()])
    again = await ensure_topics(kafka, catalogue, [svm()])
    names = [spec.name for spec in catalogue.fixed_topics()] + [catalogue.requests("svm", "2")]
    assert again == TopicsReport(existing=tuple(names))


async def test_several_processes_can_create_the_topics_at_once(kafka: KafkaConnection, catalogue: Catalogue):
    reports = await asyncio.gather(*(ensure_topics(kafka, catalogue, [svm(replicas=2)]) for _ in range(4)))
    created = [name for report in reports for name in report.created]
    assert created == [catalogue.requests("svm", "2")]


async def test_a_requests_topic_grows_with_the_replicas_of_its_model_and_never_shrinks(
    kafka: KafkaConnection, catalogue: Catalogue
):
    name = catalogue.requests("svm", "2")
    assert (await ensure_topics(kafka, catalogue, [svm(replicas=1)])).created == (name,)
    assert (await ensure_topics(kafka, catalogue, [svm(replicas=3)])).grown == (name,)
    assert (await ensure_topics(kafka, catalogue, [svm(replicas=2)])).grown == ()
    assert (await existing_topics(kafka, catalogue.prefix))[name] == 3


async def test_a_colocated_model_has_no_requests_topic(kafka: KafkaConnection, catalogue: Catalogue):
    assert (await ensure_topics(kafka, catalogue, [svm(colocated=True)])).created == ()


async def test_another_partition_count_than_configured_is_said_with_both_numbers(
    kafka: KafkaConnection, catalogue: Catalogue
):
    configured = Catalogue(prefix=catalogue.prefix, partitions=6)
    with pytest.raises(TopicMismatch) as raised:
        await ensure_topics(kafka, configured)
    assert f"topic {catalogue.queries} has 2 partitions, 6 are configured" in str(raised.value)
    assert len(str(raised.value).splitlines()) == 7  # those that are partitioned as the queries are


async def test_a_control_topic_that_would_forget_manifests_is_refused(kafka: KafkaConnection, catalogue: Catalogue):
    await delete_topics(kafka, [catalogue.control])
    await create(kafka, NewTopic(catalogue.control, 1, 1))
    with pytest.raises(TopicMismatch, match=r"\.control has cleanup.policy=delete, it must be compact"):
        await ensure_topics(kafka, catalogue)


async def test_the_brokers_default_replication_can_be_asked_for(kafka: KafkaConnection, catalogue: Catalogue):
    report = await ensure_topics(kafka, catalogue, [svm()], replication_factor=-1)
    assert report.created == (catalogue.requests("svm", "2"),)


async def test_more_copies_than_brokers_are_refused_in_the_brokers_words(kafka: KafkaConnection, catalogue: Catalogue):
    with pytest.raises(TopicRefused, match=r"requests\.svm\.2: the broker does not create it: .*replicat"):
        await ensure_topics(kafka, catalogue, [svm()], replication_factor=99)


async def test_deleting_a_topic_that_does_not_exist_is_fine(kafka: KafkaConnection, catalogue: Catalogue):
    await delete_topics(kafka, [catalogue.feedback, f"{catalogue.prefix}.never"])
    assert catalogue.feedback not in await existing_topics(kafka, catalogue.prefix)


async def test_an_address_where_nobody_listens_is_named():
    nowhere = KafkaConnection(f"127.0.0.1:{free_port()}")
    with pytest.raises(KafkaUnreachable, match=f"no Kafka answers at {nowhere.bootstrap} .PLAINTEXT"):
        await existing_topics(nowhere)


async def test_the_newest_manifest_of_a_name_counts(kafka: KafkaConnection, catalogue: Catalogue):
    newer = msgspec.structs.replace(digits(), objective_ms=70)
    await publish_manifests(kafka, catalogue, [digits(), svm()])
    await publish_manifests(kafka, catalogue, [newer])
    found = await read_manifests(kafka, catalogue)
    assert found.applications == {"digits": msgspec.structs.replace(newer, revision=2)}
    assert found.models == {"svm:2": svm()}
    assert found.unreadable == {}


async def test_a_withdrawn_manifest_is_gone(kafka: KafkaConnection, catalogue: Catalogue):
    await publish_manifests(kafka, catalogue, [digits(), svm()])
    await withdraw_manifests(kafka, catalogue, [application_key("digits"), model_key("svm:2")])
    found = await read_manifests(kafka, catalogue)
    assert (found.applications, found.models) == ({}, {})


async def test_an_empty_control_topic_has_no_manifests(kafka: KafkaConnection, catalogue: Catalogue):
    found = await read_manifests(kafka, catalogue)
    assert (found.applications, found.models, found.unreadable) == ({}, {}, {})


async def test_without_a_control_topic_the_command_that_creates_it_is_named(kafka: KafkaConnection):
    nobody = Catalogue(prefix="tnobody")
    for refused in (read_manifests(kafka, nobody), publish_manifests(kafka, nobody, [svm()])):
        with pytest.raises(TopicMismatch, match="clipper-stream topics create"):
            await refused


async def test_records_of_applications_have_the_brokers_clock(kafka: KafkaConnection, catalogue: Catalogue):
    """And both consumers, and the acknowledgement of our own producer, say so."""

    async def stored(topic: str) -> tuple[int, int, int]:
        producer, consumer = AIOKafkaProducer(**kafka.aiokafka()), AIOKafkaConsumer(**kafka.aiokafka())
        await asyncio.gather(producer.start(), consumer.start())
        try:
            sent = await producer.send_and_wait(topic, b"{", partition=0, timestamp_ms=1_000)
            consumer.assign([TopicPartition(topic, 0)])
            await consumer.seek_to_beginning()
            record = await consumer.getone()
        finally:
            await asyncio.gather(producer.stop(), consumer.stop())
        return sent.timestamp, record.timestamp, record.timestamp_type

    for topic in (catalogue.queries, catalogue.predictions, catalogue.feedback):
        acknowledged_ms, read_ms, kind = await stored(topic)
        assert acknowledged_ms == read_ms == pytest.approx(time.time() * 1000, abs=60_000)
        assert kind == 1
    assert (await stored(catalogue.outputs))[1] == 1_000


async def test_an_older_topic_with_other_clocks_is_reported_with_the_command(
    kafka: KafkaConnection, catalogue: Catalogue
):
    await delete_topics(kafka, [catalogue.feedback])
    await create(kafka, NewTopic(catalogue.feedback, catalogue.partitions, 1))
    report = await ensure_topics(kafka, catalogue)
    advice, compression = report.advice
    assert f"topic {catalogue.feedback} has compression.type=producer" in compression
    assert f"topic {catalogue.feedback} has message.timestamp.type=CreateTime" in advice
    assert f"--bootstrap-server {kafka.bootstrap} --alter --entity-type topics" in advice
    assert advice.endswith("--add-config message.timestamp.type=LogAppendTime")
    assert catalogue.feedback in report.existing


async def test_topics_that_a_cluster_compressed_by_default_are_reported_with_the_command(
    kafka: KafkaConnection, catalogue: Catalogue
):
    requests = catalogue.requests("svm", "2")
    await delete_topics(kafka, [catalogue.outputs])
    zstd = {"compression.type": "zstd", "cleanup.policy": "delete"}
    await create(
        kafka,
        NewTopic(catalogue.outputs, catalogue.partitions, 1, topic_configs=zstd),
        NewTopic(requests, 1, 1, topic_configs=zstd),
    )
    advice = (await ensure_topics(kafka, catalogue, [svm()])).advice
    assert [line.split()[1] for line in advice] == [catalogue.outputs, requests]
    assert all("has compression.type=zstd" in line for line in advice)
    assert advice[0].endswith(f"--entity-name {catalogue.outputs} --add-config compression.type=producer")
