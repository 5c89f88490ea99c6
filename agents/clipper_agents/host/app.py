"""The process that hosts one model version: `run` until SIGTERM.

start --> model loaded, warm, measured --> joined the group --> `ready` line --> SIGTERM --> drained --> left --> end
             | SetupError                                          | a send failed, a defect: the app crashes

What it says of itself meanwhile on the hosts topic is in `self_report`.
"""

import asyncio
import logging
import os
from typing import Any

from clipper_agents.control.host_reports import HostReports, address_of
from clipper_agents.host.batch_traces import BatchTraces
from clipper_agents.host.cpu_affinity import limit_cores
from clipper_agents.host.engine import HostEngine
from clipper_agents.host.engine_builder import make_engine, prepare
from clipper_agents.host.poison_rows import BatchGuard, PoisonRows
from clipper_agents.host.predictor import Predictor
from clipper_agents.host.request_server import FrameOrigin, RequestServer
from clipper_agents.host.self_report import SelfReports
from clipper_agents.host.watchdog import ModelWatch, bound_allocations, drain_self
from clipper_agents.observability.logging import event
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.observability.tracing import start_tracing
from clipper_agents.settings.workers import HostSettings
from clipper_agents.streaming.app import make_app
from clipper_agents.streaming.worker_process import keep_ready_line, run_worker
from clipper_topics.manifests import ModelManifest

logger = logging.getLogger(__name__)

LAG_EVERY_S = 1.0


def run(settings: HostSettings, metrics: ProcessMetrics, port: int) -> None:
    """Host the model until SIGTERM or SIGINT; prints `ready role=host model=... metrics=PORT` when it serves.

    Its metrics and probes are served on `port` already.

    Raises:
        SetupError: the model cannot be loaded; the message says what to do.
    """
    metrics.health.waits_for = f"model {settings.model.ref} is loading"
    metrics.watch_disk(settings.data_dir)
    keep_ready_line()
    limit_cores(settings.model.cpus, settings.instance)
    written = HostReports(settings.kafka, settings.catalogue.hosts)
    address = address_of(settings.metrics_address, port)
    reports = SelfReports(written, settings.model, settings.instance, address)
    reports.say("starting")
    try:
        poison_rows = PoisonRows(settings.data_dir / "model")
        predictor = prepare(settings.model, settings.allowed, settings.files)
    except Exception as error:
        reports.fails(error)
        raise
    ready = f"ready role=host model={settings.model.ref} instance={settings.instance} metrics={port}"
    run_worker(
        lambda: HostProcess(settings, predictor, poison_rows, metrics, reports),
        ready,
        settings.kafka,
        metrics.health,
        reports,
    )


class HostProcess:
    """A host from its start to its end."""

    def __init__(
        self,
        settings: HostSettings,
        predictor: Predictor,
        poison_rows: PoisonRows,
        metrics: ProcessMetrics,
        reports: SelfReports,
    ) -> None:
        model, catalogue = settings.model, settings.catalogue
        self._metrics, self._reports = metrics, reports
        group = catalogue.host_group(model.name, model.version)
        self.app = make_app(group, settings.kafka, settings.data_dir, settings.instance)
        metrics.health.serves(self.app.unready)
        self.app.pace.keep([model.batch.target_ms / 1000])
        self._topic = catalogue.requests(model.name, model.version)
        traces = BatchTraces(start_tracing("host", settings.instance), model.ref, self._topic)
        server = RequestServer(self.app, catalogue, metrics, poison_rows, traces)
        self._tell_deaths(model, poison_rows)
        watch = ModelWatch(self._hung, self._outgrown)
        guard = BatchGuard(watch.add(model.ref, model.batch.hang_s, model.memory_mib), poison_rows)
        self._engine: HostEngine[FrameOrigin] = make_engine(
            model, predictor, server.send, server.finished, metrics, guard, traces
        )
        if model.memory_mib is not None:
            bound_allocations(2 * model.memory_mib)
        self._tasks: list[asyncio.Task[None]] = []

        async def requests(stream: Any) -> None:
            await server.serve(stream, self._engine)

        self.app.agent(self.app.raw_topic(self._topic), name="requests")(requests)

    async def start(self) -> None:
        """Run the engine and join the group."""
        self._running = self._spawn(self._engine.run())
        await self.app.maybe_start_producer()
        self._tasks.append(self.app.watch_brokers(self._metrics.set_broker_reachable))
        await self.app.topic_ids.learn(self.app.kafka_producer.client, [self._topic])
        await self.app.start()
        self._spawn(self._observe_lag())
        self._spawn(self._reports.watch_rights())

    async def stop(self) -> None:
        """Finish the rows that are in the process, then leave."""
        self._reports.say("draining")
        self._engine.drain()
        await asyncio.wait([self._running])
        await self.app.leave()
        for task in self._tasks:
            task.cancel()
        await self._reports.leave()

    def _hung(self, code: int) -> None:
        self._reports.fails("a batch hangs in the model: correct it, or raise batch.hang_s if it needs so long")
        os._exit(code)

    def _outgrown(self) -> None:
        self.app.outgrown = True
        drain_self()

    def _tell_deaths(self, model: ModelManifest, poison_rows: PoisonRows) -> None:
        if poison_rows.found:
            text = (
                "the run before ended while the model ran: its rows are asked alone, and not again after a second time"
            )
            rows = sum(one.stop - one.start for one in poison_rows.found)
            deaths = max(one.deaths for one in poison_rows.found)
            event(logger, text, logging.WARNING, model=model.ref, rows=rows, deaths=deaths)

    async def _observe_lag(self) -> None:
        while True:
            lags = {(tp.topic, tp.partition): records for tp, records in self.app.consumer.lag().items()}
            self._metrics.set_consumer_lag(lags)
            await asyncio.sleep(LAG_EVERY_S)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = self.app.watched(work)
        self._tasks.append(task)
        return task
