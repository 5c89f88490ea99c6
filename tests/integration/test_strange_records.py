import asyncio
import struct

import pytest
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NotLeaderForPartitionError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from builders.rollout_logs import answered
from builders.router_deployment import MODELS, Deployment, app, total
from integration.live_traffic import learned
from integration.running_steward import RecordedChanges, steward, until, writing
from integration.test_log_readers import read
from kafka_fixture import temporary_topics

from clipper_agents import exits
from clipper_topics.manifests import ApplicationManifest, Trial

STRANGE = [
    (b"k", b"{}", [("strange", b"x")]),
    (b"k", b"{}", [("strange", None), ("content-type", None), ("clipper-forwarded", None)]),
    (b"k", b"{}", [("content-type", b"\xff\xfe")]),
    (b"k", b"{}", [("clipper-restore", None)]),
    (b"\xff\0", b'{"query_id": "\xff", "application": "app"}', []),
    (b"\xff\0", b"\xff\xfe\0", [("content-type", b"application/msgpack")]),
    (None, b"{}", []),
    (b"k", None, []),
    (None, None, []),
]
"""Without the keys of compacted topics, what brokers take of anybody."""


def batch_of(records):
    """A batch of keys, values and headers; what is called `strange` gets a name that is no UTF-8."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    for offset, (key, value, headers) in enumerate(records):
        builder.append(offset, 1_000, key, value, headers)
    batch = bytearray(bytes(builder.build()).replace(b"strange", b"\xfftrange"))
    crc_at, crc_of = 17, 21
    struct.pack_into(">I", batch, crc_at, calc_crc32c(memoryview(bytes(batch))[crc_of:]))
    return bytes(batch)


async def store(kafka, topic, batch):
    """Put a batch into partition 0, as it is."""
    client = AIOKafkaClient(bootstrap_servers=kafka.bootstrap)
    await client.bootstrap()
    try:
        await client.force_metadata_update()
        (node,) = {broker.nodeId for broker in client.cluster.brokers()}
        request = ProduceRequest(transactional_id=None, required_acks=1, timeout=10_000, topics=[(topic, [(0, batch)])])
        error_code = NotLeaderForPartitionError.errno
        while error_code == NotLeaderForPartitionError.errno:  # the topic is new
            response = await client.send(node, request)
            ((_, ((_, error_code, *_),)),) = response.topics
        assert error_code == 0, response
    finally:
        await client.close()


@pytest.fixture(scope="module")
def catalogue(kafka):
    """The topics of all tests, with strange records in each."""
    with temporary_topics(kafka) as own:
        asyncio.run(store_strange(kafka, own))
        yield own


async def store_strange(kafka, catalogue):
    await Deployment(kafka, catalogue, None).declare(app(models=["m:1"]), MODELS[0])
    for topic in (catalogue.queries, catalogue.feedback, catalogue.predictions, catalogue.audits):
        await store(kafka, topic, batch_of(STRANGE))
    for topic in (catalogue.control, catalogue.hosts, catalogue.selection):
        await store(kafka, topic, batch_of(one for one in STRANGE if one[0] is not None))


async def test_a_router_answers_and_learns_behind_whatever_others_wrote(kafka, catalogue, at):
    async with at.router(), at.host({"m:1": total}):
        await at.ask({"query_id": "q", "input": [1, 2]})
        await at.tell({"query_id": "q", "label": 3})
        await learned(at, 1)
    answers = [one for one in await read(kafka, catalogue.predictions) if b'"query_id":"q"' in (one.value or b"")]
    assert len(answers) == 1


@pytest.mark.parametrize(
    ("command", "code"),
    [
        ("status", exits.FAILURE),
        ("replay verify", exits.OK),
        ("replay export app --since 1h --out app.parquet", exits.OK),
        ("replay produce --since 1h --speed 0 --to {prefix}", exits.OK),
        ("dead-letters list", exits.OK),
        ("selection show app", exits.OK),
    ],
)
def test_a_command_reads_whatever_others_wrote(shell, catalogue, command, code):
    done = shell.run(*command.format(prefix=catalogue.prefix).split())
    assert (done.code, [line for line in done.err if line.startswith(("error", "Traceback"))]) == (code, []), done


async def test_a_steward_compares_behind_whatever_others_wrote(kafka, catalogue):
    changes = RecordedChanges(kafka, catalogue)
    await changes.create(ApplicationManifest(name="tried", models=["old:1"], trials=[Trial(model="new:1")]))
    async with writing(kafka, catalogue) as logs, steward(kafka, catalogue, changes) as (process, _):
        await logs.queries(10, [answered("old:1", 0)], [answered("new:1", 1)], application="tried")
        await until("all of it", lambda: [one.feedbacks for one in process.comparisons if one.feedbacks])
