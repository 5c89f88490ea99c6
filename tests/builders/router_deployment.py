"""A router with a stand-in for hosts and for applications around it, on a real Kafka."""

import asyncio
import atexit
import json
import os
import signal
from collections import defaultdict
from contextlib import asynccontextmanager
from functools import cache

import numpy as np
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from e2e.any_client import AnyClient

from clipper_agents.control.apply import apply_manifests
from clipper_agents.control.plan import Plan, unsigned
from clipper_agents.control.writer import change_control
from clipper_agents.kafka.topics import ensure_topics
from clipper_agents.supervisor.forked_process import WorkerTemplate
from clipper_agents.supervisor.process import ChildProcess, ChildSpec
from clipper_agents.supervisor.workers import PROGRAM, worker_environment
from clipper_topics import codec
from clipper_topics.codec import FailedRow, OutputFrame, decode_request, encode_frame
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec

WITHIN_S = 90
"""A start takes a second on an idle machine; other people's tests may share it."""
ENVIRONMENT = worker_environment(os.environ)
MODELS = [ModelManifest(name=name, uri="x:y", input=InputSpec(shape=[2])) for name in ("m", "n")]


def app(name="app", **changes):
    """An application of both models whose queries have time enough."""
    settings = dict(
        models=["m:1", "n:1"], input=InputSpec(shape=[2]), policy=PolicySpec(name="exp4"), objective_ms=60_000
    )
    return ApplicationManifest(name=name, **(settings | changes))


def total(row):
    return int(row.sum())


@cache
def template():
    """The process that workers are forked from, as those of a supervisor are: a tenth of the time of a start."""
    made = WorkerTemplate(PROGRAM, ENVIRONMENT)
    made.start()
    atexit.register(made.close)
    return made


class RunningWorker:
    """A process, and what it has written on its standard error."""

    def __init__(self, child, lines):
        self._child, self.lines = child, lines
        self._end = asyncio.create_task(child.wait())

    @property
    def runs(self):
        return not self._end.done()

    @property
    def log(self):
        return "\n".join(self.lines)

    async def ready(self):
        async with asyncio.timeout(WITHIN_S):
            await asyncio.wait([self._child.ready, self._end], return_when=asyncio.FIRST_COMPLETED)
        assert self.runs, self.log[-6000:]
        return self._child.ready.result()

    def signal(self, number):
        os.kill(self._child.pid, number)

    async def ended(self, number=None):
        """Wait for its end, if need be after a signal; the exit code."""
        if number is not None:
            self.signal(number)
        return await asyncio.wait_for(asyncio.shield(self._end), WITHIN_S)


async def publish_manifests(kafka, catalogue, manifests, signature=None):
    """Publish models before the applications that name them; what is there already is not written again."""
    given = list(manifests)
    models = [one for one in given if isinstance(one, ModelManifest)]
    await apply_manifests(kafka, catalogue, [one for one in given if one not in models], models, signature)


async def withdraw_manifests(kafka, catalogue, *, models=(), applications=(), signature=None):
    """Take manifests away, whoever uses them."""

    def decide(state):
        there = state.manifests.applications
        changes = (unsigned(there[name], None, "delete") for name in applications)
        return Plan(changes=tuple(changes), withdrawn=tuple(models))

    await change_control(kafka, catalogue, decide, signature)


class Deployment:
    def __init__(self, kafka, catalogue, folder):
        self.kafka, self.catalogue, self.folder = kafka, catalogue, folder

    async def declare(self, *manifests):
        """Publish manifests, of models with the report of a stand-in that says it is ready."""
        models = [manifest for manifest in manifests if isinstance(manifest, ModelManifest)]
        await ensure_topics(self.kafka, self.catalogue, models)
        await report(
            self.kafka, self.catalogue, *(HostReport(model=one.ref, instance="h", state="ready") for one in models)
        )
        await publish_manifests(self.kafka, self.catalogue, manifests)

    def router(self, name="router-0", *, ready=True, **settings):
        """Run a router for the time of the block; at its end it is told to end, and has to end well."""
        section = {"data_dir": str(self.folder / "data"), **settings}
        return self.worker("router", name=name, ready=ready, router=section)

    @asynccontextmanager
    async def worker(self, *role, name, ready=True, **sections):
        """Run a worker, with these sections in its configuration."""
        kafka = {name: getattr(self.catalogue, name) for name in ("prefix", "partitions")}
        config, lines = self.folder / f"{name}.json", []
        config.write_text(json.dumps({"kafka": {"bootstrap": self.kafka.bootstrap, **kafka}, **sections}))
        words = ("worker", *role, "--instance", name, "--config", str(config), "--ends-with-stdin")
        spec = ChildSpec(name=name, command=(*PROGRAM, *words), environment=ENVIRONMENT)
        program = await template().launch(spec)
        child = ChildProcess(spec, program, lambda line: lines.append(line.removeprefix(f"child={name} ")))
        running = RunningWorker(child, lines)
        try:
            if ready:
                await running.ready()
            yield running
            if running.runs:
                assert await running.ended(signal.SIGTERM) == 0, running.log[-6000:]
        finally:
            if running.runs:
                running.signal(signal.SIGCONT)
                child.kill()
            await running.ended()

    @asynccontextmanager
    async def host(self, models):
        """Answer requests for the time of the block.

        Args:
            models: From reference to a function of a row; one that raises fails the row, and None never answers.
        """
        topics = {self.catalogue.requests(*ref.split(":")): model for ref, model in models.items()}
        async with (
            AIOKafkaConsumer(*topics, **self.kafka.aiokafka(), auto_offset_reset="earliest") as consumer,
            self.producer() as producer,
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

    def producer(self, **settings):
        return AIOKafkaProducer(**self.kafka.aiokafka(), **settings)

    async def send(self, topic, *values, partition=0, headers=None, key=None):
        """Produce values: bytes as they are, anything else as JSON. Their offsets."""
        place = {"partition": partition, "headers": headers, "key": key}
        async with self.producer() as producer:
            encoded = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in values]
            sent = [await producer.send(topic, value, **place) for value in encoded]
            return [(await one).offset for one in sent]

    async def ask(self, *queries, **place):
        named = [query if isinstance(query, bytes) else {"application": "app"} | query for query in queries]
        return await self.send(self.catalogue.queries, *named, **place)

    async def tell(self, *truths, **place):
        return await self.send(self.catalogue.feedback, *truths, **place)

    async def read(self, topic, holds=lambda records: True, numbers=None):
        """All records of a topic, or of some partitions of it, read on until they are as wanted; in their order."""

        def in_order(records):
            return sorted(records, key=lambda record: (record.partition, record.offset))

        def read_on():
            with AnyClient(self.kafka.bootstrap).reading(topic, numbers) as reading:
                reading.to_the_end()
                return reading.until("what is wanted", lambda records: holds(in_order(records)), WITHIN_S)

        return in_order(await asyncio.to_thread(read_on))

    async def predictions(self, *query_ids, numbers=None):
        """The first prediction of each query, once all of these are there, and how many predictions each has."""
        records = await self.read(
            self.catalogue.predictions, lambda found: {*query_ids} <= {decoded(one).query_id for one in found}, numbers
        )
        by_query = defaultdict(list)
        for one in map(decoded, records):
            by_query[one.query_id].append(one)
        return {query_id: found[0] for query_id, found in by_query.items()}, {q: len(f) for q, f in by_query.items()}


async def report(kafka, catalogue, *reports):
    async with AIOKafkaProducer(**kafka.aiokafka()) as producer:
        for one in reports:
            key, value = report_key(one.model, one.instance), codec.host_reports.encode(one)
            await producer.send_and_wait(catalogue.hosts, value, key, partition=0)


def decoded(record):
    return codec.predictions.decode(record.value, list(record.headers.items()))


def predicted(frame, model):
    rows = np.frombuffer(frame.matrix, frame.dtype).reshape(frame.shape) if frame.matrix else frame.rows
    outputs, failed = [], []
    for place, row in enumerate(rows):
        try:
            outputs.append(model(row))
        except ValueError as error:
            outputs.append(None)
            failed.append(FailedRow(place, "error", str(error)))
    return OutputFrame(router=frame.router, frame=frame.frame, row0=0, outputs=outputs, failed=failed)
