"""What does tracing cost a router a query, by the share of queries that are sampled?

    python benchmarks/tracing.py            # two minutes; in memory, without Kafka or a collector
    python benchmarks/tracing.py --quick

The router's own parts in one process, from the records of queries to their indexed predictions: decode, decide, request
models of hosts, gather, combine, record. Kafka is in memory, with batches of aiokafka; the hosts are constants. Queries
are JSON of 64 numbers, 400 together, of which one of two models is asked by `exp3`. All have two headers, as a gateway
writes them, `correlation-id` and `traceparent`, but those of `no headers`.

What tracing does is too little to be seen in the whole, so it is timed by itself: decoding of the same records with
tracing off and on; in place, all that makes spans while queries are served; and the thread that sends them, to a
process that takes what comes. Of a list, and of the chunks, the least counts, and so it does of what a query costs with
tracing off: what disturbs a measurement only makes it longer.
"""

from rig import one_thread  # noqa: F401  # isort: skip (before numpy)

import argparse
import asyncio
import math
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple, cast

import msgspec
from aiokafka.producer.message_accumulator import BatchBuilder
from faust.types import TP
from opentelemetry.sdk.trace import SpanProcessor
from prometheus_client import Counter
from rig.results import Measures, Run, Summary, Target
from rig.session import parsed, report, result_options

from clipper_agents.memory import settle_memory
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.observability.span_exporter import SpanQueue, SpanRecorder, resource_of
from clipper_agents.observability.tracing import ENDPOINTS
from clipper_agents.router.decision_index import log_index
from clipper_agents.router.indexed_log import IndexedLog, QueryLogs
from clipper_agents.router.pipeline import QueryPipeline, QueryStores, partition_caches
from clipper_agents.router.queries import QueryAgent, decode_queries
from clipper_agents.router.query_traces import QueryTraces
from clipper_agents.router.requests import OutputAgent, RequestSender
from clipper_agents.streaming.outbox import MAX_BATCH_BYTES, Outbox
from clipper_stream.caching.cache import version_digest
from clipper_stream.models.row_spec import RowSpec
from clipper_stream.query import Application, CandidateModel, Router
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import OutputFrame, decode_request, encode_frame
from clipper_topics.logged_records import read_audit, read_prediction

CATALOGUE = Catalogue(partitions=1)
QUERIES = TP(CATALOGUE.queries, 0)
TOGETHER, NUMBERS = 400, 64
MODELS = ("a:1", "b:1")
CACHE_BYTES = 64 << 20
COLLECTOR = """
from http.server import BaseHTTPRequestHandler, HTTPServer

class Collector(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass

server = HTTPServer(("127.0.0.1", 0), Collector)
print(server.server_port, flush=True)
server.serve_forever()
"""
THREAD = "OtelBatchSpanRecordProcessor"
"""Name of the thread that sends spans."""
MEASURES: Measures = {
    "µs a query": lambda run: run["us"],
    "µs more": lambda run: run["more_us"],
    "% more": lambda run: run["more_percent"],
}
MOST_MORE_US, MOST_MORE_PERCENT = 0.1, 6.0


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
NONE = CASES[1]
WARM = 12
"""Chunks that are not measured: caches are empty, and the collector begins."""
DECODED, LISTS = 100, 20
"""Records of a list that is decoded, as the router has them; lists."""


class Stopwatch:
    """Adds up the CPU time of calls.

    Attributes:
        spent_s: CPU seconds of this thread, without those of looking at the clock.
    """

    def __init__(self) -> None:
        self.spent_s, self._clock_s = 0.0, 0.0
        self._clock_s = min(self._empty_s() for _ in range(1_000))

    def timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call, timed."""

        def timed(*given: Any) -> Any:
            began_s = time.thread_time()
            found = call(*given)
            self.spent_s += time.thread_time() - began_s - self._clock_s
            return found

        return timed

    def _empty_s(self) -> float:
        self.spent_s = 0.0
        self.timed(lambda: None)()
        return self.spent_s


TRACING = ("decided", "sending", "recorded")
"""What is called of `QueryTraces` where queries are served, but for what is called while they are decoded."""


def timed_traces(recorder: SpanRecorder, metrics: RouterMetrics, watch: Stopwatch) -> QueryTraces:
    """A router's traces, which are timed."""
    traces = QueryTraces(recorder, metrics)
    for name in TRACING:
        setattr(traces, name, watch.timed(getattr(traces, name)))
    return traces


class MemoryKafka:
    """A producer, an app and a consumer in one, whose batches are aiokafka's and go nowhere."""

    def __init__(self) -> None:
        self.client, self.cluster = self, SimpleNamespace(partitions_for_topic=lambda _: {0})
        self.consumer = self.lease = self.kafka_producer = self.log_reader = self
        self.outbox, self.generation, self.requests = Outbox(cast("Any", self)), 0, list[tuple[bytes, Any]]()
        self._offsets: defaultdict[str, int] = defaultdict(int)

    def create_batch(self) -> Any:
        return BatchBuilder(MAX_BATCH_BYTES, 0)

    async def add_topic(self, _: str) -> None:
        """Do nothing: all topics are there."""

    async def partitions_for(self, _: str) -> set[int]:
        return {0}

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

    async def confirmed(self) -> None:
        """Do nothing: the partitions are its own."""

    def acknowledge(self, *_: object) -> None:
        """Do nothing."""

    def owned_partitions(self, _: str) -> list[int]:
        return [0]

    def watched(self, work: Any) -> Any:
        return asyncio.ensure_future(work)

    def watch(self, work: Any) -> None:
        """Do nothing: what is sent is stored."""


class NoModels:
    """No model runs in the router, no dead letter comes, nothing is deferred, no backlog is left."""

    models: ClassVar[dict[str, object]] = {}

    def put(self, _: object) -> None:
        """Do nothing."""

    def skip_if_behind(self, *_: object) -> None:
        """Do nothing."""

    def is_full(self, _: object) -> bool:
        return False


class RouterPath:
    """A router without its consumers, and a host that answers at once."""

    def __init__(self, folder: Path, traces: QueryTraces, metrics: RouterMetrics) -> None:
        identity, nobody = b"benchmark", NoModels()
        self.kafka, self.metrics, self.traces = MemoryKafka(), metrics, traces
        app: Any = self.kafka
        unused: Any = nobody
        application = _application()
        registry: Any = SimpleNamespace(applications={application.name: application}, dtype_of=lambda _: "float32")
        choice = application.choice(SelectionState())  # a router prepares it once for each state
        selection: Any = SimpleNamespace(prepare=lambda *_: choice)
        indexes = [log_index(folder / name, 3600.0) for name in ("decisions", "audits")]
        self.log = QueryLogs(
            IndexedLog(app, CATALOGUE.predictions, indexes[0], read_prediction),
            IndexedLog(app, CATALOGUE.audits, indexes[1], read_audit),
        )
        stores = QueryStores(registry, selection, partition_caches(folder / "cache", CACHE_BYTES), self.log)
        pipeline = QueryPipeline(Router(), stores, app, CATALOGUE.queries, self.metrics, traces)
        self._sender = sender = RequestSender(app, CATALOGUE, identity, registry, pipeline, traces)
        pipeline.connect(sender, unused, unused)
        self.queries = QueryAgent(app, pipeline, self.log, unused, self.metrics, unused, traces)
        self._outputs = OutputAgent(identity, pipeline, sender, unused, self.metrics)
        self._stop = pipeline.stop

    async def open(self) -> None:
        """Find the models' topics."""
        for ref in MODELS:
            await self._sender.open(ref)

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
        self.log.keep_only(())


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
        timestamp=int(time.time() * 1000), timestamp_type=1,
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
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--chunks", type=int, default=200, help="of 400 queries, in a case and a round")
    parser.add_argument("--repeats", type=int, default=40, help="of decoding a list, of which the fastest counts")
    options = parsed(parser, {"rounds": 1, "chunks": 8, "repeats": 2})
    runs = [{"round": number, **run} for number in range(options.rounds) for run in asyncio.run(measured(options))]
    report(options, "median (least to most) of the rounds", runs, MEASURES, targets)


async def measured(options: argparse.Namespace) -> list[Run]:
    """A round: each case in turn."""
    return [await added(case, options.chunks, options.repeats) for case in CASES]


async def added(case: Case, chunks: int, repeats: int) -> Run:
    """Answer chunks of queries, with tracing on in every other one, and add up what tracing does."""
    with recording() as recorder, tempfile.TemporaryDirectory(prefix="clipper-benchmark-") as folder:
        watch = Stopwatch()
        traces = timed_traces(recorder, metrics := RouterMetrics(), watch)
        path = RouterPath(Path(folder), traces, metrics)
        await path.open()
        settle_memory()
        decoding_us = decoding(case, traces, repeats)
        base, spent_us, before_s = [], [], 0.0
        for number in range(-WARM, chunks):
            is_on = bool(number % 2)
            records, traces.is_on, watch.spent_s = records_of(case if is_on else NONE, number), is_on, 0.0
            began_s = time.thread_time()
            await path.answer(records)
            took_s = time.thread_time() - began_s
            if number == 0:
                before_s = _later_s(recorder.queue)
            if number >= 0:
                (spent_us if is_on else base).append((watch.spent_s if is_on else took_s) / TOGETHER * 1e6)
        path.close()
        later_us = (_later_s(recorder.queue) - before_s) / len(spent_us) / TOGETHER * 1e6
    base_us = min(base)
    more_us = decoding_us + min(spent_us) + later_us
    return {
        "system": case.name, "us": base_us + more_us, "more_us": more_us, "more_percent": 100 * more_us / base_us,
        "decoding_us": decoding_us, "later_us": later_us,
    }  # fmt: skip


def decoding(case: Case, traces: QueryTraces, repeats: int) -> float:
    """How much longer a query takes to decode with tracing on, in microseconds, by the least of many times."""
    least: dict[tuple[int, bool], float] = {}
    lists = [records_of(case, 10_000 + number, DECODED) for number in range(LISTS)]
    for repeat in range(repeats):
        for number, records in enumerate(lists):
            for is_on in (False, True) if repeat % 2 else (True, False):
                traces.is_on = is_on
                began_s = time.thread_time()
                decode_queries(records, 0, math.inf, traces)
                took_s = time.thread_time() - began_s
                least[number, is_on] = min(took_s, least.get((number, is_on), math.inf))
                traces.undecided.clear()  # spans that do not end are sent nowhere
    more_s = sum(took_s if is_on else -took_s for (_, is_on), took_s in least.items())
    return more_s / LISTS / DECODED * 1e6


_flushed_s = [0.0]
"""CPU seconds of sending spans that were left."""


def _later_s(queue: SpanProcessor) -> float:
    """CPU seconds of sending spans, in the thread that does it and here, where all that are left are sent."""
    began_s = time.thread_time()
    queue.force_flush()
    _flushed_s[0] += time.thread_time() - began_s
    (thread,) = (one for one in threading.enumerate() if one.name == THREAD)
    return time.clock_gettime(time.pthread_getcpuclockid(cast("int", thread.ident))) + _flushed_s[0]


@contextmanager
def recording() -> Iterator[SpanRecorder]:
    """A recorder whose spans go to a collector that takes what comes."""
    with subprocess.Popen((sys.executable, "-c", COLLECTOR), stdout=subprocess.PIPE, text=True) as collector:
        assert collector.stdout is not None
        os.environ[ENDPOINTS[0]] = f"http://127.0.0.1:{collector.stdout.readline().strip()}/v1/traces"
        queue = SpanQueue(Counter("lost", "Spans.", registry=None))
        yield SpanRecorder(queue, resource_of("router", "benchmark"))
        queue.shutdown()
        collector.terminate()


def targets(found: Summary) -> list[Target]:
    def more(row: str, measure: str, bound: float) -> Target:
        return Target.of("tracing", f"{row}: {measure} CPU of the router a query", (found, row, measure), "<=", bound)

    free = [more(row, "µs more", MOST_MORE_US) for row in ("no headers", "none sampled")]
    return [*free, more("1 % sampled", "% more", MOST_MORE_PERCENT)]


if __name__ == "__main__":
    main()
