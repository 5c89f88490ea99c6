"""A host process answers request frames on the outputs topic, and loses none however it ends."""

import asyncio
import json
import os
import re
import signal
import sys
from contextlib import asynccontextmanager

import numpy as np
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from builders.host import request, rows_of

from clipper_agents.kafka.topics import ensure_topics
from clipper_agents.observability.exposition import scrape
from clipper_topics.frames import decode_output, encode_frame
from clipper_topics.manifests import InputSpec, ModelManifest

pytestmark = pytest.mark.integration

MODELS = "clipper_agents.examples.models"
READY_S = 120


class Host:
    """A host process."""

    def __init__(self, process):
        self.process = process
        self.line = ""

    @property
    def metrics_port(self):
        return int(re.search(r"metrics=(\d+)", self.line).group(1))

    async def ready(self):
        self.line = (await asyncio.wait_for(self.process.stdout.readline(), READY_S)).decode()
        assert self.line.startswith("ready role=host "), self.line

    async def ended(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), READY_S)


class Setting:
    """A model's topic and what a router would have: a producer and a reader of all outputs."""

    def __init__(self, kafka, catalogue, model, folder):
        self.kafka, self.catalogue, self.model, self.folder = kafka, catalogue, model, folder
        self.requests = catalogue.requests(model.name, model.version)
        self.group = catalogue.host_group(model.name, model.version)

    @asynccontextmanager
    async def host(self, name="host-0"):
        config = self.folder / f"{name}.json"
        model = {"name": self.model.name, "uri": self.model.uri, "parameters": self.model.parameters}
        model |= {"input": {"shape": self.model.input.shape}, "batch": {"target_ms": 20, "max_rows": 64}}
        kafka = {"bootstrap": self.kafka.bootstrap, "prefix": self.catalogue.prefix, "partitions": 2}
        config.write_text(json.dumps({"kafka": kafka, "model": [model], "host": {"data_dir": str(self.folder)}}))
        command = ["-m", "clipper_agents.cli.main", "worker", "host", self.model.ref]
        process = await asyncio.create_subprocess_exec(
            sys.executable, *command, "--instance", name, "--config", str(config),
            stdout=asyncio.subprocess.PIPE, stderr=(self.folder / f"{name}.log").open("ab"), env=os.environ,
        )  # fmt: skip
        try:
            yield Host(process)
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()

    async def ask(self, frames, partition=0):
        async with AIOKafkaProducer(**self.kafka.aiokafka()) as producer:
            for frame in frames:
                value = frame if isinstance(frame, bytes) else encode_frame(frame)
                await producer.send_and_wait(self.requests, value, partition=partition)

    async def outputs(self, rows):
        """All pieces, by partition, until so many rows are answered."""
        partitions = [TopicPartition(self.catalogue.outputs, number) for number in range(2)]
        found, seen = [], set()
        async with asyncio.timeout(READY_S), self.reader(partitions) as consumer:
            while len(seen) < rows:
                record = await consumer.getone()
                piece = decode_output(record.value)
                found.append((record.partition, piece))
                seen |= {(piece.frame, piece.row0 + place) for place in range(len(piece.outputs))}
        return found

    @asynccontextmanager
    async def reader(self, partitions):
        async with AIOKafkaConsumer(**self.kafka.aiokafka(), auto_offset_reset="earliest") as consumer:
            consumer.assign(partitions)
            yield consumer

    async def committed(self):
        admin = AIOKafkaAdminClient(**self.kafka.aiokafka())
        await admin.start()
        try:
            found = await admin.list_consumer_group_offsets(self.group)
        finally:
            await admin.close()
        return {tp.partition: offset.offset for tp, offset in found.items()}


@pytest.fixture
def setting(kafka, catalogue, tmp_path):
    async def make(attribute, *, replicas=1, parameters=None):
        model = ModelManifest(
            name="m", uri=f"{MODELS}:{attribute}", replicas=replicas,
            parameters=parameters or {}, input=InputSpec(shape=[3]),
        )  # fmt: skip
        await ensure_topics(kafka, catalogue, [model])
        return Setting(kafka, catalogue, model, tmp_path)

    return make


def matrix(number, rows=5):
    return np.arange(rows * 3).reshape(rows, 3) + number


def frames_of(count, rows=5):
    return [request(matrix(number, rows), frame=number, dtype="float32", reply=number % 2) for number in range(count)]


def sums_of(count, rows=5):
    return {
        (number, row): float(total) for number in range(count) for row, total in enumerate(matrix(number, rows).sum(1))
    }


async def test_a_host_answers_to_the_partition_that_asked_and_commits_what_it_answered(setting):
    own = await setting("sum_of_row")
    async with own.host() as host:
        await host.ready()
        assert host.line.split()[:4] == ["ready", "role=host", "model=m:1", "instance=host-0"]
        await own.ask(frames_of(50))
        pieces = await own.outputs(250)
        assert {key: answers for key, (answers,) in rows_of(piece for _, piece in pieces).items()} == sums_of(50)
        assert all(partition == piece.frame % 2 for partition, piece in pieces)
        found = await asyncio.to_thread(scrape, host.metrics_port)
        assert found.value("clipper_rows_total", outcome="ok") == 250
        assert await host.ended() == 0
    assert await own.committed() == {0: 50}


async def test_what_is_no_frame_is_kept_with_the_reason_and_the_rest_answered(setting):
    own = await setting("sum_of_row")
    beyond = request(matrix(0), frame=7, dtype="float32", reply=9)
    async with own.host() as host:
        await host.ready()
        await own.ask([b"no frame", *frames_of(2), beyond, b""])
        await own.outputs(10)
        assert await host.ended() == 0
    assert await own.committed() == {0: 5}
    letters = TopicPartition(own.catalogue.dead_letters, 0)
    async with own.reader([letters]) as consumer:
        kept = [await asyncio.wait_for(consumer.getone(), READY_S) for _ in range(3)]
    assert [letter.value for letter in kept] == [b"no frame", encode_frame(beyond), b""]
    assert [dict(letter.headers)["__streams.errors.offset"] for letter in kept] == [b"0", b"3", b"4"]


async def test_a_killed_host_has_lost_nothing_when_the_next_one_has_run(setting):
    own = await setting("slow", parameters={"seconds_per_batch": 0.02})
    async with own.host() as host:
        await host.ready()
        await own.ask(frames_of(60))
        await own.outputs(20)
        await host.ended(signal.SIGKILL)
    async with own.host() as host:
        answers = rows_of(piece for _, piece in await own.outputs(300))
        assert {key: set(found) for key, found in answers.items()} == {
            key: {total} for key, total in sums_of(60).items()
        }
        async with asyncio.timeout(READY_S):  # the first may have answered rows that the next has not read yet
            while await own.committed() != {0: 60}:
                await asyncio.sleep(0.1)
        assert await host.ended() == 0
    assert await own.committed() == {0: 60}


async def test_replicas_share_the_partitions_and_one_takes_over_from_the_other(setting):
    own = await setting("sum_of_row", replicas=2)
    async with own.host("a") as first, own.host("b") as second:
        await first.ready()
        await second.ready()
        await own.ask(frames_of(10), partition=0)
        await own.ask(frames_of(20)[10:], partition=1)
        await own.outputs(100)
        assert await first.ended() == 0
        await own.ask(frames_of(40)[20:], partition=0)
        await own.ask(frames_of(60)[40:], partition=1)
        await own.outputs(300)
        assert await second.ended() == 0
    assert await own.committed() == {0: 30, 1: 30}


async def test_a_failing_row_is_answered_with_the_reason(setting):
    own = await setting("flaky", parameters={"failing_ratio": 1.0})
    async with own.host() as host:
        await host.ready()
        await own.ask(frames_of(1))
        failures = [failure for _, piece in await own.outputs(5) for failure in piece.failed]
        failures.sort(key=lambda failure: failure.row)  # batches of one frame go out as they are done
        assert [(failure.row, failure.reason) for failure in failures] == [(row, "error") for row in range(5)]
        assert failures[0].explanation == "ValueError: row 0 is one that this model cannot stand"
        assert await host.ended() == 0


async def test_a_model_that_cannot_be_loaded_ends_the_process_with_one_line(setting):
    own = await setting("no_such_model")
    async with own.host() as host:
        assert await asyncio.wait_for(host.process.wait(), READY_S) == 3
    (line,) = [line for line in (own.folder / "host-0.log").read_text().splitlines() if line.startswith("error")]
    assert "there is no no_such_model; clipper_agents.examples.models has" in line
