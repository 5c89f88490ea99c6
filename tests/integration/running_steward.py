"""A rollout controller that runs, and the logs of routers and applications that it reads."""

import asyncio
from contextlib import asynccontextmanager, suppress

from aiokafka import AIOKafkaProducer
from builders.rollout_logs import records_of

from clipper_agents.control.apply import apply_manifests
from clipper_agents.control.plan import refs_of
from clipper_agents.control.state import read_control
from clipper_agents.observability.metrics import StewardMetrics
from clipper_agents.rollout.app import RolloutController
from clipper_agents.rollout.comparison_spec import comparison_specs
from clipper_agents.rollout.decisions import ControlChanges
from clipper_agents.rollout.evidence import EvidenceFold, UnknownRevision
from clipper_agents.rollout.log_tailer import MergedLogTailer
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import StewardSection
from clipper_topics.manifests import ModelManifest


class LogWriter:
    """Writes predictions, audits and feedback; a query's partition follows from its number."""

    def __init__(self, producer, catalogue):
        self._producer, self._catalogue = producer, catalogue
        self._count = 0

    async def queries(self, count, served, audited=(), label=1, **fields):
        """So many queries, all answered and audited alike, with the true output."""
        for _ in range(count):
            self._count += 1
            partition = self._count % self._catalogue.partitions
            query_id = f"{partition}-{self._count}"
            for topic, value in records_of(self._catalogue, query_id, served, audited, label, **fields):
                await self._producer.send_and_wait(topic, value, key=query_id.encode(), partition=partition)


@asynccontextmanager
async def writing(kafka, catalogue):
    async with AIOKafkaProducer(**kafka.aiokafka()) as producer:
        yield LogWriter(producer, catalogue)


class RecordedChanges(ControlChanges):
    """Remembers the changes of the rollout controller (`made`), and detections that were news (`noted`), in order."""

    def __init__(self, kafka, catalogue):
        super().__init__(kafka, catalogue)
        self.made, self.noted = [], []

    async def create(self, *manifests):
        named = {ref.partition(":")[::2] for manifest in manifests for ref in refs_of(manifest)}
        models = [ModelManifest(name=name, version=version, uri="models:any") for name, version in named]
        await apply_manifests(self._kafka, self._catalogue, manifests, models)

    async def apply(self, decision):
        await super().apply(decision)
        history = (await read_control(self._kafka, self._catalogue)).history(decision.application)
        self.made.append(history[decision.revision + 1])

    async def note_drift(self, event):
        news = await super().note_drift(event)
        self.noted += [event] if news else []
        return news


@asynccontextmanager
async def steward(kafka, catalogue, changes):
    metrics = StewardMetrics()
    settings = WorkerSettings(kafka=kafka, catalogue=catalogue, instance="steward", section=StewardSection())
    process = RolloutController(settings, changes, metrics)
    ready = asyncio.Event()
    running = asyncio.ensure_future(process.run(ready.set))
    await asyncio.wait([running, asyncio.ensure_future(ready.wait())], return_when=asyncio.FIRST_COMPLETED)
    try:
        yield process, metrics
    finally:
        running.cancel()
        await asyncio.wait([running])
    assert running.cancelled(), running.exception()


async def until(what, holds, within_s=60.0):
    async with asyncio.timeout(within_s):
        while not (found := holds()):
            await asyncio.sleep(0.02)
    assert found, what
    return found


async def to_the_end(logs):
    """Times and records of logs, up to where they ended at the start."""
    async for records in logs.follow():
        for one in records:
            yield one
        if logs.caught_up and not any(map(logs._order.waiting, logs._partitions)):
            return


async def read_comparisons(kafka, catalogue, control):
    """The comparisons that the logs alone tell: read to their end once, and folded."""
    if not (specs := comparison_specs(control, drift=False)):
        return ()
    fold = EvidenceFold(catalogue, control.current, 3600.0, 200_000)
    fold.follow(specs)
    logs = MergedLogTailer(kafka, catalogue)
    await logs.start(0)
    try:
        async for at_ms, record in to_the_end(logs):
            with suppress(UnknownRevision):
                fold.take(record, at_ms)
    finally:
        await logs.stop()
    return tuple(fold.comparisons())
