"""What a supervisor does to a host's group and says in its place, on a real Kafka."""

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from clipper_agents.control.host_reports import HostReports
from clipper_agents.kafka.consumer_groups import delete_group, remove_members, unread
from clipper_agents.kafka.topics import ensure_topics, existing_topics
from clipper_agents.supervisor.kafka_resources import KafkaResources
from clipper_topics import codec
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ModelManifest

pytestmark = pytest.mark.integration

MODEL = ModelManifest(name="svm", uri="m:f", replicas=2)
SESSION_MS = 30_000
"""Longer than any wait: what happens before its end did not wait for it."""


@pytest.fixture
def group(catalogue):
    return catalogue.host_group("svm", "1")


@pytest.fixture
async def topic(kafka, catalogue, at):
    """Of the requests, with one in it."""
    await ensure_topics(kafka, catalogue, [MODEL])
    topic = catalogue.requests("svm", "1")
    await at.send(topic, b"request")
    return topic


async def member(kafka, group, topic, instance):
    """A static member that has read the topic."""
    consumer = AIOKafkaConsumer(
        topic, **kafka.aiokafka(), group_id=group, group_instance_id=instance, enable_auto_commit=False,
        auto_offset_reset="earliest", session_timeout_ms=SESSION_MS,
    )  # fmt: skip
    await consumer.start()
    return consumer


async def test_a_group_has_read_all_once_the_end_of_each_partition_is_committed(kafka, catalogue, group, topic):
    assert not await unread(kafka, group, f"{topic}.none"), "no topic, so nothing to read"
    assert await unread(kafka, group, topic)
    consumer = await member(kafka, group, topic, "host-0")
    for offset, whole in ((0, False), (1, True)):
        await consumer.commit({TopicPartition(topic, 0): offset})
        assert (not await unread(kafka, group, topic)) is whole
    await consumer.stop()


async def test_the_group_of_ended_hosts_is_deleted_without_waiting_for_their_sessions(kafka, catalogue, group, topic):
    consumer = await member(kafka, group, topic, "host-0")
    assert not await delete_group(kafka, group, empty_within_s=0.0), "somebody is in it"
    await consumer.stop()
    await remove_members(kafka, group, ["host-0", "nobody"])
    assert await delete_group(kafka, group, empty_within_s=0.0)
    assert await delete_group(kafka, group), "one that is gone is fine"
    await remove_members(kafka, group, ["host-0"])


async def test_the_topic_of_a_version_is_not_deleted_under_hosts_of_somebody_else(
    kafka, catalogue, group, topic, caplog
):
    consumer = await member(kafka, group, topic, "by-hand")
    ground = KafkaResources(kafka, catalogue, empty_within_s=0.0)
    await ground.remove(MODEL)
    assert topic in await existing_topics(kafka, catalogue.prefix)
    assert any("hosts that are not ours" in one.getMessage() for one in caplog.records)
    await consumer.stop()
    await ground.evict(MODEL, ["by-hand"])
    await ground.remove(MODEL)
    assert topic not in await existing_topics(kafka, catalogue.prefix)


async def test_reports_are_written_in_order_and_the_last_one_before_the_end(kafka, catalogue, at):
    await ensure_topics(kafka, catalogue)
    reports = HostReports(kafka, catalogue.hosts)
    for state in ("starting", "ready", "draining"):
        reports.put(HostReport(model="svm:1", instance="a", state=state))
        reports.put(HostReport(model="svm:1", instance="b", state=state))
    reports.withdraw("svm:1", "a")
    assert reports.close(within_s=30)
    newest = {one.key: one.value for one in await at.read(catalogue.hosts)}
    assert newest[b"svm:1/a"] is None
    last = codec.host_reports.decode(newest[b"svm:1/b"])
    assert (last.state, last.at_ms > 0) == ("draining", True)
