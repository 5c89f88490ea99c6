"""The router as a process: `run` until SIGTERM.

    built --> started --> partitions given --> restored --> inputs flow --> partitions taken --> ...
                                                               '--> SIGTERM --> drained --> stopped

`RouterProcess` builds every part before anything starts, each with the parts that it uses. What a query passes is in
`queries` and `outputs`, what a feedback passes in `feedback`.
"""

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from faust.types import TP

from clipper_agents.control.host_reports import HostReports, address_of
from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.kafka.follower import TopicFollower
from clipper_agents.kafka.reader import LogReader
from clipper_agents.kafka.retry import WORKERS
from clipper_agents.kafka.topic_ids import TopicIds
from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.observability.tracing import start_recorder
from clipper_agents.router.applications import ApplicationRegistry
from clipper_agents.router.colocated_models import ColocatedModels
from clipper_agents.router.decision_index import log_index
from clipper_agents.router.feedback import FeedbackProcessor
from clipper_agents.router.indexed_log import IndexedLog, QueryLogs, unread_since_ms
from clipper_agents.router.models import ModelLifecycle
from clipper_agents.router.pipeline import UNKNOWN_APPLICATION, QueryPipeline, QueryStores, partition_caches
from clipper_agents.router.queries import QueryAgent
from clipper_agents.router.query_traces import QueryTraces
from clipper_agents.router.requests import OutputAgent, RequestSender
from clipper_agents.router.selection_store import ContextBound, SelectionStore
from clipper_agents.router.self_report import ClockSkew, RouterReports
from clipper_agents.router.set_aside import READ_BYTES, DeferredQueries, SkippedBacklogs
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import RouterSection
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.dead_letters import DeadLetterSender
from clipper_agents.streaming.partition_writer import PartitionWriter
from clipper_agents.streaming.storage import claim, discard_stale_folders
from clipper_agents.streaming.table import TransactionalTable
from clipper_agents.streaming.worker_process import redirect_stdout, run_worker
from clipper_stream.query import Router
from clipper_topics.feedback import repeated_between
from clipper_topics.logged_records import read_audit, read_prediction

DECISIONS, AUDITS = "decisions", "audits"
"""Folders of the indexes, in the data directory."""
PUBLISH_EVERY_S = 0.2
"""How often changed totals reach the other routers; two idle followers cost less than a hundredth of a core."""
REPORT_EVERY_S = 1.0
SAY_EVERY_S = 5.0
LAST_WORD_S = 1.0
FORGET_EVERY_S = 10.0
HAND_OVER_S = 3.0
"""Longest wait for the broker before partitions are given away."""
DRAIN_S = 5.0
"""Longest wait for queries in flight when the process is told to stop."""


def run(settings: WorkerSettings[RouterSection], metrics: RouterMetrics, port: int) -> None:
    """Route until SIGTERM; prints `ready role=router instance=... metrics=PORT` when it serves.

    Its metrics and probes are served on `port` already.

    Raises:
        StorageRefused: the data directory cannot be written, or another process uses it.
        StorageFailed: there is no space in it.
    """
    redirect_stdout()
    claim(settings.data_dir)
    ready = f"ready role=router instance={settings.instance} metrics={port}"
    run_worker(lambda: RouterProcess(settings, metrics, port), ready, settings.kafka, metrics.health)


class RouterProcess:
    """The router process, for the partitions that Kafka assigns to it.

    Attributes:
        app: The Faust app.
        metrics: Metrics of the process, served on `port`.
    """

    def __init__(self, settings: WorkerSettings[RouterSection], metrics: RouterMetrics, port: int) -> None:
        catalogue, folder = settings.catalogue, settings.data_dir
        identity = os.urandom(8)  # new at each start: outputs for another process are somebody else's
        self._settings, self.metrics = settings, metrics
        metrics.health.serves(self._unready)
        metrics.watch_disk(folder)
        self._traces = traces = QueryTraces(
            start_recorder("router", settings.instance, metrics.counter("clipper_spans_lost_total")), metrics
        )
        self._skew, self._ahead_s, self._rebalances = ClockSkew(), 0.0, 0
        self._reports: RouterReports | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._metrics_address = address_of(settings.section.metrics_address, port)
        self.app = app = ClipperApp(catalogue.router_group, settings.kafka, folder, settings.instance)
        app.topic_ids = TopicIds({spec.name: spec.partitions for spec in catalogue.fixed_topics()})
        app.restore_state, app.state_positions = self._restore, self._positions

        # what is known: manifests, hosts, selection state, caches, logs
        self._hosts, self._table = ReadyHosts(), self._selection_table()
        self._selection = SelectionStore(self._table, catalogue.partitions)
        self._registry = ApplicationRegistry(
            changed=self._selection.forget,
            refused=metrics.counter("clipper_manifests_refused_total").inc,
            allowed=settings.allowed,
            files=settings.files,
            ready=self._hosts.is_ready,
        )
        self._control = TopicFollower(settings.kafka, catalogue.control, self._take_changes)
        self._followers = [
            self._control,
            TopicFollower(settings.kafka, catalogue.selection, self._selection.take_published),
            TopicFollower(settings.kafka, catalogue.hosts, self._take_reports),
        ]
        decisions, audits = (log_index(folder / name, settings.horizon_s) for name in (DECISIONS, AUDITS))
        self._logs = QueryLogs(
            IndexedLog(app, catalogue.predictions, decisions, read_prediction, self._skew),
            IndexedLog(app, catalogue.audits, audits, read_audit),
        )
        self._caches = partition_caches(folder / "cache", int(settings.section.cache_mib * 1024 * 1024))
        stores = QueryStores(self._registry, self._selection, self._caches, self._logs)

        # a query's life
        self._router = Router(settings.section.max_in_flight)
        self._pipeline = QueryPipeline(self._router, stores, app, catalogue.queries, metrics, traces)
        self._sender = RequestSender(app, catalogue, identity, self._registry, self._pipeline, traces)
        self._colocated = ColocatedModels(
            metrics, self._pipeline, app, settings.allowed, settings.files, traces.recorder
        )
        read_again = partial(LogReader, settings.kafka, policy=WORKERS)
        self._deferred = DeferredQueries(app, read_again(), catalogue.queries, self._router.admission)
        self._backlogs = SkippedBacklogs(app, read_again(fetch_bytes=READ_BYTES), self._pipeline.room)
        self._pipeline.connect(self._sender, self._colocated, self._deferred)
        self._models = ModelLifecycle(self._registry, self._hosts, self._sender, self._colocated, metrics, app)

        # the agents
        dead_letters = DeadLetterSender(app.outbox, catalogue.dead_letters, app)
        self._agent = QueryAgent(app, self._pipeline, self._logs, dead_letters, metrics, self._backlogs, traces)
        outputs = OutputAgent(identity, self._pipeline, self._sender, dead_letters, metrics)
        self._feedback = FeedbackProcessor(app, catalogue, stores, self._control, self._agent, metrics, traces)
        self._contexts = ContextBound(app, catalogue.feedback, self._selection, settings.section.max_contexts)
        app.agent(app.consumer.channel(catalogue.queries), name="route")(self._agent.serve)
        app.agent(app.consumer.channel(catalogue.outputs), name="gather")(outputs.serve)
        app.agent(app.consumer.channel(catalogue.feedback), name="learn")(self._feedback.serve)

    async def start(self) -> None:
        """Start everything; returns when the inputs flow, or the app has crashed."""
        app = self.app
        app.on_partitions_revoked.connect(self._revoked)
        await app.maybe_start_producer()
        self._tasks.append(app.watch_brokers(self.metrics.set_broker_reachable))
        await self._refer_to_topics()
        reports = HostReports(self._settings.kafka, self._settings.catalogue.hosts)
        self._reports = RouterReports(reports, self._settings.instance, self._metrics_address, self._settings.data_dir)
        for work in (
            *(follower.run() for follower in self._followers),
            self._deferred.run(self._agent),
            self._backlogs.run(self._agent),
            _every(PUBLISH_EVERY_S, self._publish_totals),
            _every(PUBLISH_EVERY_S, self._follow_models),
            _every(REPORT_EVERY_S, self._report),
            _every(SAY_EVERY_S, self._say),
            _every(FORGET_EVERY_S, self._forget),
        ):
            self._tasks.append(app.watched(work))
        await app.start()

    async def stop(self) -> None:
        """Let the queries in flight finish, then stop; the next process reads again what was not acknowledged."""
        if self.app.generation < 0:  # nothing is owned, so nothing is under way
            await self._withdraw()
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._pipeline.drain()
        await self._logs.idle()
        await self._publish_totals()
        self._pipeline.stop()
        await self.app.leave()
        for task in self._tasks:
            task.cancel()
        await self._colocated.stop()
        await self._selection.stop()
        await self._withdraw()
        await self.app.log_reader.close()
        await self._deferred.close()
        await self._backlogs.close()
        self._keep_only(set())

    def _unready(self) -> list[str]:
        """Say why this router does not serve; it waits for models when it starts, and for none that come later."""
        reasons = self.app.unready()
        return [*reasons, *(f"model {ref} is loading" for ref in self._colocated.loading if self.app.generation < 0)]

    # --- what is followed -------------------------------------------------------------------------------------------
    def _take_changes(self, records: list[ConsumerRecord[Any, Any]]) -> None:
        self._registry.take(records)
        applications = self._registry.applications
        self._router.admission.shared = len(applications) > 1
        self.app.pace.keep(application.objective_s for application in applications.values())

    def _take_reports(self, records: list[ConsumerRecord[Any, Any]]) -> None:
        if self._hosts.take(records):
            self._registry.resolve()

    # --- state ------------------------------------------------------------------------------------------------------
    def _selection_table(self) -> TransactionalTable:
        catalogue = self._settings.catalogue
        table = TransactionalTable(
            self.app,
            name="selection",
            partitions=catalogue.partitions,
            open_writer=partial(PartitionWriter, self._settings.kafka),
            marked=(catalogue.predictions, catalogue.audits),
        )
        self.app.tables.add(table)
        return table

    async def _refer_to_topics(self) -> None:
        catalogue, ids = self._settings.catalogue, self.app.topic_ids
        indexed = (*catalogue.logs, catalogue.selection_changelog)
        others = (catalogue.outputs, catalogue.selection, catalogue.control, catalogue.hosts, catalogue.feedback_acks)
        await ids.learn(self.app.kafka_producer.client, (*indexed, *others))
        folders = [self._settings.data_dir / name for name in (DECISIONS, AUDITS)]
        discard_stale_folders(
            self._settings.data_dir, {name: ids.known[name] for name in indexed}, [*folders, self.app.conf.tabledir]
        )

    async def _restore(self, owned: set[int]) -> None:
        """Restore all state but the tables before the inputs flow: manifests, totals, decisions, applied feedback."""
        for follower in self._followers:
            await follower.caught_up.wait()
        await self._models.reach()
        await self._logs.idle()
        self._keep_only(owned)
        self._selection.own(owned)
        await self._selection.drop_forgotten()
        await self._selection.refer_to({name: self.app.topic_ids.known[name] for name in self._settings.catalogue.logs})
        queries, feedback = await self._unread()
        predictions, ends = self._settings.catalogue.predictions, self._table.ends
        unread_ms = await unread_since_ms(self.app.log_reader, queries, feedback, predictions, ends)
        horizon_ms = self._settings.horizon_s * 1000
        feedback_since = {number: int(repeated_between(at_ms, horizon_ms)[0]) for number, at_ms in unread_ms.items()}
        # to tell what that feedback was about
        since_ms = {number: int(repeated_between(at_ms, horizon_ms)[0]) for number, at_ms in feedback_since.items()}
        await self._logs.restore(since_ms, ends, unread_ms)
        await self._feedback.rebuild_applied_feedback(feedback_since)
        self._deferred.clear()
        self._backlogs.clear()
        self._sender.forget_all()
        self._pipeline.reset()

    def _keep_only(self, owned: set[int]) -> None:
        self._logs.keep_only(owned)
        self._caches.keep_only(owned)

    async def _unread(self) -> tuple[dict[TopicPartition, int], dict[TopicPartition, int]]:
        catalogue = self._settings.catalogue
        everywhere = [(catalogue.feedback, number) for number in range(catalogue.partitions)]
        owned = [(catalogue.queries, number) for number in self.app.owned_partitions(catalogue.queries)]
        queries = await self.app.consumer.committed(owned)
        feedback = await self.app.consumer.committed(everywhere) | await self._positions()
        return (
            {TopicPartition(*tp): offset for tp, offset in queries.items()},
            {TopicPartition(*tp): offset for tp, offset in feedback.items()},
        )

    async def _positions(self) -> dict[TP, int]:
        """Return the offsets to read feedback from: behind the rows' positions, whatever offset is committed."""
        feedback = self._settings.catalogue.feedback
        owned = self.app.owned_partitions(feedback)
        return {TP(feedback, number): self._selection.position(number) + 1 for number in owned}

    async def _revoked(self, *_: Any, **__: Any) -> None:
        """Drop what is in flight; the next owner of the partitions reads it again.

        Kafka gives them away when this returns. What is on its way to the broker then would come after the next owner
        has read the log; so it is waited for, as long as that cannot cost the lease.
        """
        traces = self._router.traces()
        self._pipeline.reset()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S), self.app.state_lock.of_all():
                await self._logs.idle()
        self._traces.drop(traces)

    # --- background -------------------------------------------------------------------------------------------------
    async def _publish_totals(self) -> None:
        records = self._selection.unpublished()
        if records:
            await self.app.outbox.send(self._settings.catalogue.selection, 0, records)

    async def _follow_models(self) -> None:
        self._models.follow()

    async def _forget(self) -> None:
        await self._feedback.forget_old()
        await self._contexts.hold()

    async def _say(self) -> None:
        if self._reports is not None:
            await asyncio.to_thread(self._reports.look, self._unready(), self._ahead_s)

    async def _withdraw(self) -> None:
        if self._reports is not None:
            await asyncio.to_thread(self._reports.leave, LAST_WORD_S)

    async def _report(self) -> None:
        metrics, app = self.metrics, self.app
        metrics.counter("clipper_rebalances_total").inc(app.rebalances - self._rebalances)
        self._rebalances = app.rebalances
        metrics.gauge("clipper_in_flight").set(self._router.in_flight)
        metrics.gauge("clipper_deferred_queries").set(self._router.admission.deferred + self._backlogs.skipped)
        metrics.gauge("clipper_cache_bytes").set(sum(cache.entries.size_bytes for cache in self._caches.values()))
        if (skew_s := self._skew.take()) is not None:
            self._ahead_s = skew_s
            metrics.gauge("clipper_clock_skew_seconds").set(skew_s)
        if app.generation >= 0:
            metrics.set_consumer_lag(app.consumer.lag())
            hosts = {(ref,): self._hosts.hosts(ref) for ref in self._registry.hosted}
            metrics.set_gauges("clipper_ready_hosts", hosts)
            self._report_applications()

    def _report_applications(self) -> None:
        """Show objectives and weights of applications with series of their own; end the series of those that left."""
        by_name = self._registry.applications
        self.metrics.keep("application", {UNKNOWN_APPLICATION, *by_name})
        objectives_s = {(name,): one.objective_s for name, one in by_name.items() if one.objective_s is not None}
        self.metrics.set_gauges("clipper_objective_seconds", objectives_s)
        shown = [by_name[name] for name in self.metrics.shown("application", by_name) if by_name[name].refs]
        weights = {application.name: self._selection.prepare(application, 0, None).weights for application in shown}
        shares = {(name, model): weight for name, of in weights.items() for model, weight in of.items()}
        self.metrics.set_gauges("clipper_selection_weight", shares)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await work()
        await asyncio.sleep(seconds)
