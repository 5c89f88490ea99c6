import json
from contextlib import nullcontext

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import RecordsToDelete
from aiokafka.errors import MessageSizeTooLargeError
from builders.router_deployment import publish_manifests
from confluent_kafka import Producer
from integration.running_steward import read_comparisons, to_the_end

from clipper_agents.control.state import read_control
from clipper_agents.kafka.clients import administration
from clipper_agents.kafka.reader import Range, open_reader
from clipper_agents.replay.rerun import in_time_order, ranges_of
from clipper_agents.replay.span import Span
from clipper_agents.replay.verify import read_known
from clipper_agents.rollout.log_tailer import MergedLogTailer
from clipper_agents.status.collect import read_status
from clipper_topics import codec
from clipper_topics.control_keys import application_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial

pytestmark = pytest.mark.faults


async def read(kafka, topic):
    async with open_reader(kafka, isolation_level="read_uncommitted") as reader:
        return await reader.read_all([TopicPartition(topic, 0)])


# --- transactions ---------------------------------------------------------------------------------------------------
async def test_a_transaction_that_was_aborted_is_seen_by_nobody(kafka, catalogue, at):
    models = [ModelManifest(name="svm", version=version, uri="m:f") for version in "12"]
    digits, ghost = (
        ApplicationManifest(name=name, models=["svm:1"], trials=[Trial(model="svm:2")], revision=1)
        for name in ("digits", "ghost")
    )
    await publish_manifests(kafka, catalogue, [digits, *models])
    truths = [{"query_id": f"q{number}", "label": number} for number in range(20)]
    async with at.producer(transactional_id=f"{catalogue.prefix}.ghost") as producer:
        for commits in (False, True):
            await producer.begin_transaction()
            for one in truths:
                await producer.send(catalogue.feedback, json.dumps(one).encode(), partition=0)
            if commits:
                await producer.commit_transaction()
                continue
            value = codec.applications.encode(ghost)
            await (await producer.send(catalogue.control, value, application_key(ghost.name), partition=0))
            await producer.abort_transaction()

    state = await read_control(kafka, catalogue)
    assert list(state.manifests.applications) == ["digits"]
    assert list((await read_status(kafka, catalogue)).applications) == ["digits"]
    assert {one.application for one in await read_comparisons(kafka, catalogue, state)} == {"digits"}
    async with open_reader(kafka) as reader:
        assert list((await read_known(reader, catalogue, 3600.0)).configs) == ["digits"]
    tailer = MergedLogTailer(kafka, catalogue)
    await tailer.start(0)
    of_rollouts = [one async for _, one in to_the_end(tailer)]
    await tailer.stop()
    async with open_reader(kafka) as reader:
        ranges = await ranges_of(reader, catalogue, Span())
        of_replays = [one async for _, one in in_time_order(reader, ranges)]
    for found in (of_rollouts, of_replays):
        assert [json.loads(one.value) for one in found] == truths


# --- positions ------------------------------------------------------------------------------------------------------
async def read_range(at, tp, wanted, after=None):
    """Offsets that are read of a range; `after` happens when the first fetch has brought nothing."""
    async with open_reader(at.kafka) as reader:
        reader.assign({tp: wanted})
        found = (await reader.fetch(wait_s=1.0)).get(tp, [])
        if after is not None:
            assert found == []
            await after
        while reader.unread:
            found += (await reader.fetch(wait_s=0.1)).get(tp, [])
        return [one.offset for one in found]


async def test_a_reader_goes_on_behind_deleted_records_and_waits_behind_the_end_of_a_log(at, caplog):
    deleted, short = (TopicPartition(at.catalogue.feedback, number) for number in (0, 1))
    await at.send(deleted.topic, *range(10), partition=0)
    await at.send(short.topic, *range(3), partition=1)
    async with administration(at.kafka) as admin:
        await admin.delete_records({deleted: RecordsToDelete(before_offset=5)})
    assert await read_range(at, deleted, Range(2, 10)) == [5, 6, 7, 8, 9]
    assert "offset=2: records up to 4 were deleted before they were read" in caplog.text
    assert await read_range(at, short, Range(5, 7), at.send(short.topic, *range(4), partition=1)) == [5, 6]
    assert "offset=5: the log ends at 3" in caplog.text


# --- batches of clients of other languages --------------------------------------------------------------------------
async def test_records_are_read_however_a_client_compresses_them(kafka, catalogue):
    """What applications write is stored plain, all else as the cluster says."""
    topics, kinds = ("queries", "feedback", "control", "predictions"), ("gzip", "snappy", "lz4", "zstd")
    for kind in kinds:
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "compression.type": kind})
        for topic in topics:
            producer.produce(getattr(catalogue, topic), kind.encode() * 2_000, b"k", 0)
        assert producer.flush(60) == 0
    for topic in topics:
        found = await read(kafka, getattr(catalogue, topic))
        assert [one.value for one in found] == [kind.encode() * 2_000 for kind in kinds], topic


async def test_a_compressed_batch_is_bounded_by_its_size_unpacked(catalogue, at):
    async with at.producer(compression_type="zstd", max_batch_size=8_000_000) as producer:
        for records, refusal in ((2, nullcontext()), (3, pytest.raises(MessageSizeTooLargeError))):
            batch = producer.create_batch()
            for _ in range(records):
                assert batch.append(key=b"k", value=b"v" * 400_000, timestamp=None)
            sent = await producer.send_batch(batch, catalogue.queries, partition=0)
            with refusal:
                await sent


async def test_a_batch_that_unpacks_to_more_than_any_process_should_hold_is_skipped_and_logged(catalogue, at, caplog):
    """Where a provider keeps what clients have compressed."""
    async with at.producer(compression_type="zstd", max_batch_size=99_000_000) as producer:
        for values in ([bytes(7_000_000)] * 6, [bytes(7_000_000)] * 4, [b"small"]):
            batch = producer.create_batch()
            for value in values:
                assert batch.append(key=None, value=value, timestamp=None)
            await (await producer.send_batch(batch, catalogue.predictions, partition=0))
    found = await read(at.kafka, catalogue.predictions)
    assert [len(record.value) for record in found] == [7_000_000] * 4 + [5]
    assert "record batch cannot be read and is skipped" in caplog.text
    assert "offsets=0..5" in caplog.text
