"""What a supervisor does to a host's group and says in its place, on a real Kafka."""

import time

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from clipper_agents.control.host_reports import HostReports
from clipper_agents.kafka.consumer_groups import delete_group, remove_members, unread
from clipper_agents.kafka.topics import ensure_topics, existing_topics
from clipper_agents.supervisor.kafka_resources import KafkaResources
from clipper_topics import codec
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ModelManifest

pytestmark = pytest.mark.integration

MODEL = ModelManifest(name="svm", uri="m:f", replicas=2)
SESSION_S = 30.0
"""Longer than any test: what happens before did not wait for it."""


@pytest.fixture
def names(catalogue):
    return catalogue.host_group("svm", "1"), catalogue.requests("svm", "1")


async def member(kafka, group, topic, instance):
    """A static member that has read the topic."""
    consumer = AIOKafkaConsumer(
        topic, **kafka.aiokafka(), group_id=group, group_instance_id=instance, enable_auto_commit=False,
        auto_offset_reset="earliest", session_timeout_ms=int(1000 * SESSION_S),
    )  # fmt: skip
    await consumer.start()
    return consumer


async def filled(kafka, catalogue, topic):
    await ensure_topics(kafka, catalogue, [MODEL])
    async with AIOKafkaProducer(**kafka.aiokafka()) as producer:
        await producer.send_and_wait(topic, b"request", partition=0)


async def test_a_group_has_read_all_once_the_end_of_each_partition_is_committed(kafka, catalogue, names):
    group, topic = names
    assert not await unread(kafka, group, topic), "no topic, so nothing to read"
    await filled(kafka, catalogue, topic)
    assert await unread(kafka, group, topic)
    consumer = await member(kafka, group, topic, "host-0")
    for offset, whole in ((0, False), (1, True)):
        await consumer.commit({TopicPartition(topic, 0): offset})
        assert (not await unread(kafka, group, topic)) is whole
    await consumer.stop()


async def test_the_group_of_ended_hosts_is_deleted_without_waiting_for_their_sessions(kafka, catalogue, names):
    group, topic = names
    await filled(kafka, catalogue, topic)
    consumer = await member(kafka, group, topic, "host-0")
    assert not await delete_group(kafka, group, empty_within_s=0.0), "somebody is in it"
    began_s = time.monotonic()
    await consumer.stop()
    await remove_members(kafka, group, ["host-0", "nobody"])
    assert await delete_group(kafka, group)
    assert time.monotonic() - began_s < SESSION_S / 2
    assert await delete_group(kafka, group), "one that is gone is fine"
    await remove_members(kafka, group, ["host-0"])


async def test_the_topic_of_a_version_is_not_deleted_under_hosts_of_somebody_else(kafka, catalogue, names, caplog):
    group, topic = names
    await filled(kafka, catalogue, topic)
    consumer = await member(kafka, group, topic, "by-hand")
    ground = KafkaResources(kafka, catalogue, empty_within_s=0.0)
    await ground.remove(MODEL)
    assert topic in await existing_topics(kafka, catalogue.prefix)
    assert any("hosts that are not ours" in one.getMessage() for one in caplog.records)
    await consumer.stop()
    await ground.evict(MODEL, ["by-hand"])
    await ground.remove(MODEL)
    assert topic not in await existing_topics(kafka, catalogue.prefix)


async def newest(kafka, topic):
    """Reports by key as they stand, None for one that was taken back."""
    tp, found = TopicPartition(topic, 0), {}
    async with AIOKafkaConsumer(**kafka.aiokafka(), auto_offset_reset="earliest") as consumer:
        consumer.assign([tp])
        end = (await consumer.end_offsets([tp]))[tp]
        while await consumer.position(tp) < end:
            for records in (await consumer.getmany(timeout_ms=200)).values():
                for one in records:
                    found[one.key] = codec.host_reports.decode(one.value) if one.value else None
    return found


async def test_reports_are_written_in_order_and_the_last_one_before_the_end(kafka, catalogue):
    await ensure_topics(kafka, catalogue)
    reports = HostReports(kafka, catalogue.hosts)
    for state in ("starting", "ready", "draining"):
        reports.put(HostReport(model="svm:1", instance="a", state=state))
        reports.put(HostReport(model="svm:1", instance="b", state=state))
    reports.withdraw("svm:1", "a")
    assert reports.close(within_s=30)
    found = await newest(kafka, catalogue.hosts)
    assert found[b"svm:1/a"] is None
    assert (found[b"svm:1/b"].state, found[b"svm:1/b"].at_ms > 0) == ("draining", True)
