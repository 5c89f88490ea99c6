"""One router process: its parts, and what holds them together."""

import asyncio
import contextlib
import logging
import os
import time
from itertools import groupby
from operator import attrgetter
from typing import Any

import msgspec
from aiokafka import ConsumerRecord
from faust.types import TP

from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.observability.metrics import HostMetrics, RouterMetrics
from clipper_agents.observability.stages import Stages, StageTimers, untimed
from clipper_agents.router.agents import add_agents, gather_frames
from clipper_agents.router.applications import ApplicationRegistry
from clipper_agents.router.audit_log import AuditLog
from clipper_agents.router.cache_store import PartitionCaches
from clipper_agents.router.clock_skew import ClockSkew
from clipper_agents.router.colocated import ColocatedModels
from clipper_agents.router.decision_index import LogIndex
from clipper_agents.router.effects import UNKNOWN_APPLICATION, EffectRunner
from clipper_agents.router.feedback import FeedbackProcessor
from clipper_agents.router.model_discovery import ModelDiscovery
from clipper_agents.router.model_teardown import ModelTeardown
from clipper_agents.router.prediction_log import PredictionLog
from clipper_agents.router.requests import RequestSender
from clipper_agents.router.restore_markers import Restores
from clipper_agents.router.selection_store import SelectionStore, newer
from clipper_agents.settings.workers import RouterSettings
from clipper_agents.streaming.app import make_app
from clipper_agents.streaming.follower import Follower
from clipper_agents.streaming.table import StepTable
from clipper_stream.query import OutputPiece, QueryAnswer, Request, Router

logger = logging.getLogger(__name__)

PUBLISH_EVERY_S = 0.2
"""How often changed totals reach the other routers; two idle followers cost less than a hundredth of a core."""
REPORT_EVERY_S = 1.0
MOST_LEAD_S = 0.010
"""A broker that hesitates must not make the router give up on its models."""
HAND_OVER_S = 3.0
"""Longest wait for the broker before partitions are given away."""
MOST_AUDITS_RATIO = 0.5
"""Of `max_in_flight`: a version on trial that hangs must not keep queries from being read."""
DRAIN_S = 5.0
"""Longest wait for queries in flight when the process is told to stop."""


_application_and_reason = attrgetter("application", "reason")


class _OutputCodec:
    """Outputs in the cache are msgpack."""

    dumps = staticmethod(msgspec.msgpack.Encoder().encode)
    loads = staticmethod(msgspec.msgpack.Decoder().decode)


class RouterProcess:
    """The router of the partitions that Kafka gives to this process.

    Attributes:
        identity: Of this process, new at each start: outputs for another are somebody else's.
        room: Set while there is room for more queries in flight.
        stage: Times what the process does, when it was told to.
    """

    def __init__(self, settings: RouterSettings) -> None:
        catalogue = settings.catalogue
        self.settings = settings
        self.identity = os.urandom(8)
        self.metrics = RouterMetrics()
        self._timers = StageTimers() if settings.profile else None
        self.stage: Stages = self._timers or untimed
        self.skew = ClockSkew()
        self.room = asyncio.Event()
        self.room.set()
        self.app = make_app(catalogue.router_group, settings.kafka, settings.data_dir, settings.instance)
        self.app.restore_state = self._restore
        self.app.state_positions = self._positions
        table = StepTable(
            self.app,
            name="selection",
            partitions=catalogue.partitions,
            newer=newer,
            options={"block_cache_size": 8 << 20, "write_buffer_size": 4 << 20, "bloom_filter_size": 10},
        )
        self.app.tables.add(table)
        self.selection = SelectionStore(table, catalogue.partitions)
        self.hosts = ReadyHosts()
        self.registry = ApplicationRegistry(
            changed=self.selection.forget,
            refused=self.metrics.count_refused_manifest,
            allowed=settings.allowed,
            files=settings.files,
            ready=self.hosts.is_ready,
        )
        self.caches = PartitionCaches(settings.data_dir / "cache", settings.cache_bytes)
        self.decisions = LogIndex(settings.data_dir / "decisions", settings.horizon_s)
        self.audits = LogIndex(settings.data_dir / "audits", settings.horizon_s)
        self.router = Router(self.registry.application, self.selection.prepare, self.caches.of, _OutputCodec())
        self.colocated = ColocatedModels(
            HostMetrics(self.metrics.families),
            lambda frames: gather_frames(self, frames),
            self.app.watch,
            settings.allowed,
            files=settings.files,
        )
        self.restores = Restores()
        self.control = Follower(settings.kafka, catalogue.control, self._take_control)
        self.followers = [
            self.control,
            Follower(settings.kafka, catalogue.selection, self.selection.take_published),
            Follower(settings.kafka, catalogue.hosts, self._take_reports),
        ]
        self._tasks: list[asyncio.Task[None]] = []
        self._draining = False
        self._drained = asyncio.Event()
        add_agents(self)

    async def start(self) -> None:
        """Start everything; returns when the inputs flow, or the app has crashed."""
        app, settings = self.app, self.settings
        self.app.on_partitions_revoked.connect(self._revoked)
        await app.maybe_start_producer()
        self.sender = RequestSender(
            app.producer._ensure_producer(),  # noqa: SLF001 (Faust gives no other way to its client)
            settings.catalogue,
            self.identity,
            reply_partitions=self._reply_partitions,
            dtype_of=self._dtype_of,
            spawn=app.watched,
            watch=app.watch,
            unsent=self._unsent,
        )
        self.reaching = ModelDiscovery(self.registry, self.sender.open, self.colocated.load, app.watch)
        self.releasing = ModelTeardown(
            self.registry, self.hosts, self.sender, self.colocated.unload, self.metrics.forget_model, app.watched
        )
        audits = AuditLog(
            app.outbox,
            app.log_reader,
            settings.catalogue.audits,
            self.audits,
            self.router,
            generation=self.generation,
            acknowledge=self.acknowledge,
        )
        self.recorder = PredictionLog(
            app.outbox,
            app.log_reader,
            settings.catalogue.predictions,
            self.decisions,
            generation=self.generation,
            recorded=self.router.recorded,
            acknowledge=self.acknowledge,
            sent=self._sent,
            audits=audits,
            stamped=self.skew.observe,
            stage=self.stage,
        )
        self.learner = FeedbackProcessor(
            app,
            settings.catalogue,
            self.registry,
            self.selection,
            self.decisions,
            self.audits,
            self.recorder,
            self.metrics,
            self.restores,
            self.control.followed_upto,
        )
        self.carrier = EffectRunner(
            self.router, self.recorder, self.sender, self.colocated.take, self.metrics, app.watched
        )
        self._tasks.append(app.watch_brokers(self.metrics.set_broker_reachable))
        for work in (self.recorder.run(), audits.log.run(), self._publish(), self._report(), self._reach_models()):
            self._tasks.append(app.watched(work))
        await app.start()

    async def stop(self) -> None:
        """Let the queries in flight finish, then stop; what was not acknowledged is read again by the next process."""
        if self.generation() < 0:
            return  # nothing is owned, so nothing is under way
        self._draining = True
        self.watch_room()
        if self._timers is not None:
            self._timers.report(now=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._drained.wait(), DRAIN_S)
        await self.recorder.idle()
        await self._publish_totals()
        self.carrier.stop()
        await self.app.leave()
        for task in self._tasks:
            task.cancel()
        await self.colocated.stop()
        await self.app.log_reader.close()
        self.decisions.keep_only(())
        self.audits.keep_only(())
        self.caches.keep_only(())

    def _take_reports(self, records: list[ConsumerRecord[Any, Any]]) -> None:
        if self.hosts.take(records):
            self.registry.resolve()

    # --- what the agents and the recorder need ----------------------------------------------------------------------
    def generation(self) -> int:
        """The app's; -1 while a rebalance is under way."""
        return self.app.generation

    def acknowledge(self, partition: int, offsets: list[int], generation: int) -> None:
        """Queries are finished."""
        self.app.consumer.acknowledge(TP(self.settings.catalogue.queries, partition), offsets, generation)
        self.watch_room()

    def watch_audits(self) -> None:
        """Leave room for queries: audits take no more than their share of it."""
        most = int(self.settings.max_in_flight * MOST_AUDITS_RATIO)
        if self.router.audits > most:
            self.carrier.carry_out(self.router.end_audits(most, time.time()))

    def watch_room(self) -> None:
        """Stop reading queries at `max_in_flight` and while draining, and go on below it."""
        if self._draining or self.router.in_flight >= self.settings.max_in_flight:
            self.room.clear()
        else:
            self.room.set()
        if self._draining and not self.router.in_flight:
            self._drained.set()

    def _sent(self, answers: list[QueryAnswer]) -> None:
        self.router.lead_s = min(MOST_LEAD_S, 2 * self.recorder.delivery_s)  # to the broker, and from there to be read
        for (application, reason), group in groupby(answers, key=_application_and_reason):
            latencies_s = [max(0.0, answer.decided_at_s - answer.pending.query.queried_at_s) for answer in group]
            name = application.name if application else UNKNOWN_APPLICATION
            self.metrics.observe_predictions(name, "default" if reason else "model", reason, latencies_s)

    def _take_control(self, records: list[ConsumerRecord[Any, Any]]) -> None:
        self.restores.take(records)
        self.registry.take(records)

    # --- state ------------------------------------------------------------------------------------------------------
    async def _restore(self, owned: set[int]) -> None:
        """After the tables, before the inputs: manifests and totals followed, decisions and credits rebuilt."""
        for follower in self.followers:
            if not follower.started:
                await self.app.add_runtime_dependency(follower)
        for follower in self.followers:
            await follower.caught_up.wait()
        await self.reaching.reach()
        await self.recorder.idle()
        self.decisions.keep_only(owned)
        self.audits.keep_only(owned)
        self.caches.keep_only(owned)
        self.selection.own(owned)
        await self.recorder.restore(owned, self.settings.horizon_s)
        await self.learner.rebuild_credits(owned, self.settings.horizon_s)
        self.router.reset()
        self.sender.forget_all()
        self.watch_room()

    async def _positions(self) -> dict[TP, int]:
        """Feedback is read on where the rows end, whatever was committed; from the beginning where there is none."""
        feedback = self.settings.catalogue.feedback
        return {
            TP(feedback, number): self.selection.position(number) + 1 for number in self._owned_partitions(feedback)
        }

    async def _revoked(self, *_: Any, **__: Any) -> None:
        """What is in flight is read again by whoever owns the partitions next.

        Kafka gives them away when this returns. What is on its way to the broker then would come after the next owner
        has read the log; so it is waited for, as long as that cannot cost the membership.
        """
        self.router.reset()
        self.watch_room()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(HAND_OVER_S), self.app.state_lock:
                await self.recorder.idle()

    def _unsent(self, request: Request, why: str) -> None:
        """A request could not be sent: its rows have failed."""
        rows = len(request.rows)
        piece = OutputPiece(request.frame, 0, [None] * rows, dict.fromkeys(range(rows), ("error", why)))
        self.carrier.carry_out(self.router.gather([piece], time.time()))

    def _owned_partitions(self, topic: str) -> list[int]:
        return sorted(tp.partition for tp in self.app.consumer.assignment() if tp.topic == topic)

    def _reply_partitions(self) -> list[int]:
        return self._owned_partitions(self.settings.catalogue.outputs)

    def _dtype_of(self, ref: str) -> str:
        model = self.registry.model(ref)
        return model.input.dtype if model else "json"

    # --- background -------------------------------------------------------------------------------------------------
    async def _publish(self) -> None:
        while True:
            await asyncio.sleep(PUBLISH_EVERY_S)
            await self._publish_totals()

    async def _publish_totals(self) -> None:
        records = self.selection.unpublished()
        if records:
            await self.app.outbox.send(self.settings.catalogue.selection, 0, records)

    async def _report(self) -> None:
        rebalances = 0
        while True:
            await asyncio.sleep(REPORT_EVERY_S)
            self.metrics.count_rebalances(self.app.rebalances - rebalances)
            rebalances = self.app.rebalances
            self.metrics.set_in_flight(self.router.in_flight)
            if self._timers is not None:
                self._timers.report()
            self.metrics.set_cache_bytes(self.caches.size_bytes)
            if (skew_s := self.skew.take()) is not None:
                self.metrics.set_clock_skew(skew_s)
                self.skew.warn(skew_s, time.monotonic())
            if self.generation() < 0:
                continue
            self.metrics.set_consumer_lag(self.app.consumer.lag())
            self.metrics.set_ready_hosts({ref: self.hosts.hosts(ref) for ref in self.registry.hosted})
            for application in self.registry.applications:
                weights = self.selection.prepare(application, 0, None).weights if application.refs else {}
                self.metrics.set_selection_weights(application.name, weights)

    async def _reach_models(self) -> None:
        while True:
            self.reaching.begin()
            self.releasing.begin()
            await asyncio.sleep(PUBLISH_EVERY_S)
