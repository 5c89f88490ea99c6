"""What clients of other languages may put into a record, and a consumer of ours has to survive."""

import asyncio
import struct
from collections.abc import Iterable, Sequence

import pytest
from aiokafka import TopicPartition
from aiokafka.client import AIOKafkaClient
from aiokafka.errors import NotLeaderForPartitionError
from aiokafka.protocol.produce import ProduceRequest
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.util import calc_crc32c
from builders.rollout_logs import RecordedChanges, answered, steward, writing
from builders.rollout_logs import until as steward_until
from builders.router_deployment import publish_manifests
from confluent_kafka import KafkaError, Producer
from e2e.programs import until

from clipper_agents import exits
from clipper_agents.control.selection_states import read_rows
from clipper_agents.kafka.reader import Record, open_reader
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, Trial

pytestmark = pytest.mark.integration

_CRC_AT, _CRC_OF = 17, 21
Headers = Sequence[tuple[str, bytes | None]]


async def read(kafka: KafkaConnection, topic: str) -> list[Record]:
    async with open_reader(kafka, isolation_level="read_uncommitted") as reader:
        return await reader.read_all([TopicPartition(topic, 0)])


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
@pytest.mark.parametrize("name", ["queries", "feedback", "control", "predictions"])
async def test_records_are_read_however_a_client_compresses_them(kafka, catalogue: Catalogue, codec: str, name: str):
    topic = getattr(catalogue, name)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "compression.type": codec})
    producer.produce(topic, b"v" * 10_000, b"k", 0)
    assert producer.flush(60) == 0  # what applications write is stored plain, all else as the cluster says
    (record,) = await read(kafka, topic)
    assert record.value == b"v" * 10_000


@pytest.mark.parametrize(("records", "errors"), [(2, {None}), (3, {KafkaError.MSG_SIZE_TOO_LARGE})])
async def test_a_compressed_batch_is_bounded_by_its_size_unpacked(kafka, catalogue: Catalogue, records, errors):
    large = {"message.max.bytes": 8_000_000, "batch.size": 8_000_000, "linger.ms": 60_000, "compression.type": "zstd"}
    producer, found = Producer({"bootstrap.servers": kafka.bootstrap, **large}), []
    for _ in range(records):
        producer.produce(
            catalogue.queries,
            b"v" * 400_000,
            b"k",
            0,
            on_delivery=lambda error, _: found.append(error and error.code()),
        )
    assert producer.flush(60) == 0
    assert (len(found), set(found)) == (records, errors)


def batch_of(records: Iterable[tuple[bytes | None, bytes | None, Headers]]) -> bytes:
    """A batch of keys, values and headers; what is called `strange` gets a name that is no UTF-8."""
    builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
    for offset, (key, value, headers) in enumerate(records):
        builder.append(offset, 1_000, key, value, headers)
    batch = bytearray(bytes(builder.build()).replace(b"strange", b"\xfftrange"))
    struct.pack_into(">I", batch, _CRC_AT, calc_crc32c(memoryview(bytes(batch))[_CRC_OF:]))
    return bytes(batch)


async def store(kafka: KafkaConnection, topic: str, batch: bytes) -> None:
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


async def test_a_header_whose_name_is_no_utf_8_stops_no_consumer(kafka, catalogue: Catalogue):
    records = [(b"k", b"%d" % number, [("strange", b"x")] if number == 1 else []) for number in range(3)]
    await store(kafka, catalogue.queries, batch_of(records))
    found = await read(kafka, catalogue.queries)
    assert [one.value for one in found] == [b"0", b"1", b"2"]
    assert found[1].headers == (("\ufffdtrange", b"x"),)


# --- each reader of what applications write -------------------------------------------------------------------------
STRANGE: list[tuple[bytes | None, bytes | None, Headers]] = [
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


async def store_strange(kafka: KafkaConnection, catalogue: Catalogue) -> None:
    batch = batch_of(STRANGE)
    for topic in (catalogue.queries, catalogue.feedback, catalogue.predictions, catalogue.audits):
        await store(kafka, topic, batch)
    for topic in (catalogue.control, catalogue.hosts, catalogue.selection):
        await store(kafka, topic, batch_of(one for one in STRANGE if one[0] is not None))


APP = ApplicationManifest(name="app", models=["m:1"], input=InputSpec(shape=[2]), objective_ms=60_000)


async def test_a_router_answers_and_learns_behind_whatever_others_wrote(kafka, catalogue: Catalogue, at):
    await at.declare(APP, ModelManifest(name="m", uri="x:y", input=InputSpec(shape=[2])))
    await store_strange(kafka, catalogue)
    async with at.router() as router, at.host({"m:1": lambda row: int(row.sum())}):
        await at.ask({"query_id": "q", "input": [1, 2]})
        await at.send(catalogue.feedback, {"query_id": "q", "label": 3})

        def learned() -> float:
            rows = asyncio.run(read_rows(kafka, catalogue, "app"))
            return sum(row.totals["m:1"][0] for row in rows if "m:1" in row.totals)

        await asyncio.to_thread(until, "the feedback to count", learned)
        assert router.process.returncode is None, router.log
    answers = [one for one in await read(kafka, catalogue.predictions) if b'"query_id":"q"' in (one.value or b"")]
    assert len(answers) == 1


@pytest.mark.parametrize(
    "command",
    [
        "status",
        "replay verify app",
        "replay restore app --offsets 0:9,1:0 --dry-run",
        "replay export app --since 1h --out app.parquet",
        "replay produce --since 1h --speed max --yes",
        "replay produce --since 1h --speed max --yes --topic feedback",
        "dead-letters list",
        "selection show app",
    ],
)
def test_a_command_reads_whatever_others_wrote(kafka, catalogue: Catalogue, shell, command: str):
    asyncio.run(publish_manifests(kafka, catalogue, [APP, ModelManifest(name="m", uri="x:y")]))
    asyncio.run(store_strange(kafka, catalogue))
    done = shell.run(*command.split())
    assert done.code in (exits.OK, exits.FAILURE), done
    assert not [line for line in done.err if line.startswith(("error", "Traceback"))], done.err


async def test_a_steward_compares_behind_whatever_others_wrote(kafka, catalogue: Catalogue):
    tried = ApplicationManifest(name="app", models=["old:1"], trials=[Trial(model="new:1")])
    changes = RecordedChanges(kafka, catalogue)
    await changes.create(tried)
    await store_strange(kafka, catalogue)
    async with writing(kafka, catalogue) as logs, steward(kafka, catalogue, changes) as (process, _):
        await logs.queries(10, [answered("old:1", 0)], [answered("new:1", 1)], application="app")
        await steward_until("all of it", lambda: [one.feedbacks for one in process.comparisons if one.feedbacks])
