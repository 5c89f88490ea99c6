"""The yardstick: the router of this project on bare aiokafka, without Faust. What is cheaper here is Faust's tax.

    bare_router.py CONFIG BOOTSTRAP PREFIX FOLDER MAX_IN_FLIGHT

The decisions, the cache, the index, the prediction log and the colocated model are the project's own objects; only
what reads and what commits is another: `getmany`, and the frontier of each partition once a quarter of a second. It has
no rebalances, no feedback, no followers and no recovery: it is no router to run, it only shows what the rest costs.
"""

import asyncio
import os
import signal
import sys
import time
from collections import defaultdict
from collections.abc import Coroutine
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRecord, TopicPartition

from clipper_agents.kafka.aiokafka_patches import LeanKeys, install_records
from clipper_agents.memory import settle_memory
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.applications import ApplicationRegistry
from clipper_agents.router.colocated_models import ColocatedModels
from clipper_agents.router.decision_index import log_index
from clipper_agents.router.indexed_log import IndexedLog, QueryLogs
from clipper_agents.router.pipeline import QueryPipeline, QueryStores, partition_caches
from clipper_agents.router.queries import decode_queries, decoded_together
from clipper_agents.settings import Settings, load_settings
from clipper_agents.streaming.offset_tracker import OffsetTracker
from clipper_agents.streaming.outbox import MAX_BATCH_BYTES, Outbox
from clipper_stream.query import Router
from clipper_stream.selection.state import SelectionState
from clipper_topics import codec
from clipper_topics.control_keys import key_of
from clipper_topics.logged_records import read_audit, read_prediction

QUERIES_A_ROUND = 1000
COMMIT_EVERY_S = 0.25


class BareRouter:
    """The parts of a router process that its hot path touches, and a loop that feeds them."""

    def __init__(self, settings: Settings, folder: Path, producer: AIOKafkaProducer, max_in_flight: int) -> None:
        self.settings = settings
        self.metrics = RouterMetrics()
        self.registry = ApplicationRegistry(allowed=settings.allowed)
        self.caches = partition_caches(folder / "cache", 32 << 20)
        self.decisions = log_index(folder / "decisions", 3600.0)
        self.router = Router(max_in_flight)
        self.trackers: dict[int, OffsetTracker] = defaultdict(OffsetTracker)
        app: Any = self
        self.outbox, self.lease, self.consumer = Outbox(producer), self, self
        logs = QueryLogs(
            IndexedLog(app, settings.catalogue.predictions, self.decisions, read_prediction),
            IndexedLog(app, settings.catalogue.audits, log_index(folder / "audits", 3600.0), read_audit),
        )
        selection: Any = SimpleNamespace(prepare=_choice)
        stores = QueryStores(self.registry, selection, self.caches, logs)
        self.pipeline = QueryPipeline(self.router, stores, app, settings.catalogue.queries, self.metrics)
        unused: Any = SimpleNamespace(put=list, forget=list)
        self.colocated = ColocatedModels(self.metrics, self.pipeline, self, settings.allowed)
        self.pipeline.connect(unused, self.colocated, unused)

    generation = 0

    def watched(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        """Run a coroutine; its failure ends the process."""
        task = asyncio.create_task(work)
        task.add_done_callback(self.watch)
        return task

    def watch(self, task: "asyncio.Future[Any]") -> None:
        """End the process with the task's error, if it has one."""
        if not task.cancelled() and task.exception() is not None:
            print(repr(task.exception()), file=sys.stderr, flush=True)
            os._exit(1)

    async def confirmed(self) -> None:
        """Nobody else reads these partitions."""

    def acknowledge(self, tp: TopicPartition, offsets: list[int], _generation: int, /) -> None:
        """The queries at these offsets are finished."""
        self.trackers[tp.partition].finish(offsets)

    async def declare(self) -> None:
        """Know the applications and load the models."""
        models, applications = self.settings.models, self.settings.applications
        topic = self.settings.catalogue.control
        self.registry.take(_record(topic, key_of(each), codec.models.encode(each)) for each in models)
        self.registry.take(_record(topic, key_of(each), codec.applications.encode(each)) for each in applications)
        for model in self.settings.models:
            await self.colocated.load(model)
            self.registry.reached(model.ref)

    async def serve(self, consumer: AIOKafkaConsumer) -> None:
        """Route until cancelled."""
        loop = asyncio.get_running_loop()
        committed_s = loop.time()
        while True:
            fetched = await consumer.getmany(timeout_ms=100, max_records=QUERIES_A_ROUND)
            for part, records in fetched.items():
                self.trackers[part.partition].admit([record.offset for record in records])
            now_s = time.time()
            some = chain.from_iterable(map(decoded_together, fetched.values()))
            self.pipeline.receive((batch for records in some for batch in decode_queries(records, 0, now_s)[0]), now_s)
            if loop.time() - committed_s > COMMIT_EVERY_S:
                await self._commit(consumer)
                committed_s = loop.time()
            await self.pipeline.room.wait()
            await asyncio.sleep(0)

    async def _commit(self, consumer: AIOKafkaConsumer) -> None:
        queries = self.settings.catalogue.queries
        offsets = {TopicPartition(queries, number): each.committable for number, each in self.trackers.items()}
        done = {part: offset for part, offset in offsets.items() if offset is not None}
        if done:
            await consumer.commit(done)


def _choice(application: Any, _partition: int, _context: str | None) -> Any:
    return application.policy.prepare(SelectionState(), application.refs)


def _record(topic: str, key: bytes, value: bytes) -> ConsumerRecord[bytes, bytes]:
    return ConsumerRecord(topic, 0, 0, 0, 0, key, value, None, len(key), len(value), ())


async def main(config: Path, bootstrap: str, prefix: str, folder: Path, max_in_flight: int) -> None:
    install_records()
    settings = load_settings(config, {}, {"kafka.bootstrap": bootstrap, "kafka.prefix": prefix})
    consumer = AIOKafkaConsumer(
        settings.catalogue.queries, bootstrap_servers=bootstrap, group_id=f"{prefix}-yardstick",
        auto_offset_reset="earliest", enable_auto_commit=False, key_deserializer=LeanKeys(),
    )  # fmt: skip
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_batch_size=MAX_BATCH_BYTES,
        max_request_size=8 << 20,
    )  # fmt: skip
    async with consumer, producer:
        router = BareRouter(settings, folder, producer, max_in_flight)
        await router.declare()
        settle_memory()
        serving = asyncio.create_task(router.serve(consumer))
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, serving.cancel)
        await asyncio.wait([serving])
        if not serving.cancelled():
            serving.result()
        os._exit(0)


if __name__ == "__main__":
    words = sys.argv[1:]
    uvloop.run(main(Path(words[0]), words[1], words[2], Path(words[3]), int(words[4])))
