"""Logs as routers and applications write them, and a rollout controller that reads them."""

import asyncio
from contextlib import asynccontextmanager

from aiokafka import AIOKafkaProducer

from clipper_agents.control.apply import apply_manifests
from clipper_agents.control.plan import refs_of
from clipper_agents.control.state import read_control
from clipper_agents.observability.metrics import StewardMetrics
from clipper_agents.rollout.app import RolloutController
from clipper_agents.rollout.decisions import ControlChanges
from clipper_agents.settings.workers import StewardSettings
from clipper_topics import codec
from clipper_topics.audit import Audit
from clipper_topics.feedback import Feedback
from clipper_topics.manifests import ModelManifest
from clipper_topics.prediction import Missing, ModelAnswer, PolicyRef, Prediction


def answered(ref, output, **fields):
    model, _, version = ref.rpartition(":")
    return ModelAnswer(model=model, version=version, output=output, **{"propensity": 1.0, **fields})


def missing(ref, **fields):
    model, _, version = ref.rpartition(":")
    return Missing(model=model, version=version, **{"propensity": 1.0, "reason": "late", **fields})


def parted(asked):
    """Who answered, and who did not."""
    return {
        "models": [one for one in asked if isinstance(one, ModelAnswer)],
        "missing": [one for one in asked if isinstance(one, Missing)],
    }


def decided(query_id, *served, revision=1, output=None, **fields):
    """A prediction; the first of those who answered gives its output."""
    known = parted(served)
    if known["models"]:
        output = known["models"][0].output if output is None else output
    else:
        known |= {"default": True, "reason": "late"}
    usual = {"application": "digits", "audited": False, "served_propensity": 1.0 / max(1, len(served))}
    policy = PolicyRef(name="exp3", version=revision)
    return Prediction(query_id=query_id, output=output, policy=policy, **usual | known | fields)


def audit_of(query_id, *asked, application="digits"):
    return Audit(query_id=query_id, application=application, **parted(asked))


def records_of(catalogue, query_id, served, audited=(), label=1, **fields):
    """Topics and values of the records of one query, in order: prediction, audit where others were asked, feedback."""
    prediction = decided(query_id, *served, audited=bool(audited), **fields)
    yield catalogue.predictions, codec.predictions.encode(prediction)
    if audited:
        audit = audit_of(query_id, *audited, application=prediction.application)
        yield catalogue.audits, codec.audits.encode(audit)
    yield catalogue.feedback, codec.feedback.encode(Feedback(query_id=query_id, label=label))


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
    process = RolloutController(StewardSettings(kafka=kafka, catalogue=catalogue, instance="steward"), changes, metrics)
    await process.start()
    running = asyncio.ensure_future(process.run())
    try:
        yield process, metrics
    finally:
        running.cancel()
        await asyncio.wait([running])
        await process.stop()
    assert running.cancelled(), running.exception()


async def until(what, holds, within_s=60.0):
    """The first true value of a condition."""
    async with asyncio.timeout(within_s):
        while not (found := holds()):
            await asyncio.sleep(0.02)
    assert found, what
    return found
