"""The walk of a query and of its feedback through the code: `python docs/walk.py [query | feedback | calls]`.

A JSON query is decided about by a router, asked of a host, and answered; then feedback about it is learned from until
its row is in the changelog. All parts are the product's own, in one process, except Kafka: logs in memory stand for
brokers and for the modules that fetch and send (`clipper_agents.kafka`, and the consumer below `streaming.stream`). The
walk is that of a second query, so that nothing is made for the first time.

Rules of this file:
- A step is a call of a Python function of the product, in the order of the calls.
- A crossing is a step on another side of the border between the router and the pure library than the step before.
  Records that both sides read (`QueryBatch` and its states) lie on the border, and are no side.
"""

import asyncio
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from itertools import groupby
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any, NamedTuple, Self

import msgspec

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "tests"))

from builders.kafka import FakeLogReader, FakeProducer, FakeWriter, Tasks, record  # noqa: E402
from faust.types import TP  # noqa: E402

from clipper_agents.host.engine import (  # noqa: E402
    BatchTraces,
    HostEngine,
    make_engine,
)
from clipper_agents.host.poison_rows import PoisonRows  # noqa: E402
from clipper_agents.host.predictor import prepare  # noqa: E402
from clipper_agents.host.request_server import RequestServer  # noqa: E402
from clipper_agents.observability.metrics import ProcessMetrics, RouterMetrics  # noqa: E402
from clipper_agents.router.applications import ApplicationRegistry  # noqa: E402
from clipper_agents.router.colocated_models import ColocatedModels  # noqa: E402
from clipper_agents.router.decision_index import log_index  # noqa: E402
from clipper_agents.router.feedback import FeedbackProcessor  # noqa: E402
from clipper_agents.router.indexed_log import IndexedLog, QueryLogs  # noqa: E402
from clipper_agents.router.pipeline import QueryPipeline, QueryStores, partition_caches  # noqa: E402
from clipper_agents.router.queries import QueryAgent  # noqa: E402
from clipper_agents.router.requests import OutputAgent, RequestSender  # noqa: E402
from clipper_agents.router.selection_store import SelectionStore  # noqa: E402
from clipper_agents.streaming.app import ClipperApp, StateLock  # noqa: E402
from clipper_agents.streaming.dead_letters import DeadLetterSender  # noqa: E402
from clipper_agents.streaming.outbox import Outbox  # noqa: E402
from clipper_agents.streaming.table import TransactionalTable  # noqa: E402
from clipper_stream.query import Router  # noqa: E402
from clipper_topics import codec  # noqa: E402
from clipper_topics.catalogue import Catalogue  # noqa: E402
from clipper_topics.connection import KafkaConnection  # noqa: E402
from clipper_topics.control_keys import key_of  # noqa: E402
from clipper_topics.logged_records import read_audit, read_prediction  # noqa: E402
from clipper_topics.manifests import ApplicationManifest, BatchSpec, ModelManifest, PolicySpec  # noqa: E402

CATALOGUE = Catalogue(partitions=1)
MODEL = "clipper_agents.examples.models:sum_of_row"
BORDER = "clipper_stream.query.batch"
SIDES = (
    "clipper_agents.router.",
    *(f"clipper_stream.{name}." for name in ("query", "selection", "caching", "combining")),
)


class Step(NamedTuple):
    """A call of a function of the product."""

    module: str
    function: str


class Walk:
    """The steps of what runs while it is open, and the number of all Python calls."""

    def __init__(self) -> None:
        self.steps, self.calls, self._seen = list[Step](), 0, list[FrameType]()
        self._known = set[int]()

    def __enter__(self) -> Self:
        sys.setprofile(self._note)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)
        self._seen.clear()

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event != "call" or id(frame) in self._known:  # the latter: a coroutine goes on
            return
        self._seen.append(frame)  # so that no other one gets its id
        self._known.add(id(frame))
        self.calls += 1
        module = str(frame.f_globals.get("__name__", ""))
        if module.startswith("clipper_"):
            self.steps.append(Step(module, frame.f_code.co_qualname))

    @property
    def modules(self) -> list[str]:
        """The modules, in the order in which they are entered first."""
        return [*dict.fromkeys(step.module for step in self.steps)]

    @property
    def crossings(self) -> int:
        """How often the walk changes sides between the router and the pure library."""
        sides = [step.module.startswith("clipper_stream.") for step in self.steps if _has_side(step.module)]
        return len([*groupby(sides)]) - 1

    def __str__(self) -> str:
        lines = []
        for module, steps in groupby(self.steps, key=lambda step: step.module):
            lines.append(f"{module}: {', '.join(dict.fromkeys(step.function for step in steps))}")
        return "\n".join(lines)


def _has_side(module: str) -> bool:
    """Of the library, what a router calls: hosts have crossings of their own."""
    return module.startswith(SIDES) and module != BORDER


class Logs(FakeProducer):  # type: ignore[misc]
    """Logs in memory, whose readers wait for the next record."""

    def __init__(self) -> None:
        super().__init__(1 << 20)
        self.grown = asyncio.Event()

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> Any:
        stored = await super().send_batch(batch, topic, partition=partition)
        self.grown.set()
        return stored

    def append(self, topic: str, partition: int, key: Any, value: bytes, headers: Any = ()) -> int:
        self.grown.set()
        offset: int = super().append(topic, partition, key, value, headers)
        return offset

    async def wait_for(self, topic: str, offset: int) -> None:
        """Wait until a topic has a record at an offset."""
        async with asyncio.timeout(10.0):
            while len(self.logs[topic, 0]) <= offset:
                self.grown.clear()
                await self.grown.wait()


class Kafka:
    """A Kafka app of one partition with logs in memory: producer, consumer and streams."""

    def __init__(self) -> None:
        self.producer, self.tasks, self.state_lock = Logs(), Tasks(), StateLock()
        self.kafka_producer: Any = self
        self.outbox, self.log_reader = Outbox(self.producer), FakeLogReader(self.producer)
        self.client = self.cluster = self.lease = self.consumer = self
        self.generation, self.watched, self.watch = 0, self.tasks.watched, self.tasks.watch
        self.delivered: dict[str, int] = {}

    def partitions_for_topic(self, _: str) -> set[int]:
        return {0}

    def owned_partitions(self, _: str) -> list[int]:
        return [0]

    async def add_topic(self, _: str) -> None: ...
    async def partitions_for(self, _: str) -> None: ...
    async def confirmed(self) -> None: ...
    def acknowledge(self, *_: object) -> None: ...
    def ack(self, *_: object, **__: object) -> None: ...

    async def send(self, topic: str, value: bytes, *, partition: int, headers: Any) -> Any:
        offset = self.producer.append(topic, partition, None, value, headers or ())
        sent = asyncio.get_running_loop().create_future()
        sent.set_result(SimpleNamespace(partition=partition, offset=offset))
        return sent

    def unread(self, topic: str) -> list[Any]:
        """The records of a topic that were not delivered yet."""
        log, first = self.producer.logs[topic, 0], self.delivered.get(topic, 0)
        self.delivered[topic] = len(log)
        at_ms = round(time.time() * 1000)
        some = enumerate(log[first:], first)
        return [record(offset, value, key, topic, 0, headers, at_ms) for offset, (key, value, headers) in some]

    async def chunks_of(self, topic: str) -> Any:
        yield [(TP(topic, 0), self.unread(topic))]

    def stream(self, topic: str) -> Any:
        """What has come, as one chunk."""
        return SimpleNamespace(generation=0, ack=self.ack, chunks=lambda *_: self.chunks_of(topic))


class Deployment:
    """A router and a host of one model, on logs in memory."""

    def __init__(self, folder: Path, *, colocated: bool = False) -> None:
        self.kafka = kafka = Kafka()
        app: Any = kafka
        self.folder, self.model = (
            folder,
            ModelManifest(name="sum", uri=MODEL, colocated=colocated, batch=BatchSpec(target_ms=20.0)),
        )
        self.application = ApplicationManifest(
            name="digits", models=[self.model.ref], policy=PolicySpec(name="exp3"), objective_ms=10_000
        )
        metrics, router = RouterMetrics(), Router()
        self.registry = ApplicationRegistry(allowed=["clipper_agents.examples"])
        decisions, audits = (log_index(folder / name, 3600.0) for name in ("decisions", "audits"))
        self.logs = QueryLogs(
            IndexedLog(app, CATALOGUE.predictions, decisions, read_prediction),
            IndexedLog(app, CATALOGUE.audits, audits, read_audit),
        )
        self.table = TransactionalTable(
            ClipperApp("walk", KafkaConnection("localhost:1"), folder / "table", "walk"),
            name="selection", partitions=1, open_writer=partial(FakeWriter, kafka.producer),
        )  # fmt: skip
        self.table.app.tables.add(self.table)
        self.selection = SelectionStore(self.table, 1)
        stores = QueryStores(self.registry, self.selection, partition_caches(folder / "cache", 1 << 20), self.logs)
        self.pipeline = QueryPipeline(router, stores, app, CATALOGUE.queries, metrics)
        self.sender = RequestSender(app, CATALOGUE, b"router", self.registry, self.pipeline)
        self.colocated = ColocatedModels(ProcessMetrics("host"), self.pipeline, app, ["clipper_agents.examples"])
        nothing: Any = SimpleNamespace(put=list, skip_if_behind=lambda *_: None, has_id=lambda *_: False)
        self.pipeline.connect(self.sender, self.colocated, nothing)
        dead_letters = DeadLetterSender(kafka.outbox, CATALOGUE.dead_letters, app)
        self.queries = QueryAgent(app, self.pipeline, self.logs, dead_letters, metrics, nothing)
        self.outputs = OutputAgent(b"router", self.pipeline, self.sender, dead_letters, metrics)
        control: Any = SimpleNamespace(followed_upto=lambda: 0)
        self.feedback = FeedbackProcessor(app, CATALOGUE, stores, control, self.queries, metrics)
        self.requests = CATALOGUE.requests(self.model.name, self.model.version)
        self.traces = BatchTraces(None, self.model.ref, self.requests)
        self.server = RequestServer(app, CATALOGUE, ProcessMetrics("host"), PoisonRows(folder / "host"))

    async def start(self) -> None:
        """Declare the application, and load its model."""
        await self.table.restore(self.kafka.log_reader, [0])
        self.selection.own([0])
        model, application = codec.models.encode(self.model), codec.applications.encode(self.application)
        for manifest, value in ((self.model, model), (self.application, application)):
            self.registry.take([record(0, value, key_of(manifest), CATALOGUE.control)])
        if self.model.colocated:
            await self.colocated.load(self.model)
        else:
            await self.sender.open(self.model.ref)
            predictor = prepare(self.model, ["clipper_agents.examples"])
            self.engine: HostEngine = make_engine(
                self.model, predictor, self.server, ProcessMetrics("host"), (), self.traces
            )
            self.running = asyncio.ensure_future(self.engine.run())
        self.registry.reached(self.model.ref)

    async def answer(self, number: int) -> None:
        """Ask a query; returns when its prediction is indexed and acknowledged."""
        content = {"query_id": f"q{number}", "application": "digits", "input": [float(number), 1.0]}
        self.kafka.producer.append(CATALOGUE.queries, 0, b"key", msgspec.json.encode(content))
        await self.queries.serve(self.kafka.stream(CATALOGUE.queries))
        if not self.model.colocated:
            await self.kafka.producer.wait_for(self.requests, number)
            await self.server.serve(self.kafka.stream(self.requests), self.engine)
            await self.kafka.producer.wait_for(CATALOGUE.outputs, number)
            await self.outputs.serve(self.kafka.stream(CATALOGUE.outputs))
        await self.kafka.producer.wait_for(CATALOGUE.predictions, number)
        await self.logs.idle()

    async def learn(self, number: int) -> None:
        """Give feedback about a query; returns when its row is durable."""
        content = {"query_id": f"q{number}", "label": 1.0}
        self.kafka.producer.append(CATALOGUE.feedback, 0, b"key", msgspec.json.encode(content))
        await self.feedback.learn(0, self.kafka.unread(CATALOGUE.feedback), 0)

    async def stop(self) -> None:
        """End all that runs."""
        self.pipeline.stop()
        await self.colocated.stop()
        if not self.model.colocated:
            self.engine.drain()
            await self.running
        self.logs.keep_only(())


async def traced(step: Callable[[Deployment, int], Awaitable[None]], folder: Path, *, colocated: bool = False) -> Walk:
    """The walk of the second query, or of its feedback."""
    deployment = Deployment(folder, colocated=colocated)
    await deployment.start()
    for number in range(2):
        if step is not Deployment.answer:
            await deployment.answer(number)
        with Walk() as walk:
            await step(deployment, number)
    await deployment.stop()
    return walk


def main(names: Iterable[str]) -> None:
    """Print walks."""
    steps = {"query": Deployment.answer, "feedback": Deployment.learn, "calls": Deployment.answer}
    for name in names or steps:
        with tempfile.TemporaryDirectory() as folder:
            walk = asyncio.run(traced(steps[name], Path(folder), colocated=name == "calls"))
        if name == "calls":
            core = sum(step.module.startswith("clipper_stream.query.") for step in walk.steps)
            print(
                f"a lone query in a router that runs its model: {walk.calls} Python calls, {core} of them in the core"
            )
        else:
            print(f"{walk}\n\n{name}: {len(walk.modules)} modules, {walk.crossings} crossings\n")


if __name__ == "__main__":
    main(sys.argv[1:])
