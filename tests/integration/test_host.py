import asyncio
import signal

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from builders.host import request, rows_of
from builders.router_deployment import WITHIN_S, Deployment

from clipper_agents import exits
from clipper_agents.control.host_reports import HostReports
from clipper_agents.kafka.clients import administration
from clipper_agents.kafka.consumer_groups import delete_group, remove_members, unread
from clipper_agents.kafka.topics import ensure_topics, existing_topics
from clipper_agents.observability.exposition import scrape
from clipper_agents.supervisor.kafka_resources import KafkaResources
from clipper_topics import codec
from clipper_topics.codec import decode_output, encode_frame
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import InputSpec, ModelManifest

ROWS = 5


class Host(Deployment):
    """A model's topic and what a router would have: a producer and a reader of all outputs."""

    async def serve(self, attribute, *, replicas=1, **parameters):
        self.model = {
            "name": "m", "uri": f"clipper_agents.examples.models:{attribute}", "parameters": parameters,
            "input": {"shape": [3]}, "batch": {"target_ms": 20, "max_rows": 64},
        }  # fmt: skip
        manifest = ModelManifest(name="m", uri=self.model["uri"], replicas=replicas, input=InputSpec(shape=[3]))
        await ensure_topics(self.kafka, self.catalogue, [manifest])
        self.requests = self.catalogue.requests("m", "1")

    def process(self, name="host-0", **options):
        sections = {"model": [self.model], "host": {"data_dir": str(self.folder)}}
        return self.worker("host", "m:1", name=name, **options, **sections)

    async def request(self, *frames, partition=0):
        values = [one if isinstance(one, bytes) else encode_frame(one) for one in frames]
        await self.send(self.requests, *values, partition=partition)

    async def outputs(self, rows):
        """All pieces, by partition, until so many rows are answered."""
        found, seen = [], set()
        async with asyncio.timeout(WITHIN_S), AIOKafkaConsumer(
            **self.kafka.aiokafka(), auto_offset_reset="earliest"
        ) as consumer:  # fmt: skip
            consumer.assign([TopicPartition(self.catalogue.outputs, number) for number in range(2)])
            while len(seen) < rows:
                record = await consumer.getone()
                piece = decode_output(record.value)
                found.append((record.partition, piece))
                seen |= {(piece.frame, piece.row0 + place) for place in range(len(piece.outputs))}
        return found

    async def committed(self):
        async with administration(self.kafka) as admin:
            found = await admin.list_consumer_group_offsets(self.catalogue.host_group("m", "1"))
        return {tp.partition: offset.offset for tp, offset in found.items()}


@pytest.fixture
def own(kafka, catalogue, tmp_path):
    return Host(kafka, catalogue, tmp_path)


def matrix(number):
    return np.arange(ROWS * 3).reshape(ROWS, 3) + number


def frames(*numbers):
    return [request(matrix(number), frame=number, dtype="float32", reply=number % 2) for number in range(*numbers)]


def sums_of(count):
    return {(number, row): float(one) for number in range(count) for row, one in enumerate(matrix(number).sum(1))}


async def test_a_host_answers_to_the_partition_that_asked_and_commits_what_it_answered(own):
    await own.serve("sum_of_row")
    beyond = request(matrix(0), frame=50, dtype="float32", reply=9)
    async with own.process() as host:
        fields = await host.ready()
        assert (fields["role"], fields["model"], fields["instance"]) == ("host", "m:1", "host-0")
        await own.request(b"no frame", *frames(50), beyond, b"")
        pieces = await own.outputs(50 * ROWS)
        assert {key: answers for key, (answers,) in rows_of(piece for _, piece in pieces).items()} == sums_of(50)
        assert all(partition == piece.frame % 2 for partition, piece in pieces)
        found = await asyncio.to_thread(scrape, int(fields["metrics"]))
        assert found.value("clipper_rows_total", outcome="ok") == 50 * ROWS
    assert await own.committed() == {0: 53}
    kept = await own.read(own.catalogue.dead_letters)
    assert [(one.value, one.headers["__streams.errors.offset"]) for one in kept] == [
        (b"no frame", b"0"), (encode_frame(beyond), b"51"), (b"", b"52"),
    ]  # fmt: skip


@pytest.mark.slow  # the session of a static member is waited for
async def test_replicas_share_the_partitions_and_one_takes_over_from_the_other(own):
    await own.serve("sum_of_row", replicas=2)
    async with own.process("a") as first, own.process("b"):
        for number in (0, 1):
            await own.request(*frames(number * 10, number * 10 + 10), partition=number)
        await own.outputs(20 * ROWS)
        assert await first.ended(signal.SIGTERM) == exits.OK
        for number in (0, 1):
            await own.request(*frames(20 + number * 20, 40 + number * 20), partition=number)
        await own.outputs(60 * ROWS)
    assert await own.committed() == {0: 30, 1: 30}


async def test_a_model_that_cannot_be_loaded_ends_the_process_with_one_line(own):
    await own.serve("no_such_model")
    async with own.process(ready=False) as host:
        assert await host.ended() == exits.SETUP
    (line,) = [line for line in host.lines if line.startswith("error")]
    assert "there is no no_such_model in clipper_agents.examples.models: use one of" in line


# --- what a supervisor does to the group of hosts, and says in their place -----------------------------------------
SVM = ModelManifest(name="svm", uri="m:f", replicas=2)
SESSION_MS = 30_000
"""Longer than any wait: what happens before its end did not wait for it."""


@pytest.fixture
def group(catalogue):
    return catalogue.host_group("svm", "1")


@pytest.fixture
async def topic(kafka, catalogue, at):
    await ensure_topics(kafka, catalogue, [SVM])
    topic = catalogue.requests("svm", "1")
    await at.send(topic, b"request")
    return topic


async def member(kafka, group, topic, instance):
    consumer = AIOKafkaConsumer(
        topic, **kafka.aiokafka(), group_id=group, group_instance_id=instance, enable_auto_commit=False,
        auto_offset_reset="earliest", session_timeout_ms=SESSION_MS,
    )  # fmt: skip
    await consumer.start()
    return consumer


async def test_a_group_that_has_read_all_is_deleted_without_waiting_for_the_sessions_of_ended_hosts(
    kafka, group, topic
):
    assert not await unread(kafka, group, f"{topic}.none"), "no topic, so nothing to read"
    assert await unread(kafka, group, topic)
    consumer = await member(kafka, group, topic, "host-0")
    for offset, whole in ((0, False), (1, True)):
        await consumer.commit({TopicPartition(topic, 0): offset})
        assert (not await unread(kafka, group, topic)) is whole
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
    await ground.remove(SVM)
    assert topic in await existing_topics(kafka, catalogue.prefix)
    assert any("hosts that are not ours" in one.getMessage() for one in caplog.records)
    await consumer.stop()
    await ground.evict(SVM, ["by-hand"])
    await ground.remove(SVM)
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
