"""A router without a process: its real parts on logs in memory, in a loop whose time passes at once."""

import asyncio
import selectors
from collections import Counter
from functools import partial
from types import SimpleNamespace

from builders import query_router
from builders.feedback import AT_MS, feedback, prediction
from builders.kafka import FakeLogReader, FakeProducer, Tasks, record
from builders.query_router import application, batches_of, make_caches, outputs_of
from faust.types import TP

from clipper_agents.control.state import ControlState
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.decision_index import log_index
from clipper_agents.router.feedback import FeedbackProcessor
from clipper_agents.router.indexed_log import IndexedLog, QueryLogs
from clipper_agents.router.pipeline import QueryPipeline, QueryStores
from clipper_agents.router.queries import QueryAgent
from clipper_agents.router.query_traces import QueryTraces
from clipper_agents.router.requests import OutputAgent
from clipper_agents.router.selection_store import SelectionStore
from clipper_agents.streaming.app import StateLock
from clipper_agents.streaming.dead_letters import DeadLetterSender
from clipper_agents.streaming.outbox import NO_RECORDS, Outbox
from clipper_stream.query import QueryBatch, Router
from clipper_stream.query.in_flight import UNBOUNDED
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.logged_records import read_audit, read_prediction

CATALOGUE = Catalogue(partitions=3)
QUERIES = TP(CATALOGUE.queries, 0)
AT_S = AT_MS / 1000
"""When queries are asked and feedback is given, unless told: years ago."""
HORIZON_S = 3600.0
query = partial(query_router.query, queried_at_s=AT_S)


class FakeTime(selectors.DefaultSelector):
    """Where a loop would wait for its next timer, the moment of that timer is now."""

    now_s = 0.0

    def select(self, timeout=None):
        found = super().select(timeout and 0.0)
        self.now_s += 0.0 if found else timeout or 0.0
        return found


class FakeTimeLoop(asyncio.SelectorEventLoop):
    """A loop whose time passes only while nothing can run: a sleep takes no time, and ends after all that is ready."""

    def __init__(self):
        self._fake_time = FakeTime()
        super().__init__(self._fake_time)

    def time(self):
        return self._fake_time.now_s


async def settle(seconds=0.001):
    """Let everything run that can, for so long by the loop's time."""
    await asyncio.sleep(seconds)


def query_records(*values, first=0):
    """Records of the queries topic, from an offset on, in JSON or msgpack."""
    kinds = [codec.MSGPACK_HEADERS if value[:1] >= b"\x80" else () for value in values]
    several = enumerate(zip(values, kinds, strict=True), first)
    return [record(offset, value, None, CATALOGUE.queries, headers=kind) for offset, (value, kind) in several]


def one(offset, query_id, **changes):
    """A record of the feedback topic."""
    return feedback(offset, query_id, **changes)[0]


class FakeTable:
    """Rows by partition in memory; what is written beside them goes to its topics.

    Attributes:
        writes: The keys of each step.
        looked: How many rows were looked at in their order.
    """

    def __init__(self, producer=None):
        self.partitions, self.writes, self.looked, self._outbox = {}, [], 0, Outbox(producer)

    def get_row(self, partition, key):
        return self.partitions.get(partition, {}).get(key)

    def items(self, partition, first=b""):
        for row in sorted(row for row in self.partitions.get(partition, {}).items() if row[0] >= first):
            self.looked += 1
            yield row

    def drop(self, partition, keys):
        for key in keys:
            del self.partitions[partition][key]

    async def write(self, partition, rows, beside=NO_RECORDS):
        for topic, records in beside.items():
            await self._outbox.send(topic, partition, records)
        self.partitions.setdefault(partition, {}).update(rows)
        self.writes.append([*rows])


class RouterRig:
    """The parts of a router, for which it plays app, consumer, and the sender of requests.

    Attributes:
        acknowledged: Partition and offset of each query that was acknowledged in its generation.
        unfinished: By topic, how many records at the end of its partitions were not finished.
        since_ms: A time that no unfinished query is older than.
        followed: Up to where the control topic was read.
        sure: Cleared while this process cannot be sure that its partitions are its own.
        answered: Frame and rows of each output that came back.
    """

    def __init__(self, folder, *applications, most_waiting=UNBOUNDED, selection=None, recorder=None, skew=None):
        self.producer, self.tasks, self.state_lock = FakeProducer(batch_bytes=700), Tasks(), StateLock()
        self.producer.timestamp_ms = AT_MS
        self.log_reader, self.outbox = FakeLogReader(self.producer, AT_MS), Outbox(self.producer)
        self.consumer = self.lease = self
        self.generation, self.followed, self.unfinished, self.sure = 0, 0, Counter(), asyncio.Event()
        self.acknowledged, self.answered = [], []
        self.trackers = {QUERIES: self}
        self.since_ms, self.first, self.start = AT_MS, 0, 0
        self.sure.set()
        self.control, self.metrics, self.table = ControlState(), RouterMetrics(), FakeTable(self.producer)
        self.traces = QueryTraces(recorder, self.metrics)
        self.known = {app.name: app for app in applications or (application(), application("other"))}
        self.decisions, self.audits = (log_index(folder / name, HORIZON_S) for name in ("decisions", "audits"))
        for index in (self.decisions, self.audits):
            index[0].begin(0.0, 0.0)
        self.logs = QueryLogs(
            IndexedLog(self, CATALOGUE.predictions, self.decisions, read_prediction, skew),
            IndexedLog(self, CATALOGUE.audits, self.audits, read_audit),
        )
        self.selection = selection or SelectionStore(self.table, CATALOGUE.partitions)
        registry = SimpleNamespace(applications=self.known, restore=self.control.restores.get)
        stores = QueryStores(registry, self.selection, make_caches(), self.logs)
        self.router = Router(most_waiting)
        self.pipeline = QueryPipeline(self.router, stores, self, CATALOGUE.queries, self.metrics, self.traces)
        self.requests = {}
        sender = SimpleNamespace(put=self.note_request, forget=list)
        nothing = SimpleNamespace(put=list, models={}, has_id=lambda *_: False)
        self.pipeline.connect(sender, nothing, nothing)
        self.dead_letters = DeadLetterSender(self.outbox, CATALOGUE.dead_letters, self.tasks)
        self.agent = QueryAgent(self, self.pipeline, self.logs, self.dead_letters, self.metrics, nothing)
        self.outputs = OutputAgent(b"mine", self.pipeline, self, self.dead_letters, self.metrics)
        control = SimpleNamespace(followed_upto=lambda: self.followed)
        queries = SimpleNamespace(may_decide=lambda tp, _, end: self.finished_upto(tp) < end)
        self.learner = FeedbackProcessor(self, CATALOGUE, stores, control, queries, self.metrics)

    def close(self):
        self.pipeline.stop()
        self.logs.keep_only(())

    # --- as its parts see it ---
    def watched(self, work):
        return self.tasks.watched(work)

    def watch(self, task):
        self.tasks.watch(task)

    async def confirmed(self):
        await self.sure.wait()

    def acknowledge(self, tp, offsets, generation):
        if generation == self.generation:
            self.acknowledged += [(tp.partition, offset) for offset in offsets]

    def finished_upto(self, tp):
        return len(self.log(tp.topic, tp.partition)) - self.unfinished[tp.topic]

    def taken_upto(self, tp):
        return len(self.log(*tp))

    def is_finished(self, offset):
        return not self.unfinished[CATALOGUE.queries]

    async def committed(self, partitions):
        return {TP(*tp): self.finished_upto(TP(*tp)) for tp in partitions}

    def owned_partitions(self, topic):
        return [0]

    def count_answered(self, frame, rows):
        self.answered.append((frame, rows))

    # --- what is done to it ---
    def ask(self, *queries):
        """Have queries, or batches, decided about; the requests by model."""
        self.requests = {}
        batches = queries if isinstance(queries[0], QueryBatch) else batches_of(queries)
        self.pipeline.receive(batches, AT_S)
        self.pipeline.stop()  # the deadline is years past
        return self.requests

    def note_request(self, request):
        self.requests[request.ref] = request

    def answer(self, request, model=int, **rows):
        """A host answers a request, or some rows of it."""
        self.carry_out(self.router.gather([outputs_of(request, model, **rows)], AT_S + 0.1))

    def carry_out(self, effects):
        self.pipeline.carry_out(effects)
        self.pipeline.stop()

    async def read(self, *values, first=0, generation=0):
        """Queries of these values are read, and what becomes of them at once happens."""
        self.agent.receive({QUERIES: query_records(*values, first=first)}, generation)
        await settle()

    async def feed(self, *records, partition=0, generation=0):
        return await self.learner.learn(partition, [*records], generation)

    async def begin_to_feed(self, *records, seconds, unfinished=1):
        """Feed while a query is not finished; so long later the feedback waits still."""
        self.unfinished[CATALOGUE.queries] = unfinished
        self.producer.append(CATALOGUE.queries, 0, None, b"")
        learning = asyncio.ensure_future(self.feed(*records))
        await settle(seconds)
        assert not learning.done()
        return learning

    def predict(self, *query_ids, partition=0, **changes):
        """Another process writes predictions, which nobody has read yet."""
        for query_id in query_ids:
            value = codec.predictions.encode(prediction(query_id, **changes))
            self.producer.append(CATALOGUE.predictions, partition, b"key", value)

    async def decide(self, *query_ids, partition=0, **changes):
        """The same, and they are read."""
        self.predict(*query_ids, partition=partition, **changes)
        await self.logs.catch_up([partition])

    async def restore(self):
        """Partition 0 is taken over: its logs are read on, and nothing is in flight."""
        await self.logs.idle()
        self.router.reset()
        marks = self.producer.mark(CATALOGUE.predictions) | self.producer.mark(CATALOGUE.audits)
        return await self.logs.restore({0: 0}, marks, {0: AT_MS})

    # --- what came of it ---
    def log(self, topic, partition=0):
        """Key, value and headers of each record."""
        return self.producer.logs.get((topic, partition), [])

    def predictions(self, partition=0):
        log = self.log(CATALOGUE.predictions, partition)
        return [codec.predictions.decode(value, headers) for _, value, headers in log if value]

    def ids(self, partition=0):
        """The queries that predictions in the log are about."""
        return [one.query_id for one in self.predictions(partition)]

    def found(self, *query_ids, partition=0):
        """Where the indexed predictions stand."""
        return [known and known.offset for known in self.decisions[partition].find(query_ids)]

    def counts(self, name, label):
        """Values of a counter by one of its labels."""
        samples = (sample for family in self.metrics.registry.collect() for sample in family.samples)
        return {sample.labels[label]: sample.value for sample in samples if sample.name == name}
