"""A router process with a stand-in for hosts and for applications around it, on a real Kafka."""

import asyncio
import json
import os
import signal
import sys
from collections import defaultdict
from contextlib import asynccontextmanager
from dataclasses import dataclass

import msgspec
import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from clipper_agents.control.apply import apply_manifests
from clipper_agents.control.plan import Edit, Plan
from clipper_agents.control.writer import change_control
from clipper_agents.kafka.topics import ensure_topics
from clipper_topics import codec
from clipper_topics.control_keys import parse_key
from clipper_topics.frames import FailedRow, OutputFrame, decode_request, encode_frame
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.manifests import ModelManifest

WITHIN_S = 90
"""A start takes three seconds on an idle machine; other people's tests may share it."""


@dataclass(frozen=True)
class Read:
    """A record of any topic, as `oracle` reads it."""

    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: dict[str, bytes]
    timestamp_ms: int = 0

    @property
    def content(self):
        return msgspec.json.decode(self.value or b"")


class RunningRouter:
    """A router process."""

    def __init__(self, process, log):
        self.process, self.line, self._log = process, "", log

    async def ready(self):
        self.line = (await asyncio.wait_for(self.process.stdout.readline(), WITHIN_S)).decode()
        assert self.line.startswith("ready role=router "), f"{self.line}\n{self.log}"

    async def ended(self, number=None):
        if number is not None:
            self.process.send_signal(number)
        return await asyncio.wait_for(self.process.wait(), WITHIN_S)

    @property
    def log(self):
        return self._log.read_text()[-6000:]


async def publish_manifests(kafka, catalogue, manifests, signature=None):
    """Publish models before the applications that name them; what is there already is not written again."""
    given = list(manifests)
    models = [one for one in given if isinstance(one, ModelManifest)]
    await apply_manifests(kafka, catalogue, [one for one in given if one not in models], models, signature)


async def withdraw_manifests(kafka, catalogue, keys, signature=None):
    """Take manifests away, by their keys on the control topic."""
    named = [parse_key(key) for key in keys]

    def decide(state):
        there = state.manifests.applications
        edits = (
            Edit(application=name, command="delete", before=there[name])
            for kind, name in named
            if kind == "application" and name in there
        )
        gone = tuple(name for kind, name in named if kind == "model" and name in state.manifests.models)
        return Plan(edits=tuple(edits), withdrawn=gone)

    await change_control(kafka, catalogue, decide, signature)


class Deployment:
    """Topics, manifests, and whoever uses them."""

    def __init__(self, kafka, catalogue, folder):
        self.kafka, self.catalogue, self.folder = kafka, catalogue, folder

    async def declare(self, *manifests, ready=True):
        """Publish manifests, of models that have hosts with the report of a stand-in that says it is ready."""
        models = [manifest for manifest in manifests if hasattr(manifest, "ref")]
        await ensure_topics(self.kafka, self.catalogue, models)
        if ready:
            await self.report(*(HostReport(model=one.ref, instance="stand-in", state="ready") for one in models))
        await publish_manifests(self.kafka, self.catalogue, manifests)

    async def report(self, *reports):
        async with self.producer() as producer:
            for one in reports:
                key, value = report_key(one.model, one.instance), codec.host_reports.encode(one)
                await producer.send_and_wait(self.catalogue.hosts, value, key, partition=0)

    @asynccontextmanager
    async def router(self, name="router-0", *, ready=True, **settings):
        """Run a router for the time of the block; one that still runs at its end is killed."""
        config, log = self.folder / f"{name}.json", self.folder / f"{name}.log"
        kafka = {
            "bootstrap": self.kafka.bootstrap,
            "prefix": self.catalogue.prefix,
            "partitions": self.catalogue.partitions,
        }
        config.write_text(json.dumps({"kafka": kafka, "router": {"data_dir": str(self.folder / "data"), **settings}}))
        with log.open("ab") as stderr:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "clipper_agents.cli.main", "worker", "router",
                "--instance", name, "--config", str(config),
                stdout=asyncio.subprocess.PIPE, stderr=stderr, env=os.environ,
            )  # fmt: skip
        running = RunningRouter(process, log)
        try:
            if ready:
                await running.ready()
            yield running
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
            await process.wait()

    @asynccontextmanager
    async def host(self, models):
        """Answer requests for the time of the block.

        Args:
            models: From reference to a function of a row; one that raises fails the row, and None never answers.
        """
        topics = {self.catalogue.requests(*ref.split(":")): model for ref, model in models.items()}
        async with (
            AIOKafkaConsumer(*topics, **self.kafka.aiokafka(), auto_offset_reset="earliest") as consumer,
            AIOKafkaProducer(**self.kafka.aiokafka()) as producer,
        ):

            async def serve():
                async for record in consumer:
                    if topics[record.topic] is not None:
                        frame = decode_request(record.value)
                        value = encode_frame(predicted(frame, topics[record.topic]))
                        await producer.send_and_wait(self.catalogue.outputs, value, partition=frame.reply)

            serving = asyncio.create_task(serve())
            try:
                yield
            finally:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)

    @asynccontextmanager
    async def producer(self, **settings):
        async with AIOKafkaProducer(**self.kafka.aiokafka(), **settings) as producer:
            yield producer

    async def send(self, topic, *values, partition=0, headers=None, key=None):
        """Produce values: bytes as they are, anything else as JSON. Their offsets."""
        async with self.producer() as producer:
            sent = [
                await producer.send(
                    topic, value if isinstance(value, bytes) else json.dumps(value).encode(),
                    partition=partition, headers=headers, key=key,
                )
                for value in values
            ]  # fmt: skip
            return [(await one).offset for one in sent]

    async def ask(self, *queries, **place):
        """Ask; a query without an application asks `app`."""
        named = [query if isinstance(query, bytes) else {"application": "app"} | query for query in queries]
        return await self.send(self.catalogue.queries, *named, **place)

    async def read(self, topic, holds=lambda records: True, numbers=None):
        """All records of a topic, or of some partitions of it, read on until they are as wanted."""
        partitions = [TopicPartition(topic, number) for number in numbers or range(self._count(topic))]
        found = []
        async with AIOKafkaConsumer(
            **self.kafka.aiokafka(), auto_offset_reset="earliest", isolation_level="read_committed"
        ) as consumer:
            consumer.assign(partitions)
            ends = await consumer.end_offsets(partitions)
            async with asyncio.timeout(WITHIN_S):
                while await self._behind(consumer, ends) or not holds(found):
                    for records in (await consumer.getmany(timeout_ms=100)).values():
                        found += [
                            Read(r.partition, r.offset, r.key, r.value, dict(r.headers), r.timestamp) for r in records
                        ]
        return sorted(found, key=lambda record: (record.partition, record.offset))

    def _count(self, topic):
        shared = {spec.name: spec.partitions for spec in self.catalogue.fixed_topics()}
        return shared.get(topic, 1)

    @staticmethod
    async def _behind(consumer, ends):
        return any([await consumer.position(tp) < end for tp, end in ends.items()])

    async def predictions(self, *query_ids, numbers=None):
        """The first prediction of each query, once all of these are there, and how many predictions each has."""
        records = await self.read(
            self.catalogue.predictions,
            lambda found: set(query_ids) <= {decoded(one).query_id for one in found},
            numbers,
        )
        by_query = defaultdict(list)
        for one in map(decoded, records):
            by_query[one.query_id].append(one)
        return {query_id: found[0] for query_id, found in by_query.items()}, {q: len(f) for q, f in by_query.items()}


def decoded(record):
    return codec.predictions.decode(record.value, list(record.headers.items()))


def predicted(frame, model):
    """The outputs of a model for a request frame."""
    rows = np.frombuffer(frame.matrix, frame.dtype).reshape(frame.shape) if frame.matrix else frame.rows
    outputs, failed = [], []
    for place, row in enumerate(rows):
        try:
            outputs.append(model(row))
        except ValueError as error:
            outputs.append(None)
            failed.append(FailedRow(place, "error", str(error)))
    return OutputFrame(router=frame.router, frame=frame.frame, row0=0, outputs=outputs, failed=failed)
