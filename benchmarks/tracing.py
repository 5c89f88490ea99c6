"""What does tracing cost a router a query, by the share of queries that are sampled?

    python benchmarks/tracing.py            # a minute; in memory, without Kafka or a collector
    python benchmarks/tracing.py --quick

The router's own parts in one process, from the records of queries to their indexed predictions: decode, decide, request
a model on a host, gather, combine, record. Kafka is in memory, with aiokafka's own batches; the host is a constant.
Records are JSON of 64 numbers, 200 together, of which one of two models is asked by `exp3`.

Each case is compared with its base in pairs: both answer as many queries in turn, and the one that goes first takes
turns. Of a round the least CPU a query of each counts: what disturbs a measurement only makes it longer. `headers` has no sampled trace and no tracing, with two headers a query,
as a gateway writes them; `plain` has none. What a sampled query costs later, the thread that gives spans to their
exporter, is in the figures; the exporter's own process is not: it makes some twenty thousand spans a second of CPU.
"""

from rig import one_thread  # noqa: F401  # isort: skip (before numpy)

import argparse
import asyncio
import gc
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from faust.types import TP
from rig.results import Measures, Run, Summary, Target
from rig.session import parsed, report, result_options

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.observability.tracing import SpanSink
from clipper_agents.router.cache_store import MsgpackOutputs
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.effects import EffectRunner
from clipper_agents.router.outputs import OutputAgent
from clipper_agents.router.prediction_log import PredictionLog
from clipper_agents.router.queries import FreshQueries, QueryAgent
from clipper_agents.router.query_traces import UNTRACED, QueryTraces
from clipper_agents.router.requests import Lane, RequestSender
from clipper_agents.streaming.outbox import Outbox
from clipper_agents.streaming.worker_process import settle_memory
from clipper_stream.caching.clock import ClockCache, DictStore
from clipper_stream.caching.keys import version_digest
from clipper_stream.query import Application, CandidateModel, Router
from clipper_stream.query.inputs import RowSpec
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState
from clipper_topics.catalogue import Catalogue
from clipper_topics.frames import OutputFrame, decode_request, encode_frame

CATALOGUE = Catalogue(partitions=1)
QUERIES = TP(CATALOGUE.queries, 0)
TOGETHER, NUMBERS = 200, 64
MODELS = ("a:1", "b:1")
CACHE_BYTES = 64 << 20
NOBODY_READS = (sys.executable, "-c", "import sys\nwhile sys.stdin.buffer.read(1 << 16): pass")
"""In place of the exporter: takes what comes."""
MEASURES: Measures = {
    "µs a query": lambda run: run["us"],
    "µs more than its base": lambda run: run["more_us"],
    "% more than its base": lambda run: run["more_percent"],
}
MOST_MORE_US, MOST_MORE_PERCENT = 0.5, 2.0


class Case(NamedTuple):
    """What is measured, and what it is compared with.

    Attributes:
        headers: Whether queries have an id and a `traceparent` in headers.
        sampled: Share of the queries whose trace is sampled.
        is_on: Whether the router records spans.
    """

    name: str
    base: str
    headers: bool
    sampled: float
    is_on: bool


CASES = (
    Case("plain, tracing on", "plain", headers=False, sampled=0.0, is_on=True),
    Case("headers, tracing on", "headers", headers=True, sampled=0.0, is_on=True),
    Case("1 % sampled", "headers", headers=True, sampled=0.01, is_on=True),
    Case("10 % sampled", "headers", headers=True, sampled=0.1, is_on=True),
    Case("all sampled", "headers", headers=True, sampled=1.0, is_on=True),
)


class MemoryKafka:
    """A producer, an app and a consumer in one, whose batches are aiokafka's and go nowhere."""

    def __init__(self) -> None:
        self.client = SimpleNamespace(cluster=SimpleNamespace(partitions_for_topic=lambda _: {0}))
        self.consumer, self.generation, self.requests = self, 0, list[tuple[bytes, Any]]()
        self._builders = AIOKafkaProducer(bootstrap_servers="127.0.0.1:1")
        self._offsets: defaultdict[str, int] = defaultdict(int)

    def create_batch(self) -> Any:
        return self._builders.create_batch()

    async def send_batch(self, batch: Any, topic: str, *, partition: int) -> Any:
        return self._stored(topic, partition, batch.record_count())

    async def send(self, topic: str, value: bytes, *, partition: int, headers: Any) -> Any:
        self.requests.append((value, headers or ()))
        return self._stored(topic, partition, 1)

    def _stored(self, topic: str, partition: int, count: int) -> Any:
        stored = asyncio.get_running_loop().create_future()
        stored.set_result(SimpleNamespace(partition=partition, offset=self._offsets[topic], timestamp=-1))
        self._offsets[topic] += count
        return stored

    def acknowledge(self, *_: object) -> None:
        """Do nothing."""

    def update_room(self) -> None:
        """Do nothing."""

    def watched(self, work: Any) -> Any:
        return asyncio.ensure_future(work)

    def watch(self, work: Any) -> None:
        """Do nothing: what is sent is stored."""


class NoModels:
    """No model runs in the router, no dead letter comes, nothing is deferred, no backlog is left."""

    def take(self, _: object) -> bool:
        return False

    def put(self, _: object) -> None:
        """Do nothing."""

    def look(self, *_: object) -> None:
        """Do nothing."""

    def is_full(self, _: object) -> bool:
        return False


class RouterPath:
    """A router without its consumers, and a host that answers at once."""

    def __init__(self, folder: Path, traces: QueryTraces) -> None:
        identity, nobody = b"benchmark", NoModels()
        self.kafka, self.metrics, self.traces = MemoryKafka(), RouterMetrics(), traces
        kafka: Any = self.kafka
        application = _application()
        caches: defaultdict[int, ClockCache] = defaultdict(lambda: ClockCache(DictStore(), CACHE_BYTES))
        router = Router(
            {application.name: application}.get,
            lambda of, _, __: of.choice(SelectionState()),
            caches.__getitem__,
            MsgpackOutputs(),
        )
        decisions = LogIndex(folder, 3600.0)
        self.log = PredictionLog(
            Outbox(kafka), kafka, CATALOGUE.predictions, decisions, kafka, router, kafka,
            metrics=self.metrics, traces=traces,
        )  # fmt: skip
        unused: Any = nobody
        effects = EffectRunner(router, kafka, unused, self.log, self.metrics, kafka)
        sender = RequestSender(
            kafka, CATALOGUE, identity, reply_partitions=lambda: [0], dtype_of=lambda _: "float32", receiver=effects,
            tasks=kafka, traces=traces,
        )  # fmt: skip
        sender._lanes.update({ref: Lane(CATALOGUE.requests(*ref.split(":"))) for ref in MODELS})
        effects.connect(sender, unused)
        fresh = FreshQueries(router, decisions, self.log, traces=traces)
        self.queries = QueryAgent(kafka, router, effects, fresh, self.log, unused, self.metrics, unused, traces=traces)
        self._outputs = OutputAgent(identity, router, effects, sender, unused, self.metrics, traces)
        self._stop = effects.stop

    async def answer(self, records: list[Any]) -> None:
        """Answer queries; returns when their predictions are indexed."""
        self.queries.receive({QUERIES: records}, 0)
        for _ in range(2):
            await asyncio.sleep(0)  # requests are sent in a task for each model
        requests, self.kafka.requests = self.kafka.requests, []
        await self._outputs.serve(_Answers([_answered(*request) for request in requests]))
        await self.log.idle()
        self._stop()


class _Answers:
    """A stream of output records that ends."""

    generation = 0

    def __init__(self, records: list[Any]) -> None:
        self._records = records

    async def chunks(self, *_: object) -> Any:
        yield [(TP(CATALOGUE.outputs, 0), self._records)]

    def ack(self, *_: object, **__: object) -> None:
        """Do nothing."""


def _application() -> Application:
    candidates = tuple(CandidateModel(ref=ref, digest=version_digest(ref, None), deterministic=True) for ref in MODELS)
    return Application(
        name="digits", candidates=candidates, policy=make_policy("exp3", {}), spec=RowSpec("float32", (NUMBERS,)),
        objective_s=3600.0, default_output=-1,
    )  # fmt: skip


def _answered(value: bytes, headers: Any) -> Any:
    frame = decode_request(value)
    outputs = OutputFrame(router=frame.router, frame=frame.frame, row0=0, outputs=[3] * frame.shape[0])
    return _record(CATALOGUE.outputs, 0, encode_frame(outputs), headers)


def _record(topic: str, offset: int, value: bytes, headers: Any) -> Any:
    return SimpleNamespace(
        topic=topic, partition=0, offset=offset, key=b"key", value=value, headers=tuple(headers),
        timestamp=int(time.time() * 1000),
    )  # fmt: skip


def records_of(case: Case, seed: int, count: int = TOGETHER) -> list[Any]:
    """The records of queries with new ids, and rows that were not asked before."""
    draw, found = random.Random(seed), []
    sampled = {*draw.sample(range(count), round(case.sampled * count))}
    for number in range(count):
        query = {
            "query_id": f"{seed:x}-{draw.getrandbits(64):016x}", "application": "digits",
            "input": [round(draw.random(), 4) for _ in range(NUMBERS)],
        }  # fmt: skip
        headers = []
        if case.headers:
            flag = "01" if number in sampled else "00"
            context = f"00-{draw.getrandbits(128):032x}-{draw.getrandbits(64):016x}-{flag}"
            headers = [("traceparent", context.encode()), ("correlation-id", b"%032x" % draw.getrandbits(128))]
        found.append(_record(CATALOGUE.queries, seed * count + number, msgspec.json.encode(query), headers))
    return found


def main() -> None:
    parser = result_options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=60, help="of chunks of 200 queries, in a case and a round")
    options = parsed(parser, {"rounds": 1, "pairs": 5})
    runs = [{"round": number, **run} for number in range(options.rounds) for run in asyncio.run(measured(options))]
    report(options, "median (least to most) of the rounds", runs, MEASURES, targets)


async def measured(options: argparse.Namespace) -> list[Run]:
    """A round: each case in turn."""
    runs = []
    for case in CASES:
        base = case._replace(name=case.base, sampled=0.0, is_on=False)
        with path_of(base) as one, path_of(case) as other:
            runs += [await compared(case, (base, one), (case, other), options.pairs)]
    return runs


async def compared(case: Case, base: Any, mine: Any, pairs: int) -> Run:
    """Answer chunks by both, in pairs."""
    settle_memory()
    spent: dict[str, list[float]] = {"base": [], "mine": []}
    sink = mine[1].traces.sink
    for pair in range(-3, pairs):  # the first find caches empty
        turns = [("base", *base), ("mine", *mine)]
        for which, of, path in turns if pair % 2 else turns[::-1]:
            records = records_of(of, 1000 + pair)
            began_s = time.thread_time()
            await path.answer(records)
            if pair >= 0:
                spent[which].append((time.thread_time() - began_s) / TOGETHER * 1e6)
        gc.collect(0)
    gc.unfreeze()
    later_us = _later_s(sink) / (pairs + 3) / TOGETHER * 1e6
    base_us = min(spent["base"])
    more_us = min(spent["mine"]) - base_us + later_us
    return {
        "system": case.name, "us": base_us + more_us, "more_us": more_us, "more_percent": 100 * more_us / base_us,
        "later_us": later_us,
    }  # fmt: skip


def _later_s(sink: Any) -> float:
    """CPU seconds of the thread that gives spans to their exporter."""
    if sink is None or sink._thread is None:
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(sink._thread.ident))


@contextmanager
def path_of(case: Case) -> Iterator[RouterPath]:
    """A router as the case wants it."""
    with tempfile.TemporaryDirectory(prefix="clipper-benchmark-") as folder:
        sink = SpanSink(NOBODY_READS) if case.is_on else None
        path = RouterPath(Path(folder), UNTRACED)
        if sink is not None:
            path = RouterPath(Path(folder) / "on", QueryTraces(sink, path.metrics))
        yield path
        if sink is not None:
            sink.close()


def targets(found: Summary) -> list[Target]:
    free = "µs a query that is not sampled"
    return [
        Target.of(
            "tracing",
            f"{free}, without headers",
            (found, "plain, tracing on", "µs more than its base"),
            "<=",
            MOST_MORE_US,
        ),
        Target.of(
            "tracing",
            f"{free}, with headers",
            (found, "headers, tracing on", "µs more than its base"),
            "<=",
            MOST_MORE_US,
        ),
        Target.of(
            "tracing",
            "% more CPU of the router, 1 % sampled",
            (found, "1 % sampled", "% more than its base"),
            "<=",
            MOST_MORE_PERCENT,
        ),
    ]


if __name__ == "__main__":
    main()
