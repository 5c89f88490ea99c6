"""What does tracing cost a router a query, by the share of queries that are sampled?

    python benchmarks/tracing.py            # a minute; in memory, without Kafka or a collector
    python benchmarks/tracing.py --quick

The router's own parts in one process, from the records of queries to their indexed predictions: decode, decide, request
models of hosts, gather, combine, record. Kafka is in memory, with batches of aiokafka; the hosts are constants. Queries
are JSON of 64 numbers, 400 together, of which one of two models is asked by `exp3`. All have two headers, as a gateway
writes them, `correlation-id` and `traceparent`, but those of `no headers`.

One router answers as many queries with tracing off and on in turn; what goes first takes turns. The least CPU a query
counts: what disturbs a measurement only makes it longer. Off, nothing is sampled. The thread that gives notes to the
exporter is in the figures. The exporter is not: it is another process, and makes some thousand traces a second of CPU.
"""

from rig import one_thread  # noqa: F401  # isort: skip (before numpy)

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaProducer
from faust.types import TP
from rig.results import Measures, Run, Summary, Target
from rig.session import parsed, report, result_options

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.observability.tracing import TraceSink
from clipper_agents.router.cache_store import MsgpackOutputs
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.effects import EffectRunner
from clipper_agents.router.outputs import OutputAgent
from clipper_agents.router.prediction_log import PredictionLog
from clipper_agents.router.queries import FreshQueries, QueryAgent
from clipper_agents.router.query_traces import QueryTraces
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
TOGETHER, NUMBERS = 400, 64
MODELS = ("a:1", "b:1")
CACHE_BYTES = 64 << 20
NOBODY_READS = (sys.executable, "-c", "import sys\nwhile sys.stdin.buffer.read(1 << 16): pass")
"""In place of the exporter: takes what comes."""
MEASURES: Measures = {
    "µs a query": lambda run: run["us"],
    "µs more": lambda run: run["more_us"],
    "% more": lambda run: run["more_percent"],
}
MOST_MORE_US, MOST_MORE_PERCENT = 0.5, 2.0


class Case(NamedTuple):
    """What is measured.

    Attributes:
        headers: Whether queries have an id and a `traceparent` in headers.
        sampled: Share of the queries whose trace is sampled.
    """

    name: str
    headers: bool
    sampled: float


CASES = (
    Case("no headers", headers=False, sampled=0.0),
    Case("none sampled", headers=True, sampled=0.0),
    Case("1 % sampled", headers=True, sampled=0.01),
    Case("10 % sampled", headers=True, sampled=0.1),
    Case("all sampled", headers=True, sampled=1.0),
)
WARM = 6
"""Pairs that are not measured: caches are empty, and the exporter begins."""


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
        sender._lanes.update({ref: Lane(CATALOGUE.requests(*ref.split(":"))) for ref in MODELS})  # noqa: SLF001 (no topic is looked up)
        effects.connect(sender, unused)
        fresh = FreshQueries(router, decisions, self.log, traces=traces)
        self.queries = QueryAgent(kafka, router, effects, fresh, self.log, unused, self.metrics, unused, traces=traces)
        self._outputs = OutputAgent(identity, router, effects, sender, unused, self.metrics, traces)
        self._stop, self._decisions = effects.stop, decisions

    async def answer(self, records: list[Any]) -> None:
        """Answer queries; returns when their predictions are indexed."""
        self.queries.receive({QUERIES: records}, 0)
        for _ in range(2):
            await asyncio.sleep(0)  # requests are sent in a task for each model
        requests, self.kafka.requests = self.kafka.requests, []
        await self._outputs.serve(_Answers([_answered(*request) for request in requests]))
        await self.log.idle()
        self._stop()

    def close(self) -> None:
        """Close the index."""
        self._decisions.keep_only(())


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
    parser.add_argument("--pairs", type=int, default=60, help="of chunks of 400 queries, in a case and a round")
    options = parsed(parser, {"rounds": 1, "pairs": 5})
    runs = [{"round": number, **run} for number in range(options.rounds) for run in asyncio.run(measured(options))]
    report(options, "median (least to most) of the rounds", runs, MEASURES, targets)


async def measured(options: argparse.Namespace) -> list[Run]:
    """A round: each case in turn."""
    return [await compared(case, options.pairs) for case in CASES]


async def compared(case: Case, pairs: int) -> Run:
    """Answer chunks with the router's tracing off and on, in pairs."""
    base, spent = case._replace(sampled=0.0), defaultdict[bool, list[float]](list)
    with recording() as sink, tempfile.TemporaryDirectory(prefix="clipper-benchmark-") as folder:
        traces = QueryTraces(sink)
        path = RouterPath(Path(folder), traces)
        settle_memory()
        for pair in range(-WARM, pairs):
            for is_on in (True, False) if pair % 2 else (False, True):
                records, traces.is_on = records_of(case if is_on else base, 2 * pair + is_on), is_on
                began_s = time.thread_time()
                await path.answer(records)
                spent[is_on].append((time.thread_time() - began_s) / TOGETHER * 1e6)
            if pair == -1:
                spent.clear()
                before_s = _later_s(sink)
        path.close()
        later_us = (_later_s(sink) - before_s) / pairs / TOGETHER * 1e6
    base_us = min(spent[False])
    more_us = min(spent[True]) - base_us + later_us
    return {
        "system": case.name, "us": base_us + more_us, "more_us": more_us, "more_percent": 100 * more_us / base_us,
        "later_us": later_us,
    }  # fmt: skip


def _later_s(sink: Any) -> float:
    """CPU seconds of the thread that gives spans to their exporter."""
    if sink is None or sink._thread is None:  # noqa: SLF001 (whose time it is)
        return 0.0
    return time.clock_gettime(time.pthread_getcpuclockid(sink._thread.ident))  # noqa: SLF001


@contextmanager
def recording() -> Iterator[TraceSink]:
    """A sink whose notes nobody reads."""
    sink = TraceSink(NOBODY_READS)
    yield sink
    sink.close()


def targets(found: Summary) -> list[Target]:
    def more(row: str, measure: str, bound: float) -> Target:
        return Target.of("tracing", f"{row}: {measure} CPU of the router a query", (found, row, measure), "<=", bound)

    free = [more(row, "µs more", MOST_MORE_US) for row in ("no headers", "none sampled")]
    return [*free, more("1 % sampled", "% more", MOST_MORE_PERCENT)]


if __name__ == "__main__":
    main()
