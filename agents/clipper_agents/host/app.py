"""The process that hosts one model version: `run` until SIGTERM.

start --> model loaded, warm, measured --> joined the group --> `ready` line --> SIGTERM --> drained --> left --> end
             | SetupError                                          | a send failed, a defect: the app crashes

Meanwhile it reports its state on the hosts topic: starting, ready, draining, nothing more; or failed, with the reason.
Serving never waits for that: reports are written from a thread of their own, as soon as a broker takes them.
"""

import asyncio
import logging
import os
import random
import signal
from typing import Any

from clipper_agents.control.host_reports import HostReports, address_of, one_line
from clipper_agents.host.engine import BatchTraces, make_engine
from clipper_agents.host.poison_rows import PoisonRows
from clipper_agents.host.predictor import Predictor, prepare
from clipper_agents.host.request_server import RequestServer
from clipper_agents.host.watchdog import ModelWatch, bound_allocations
from clipper_agents.observability.logging import event
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.observability.tracing import start_recorder
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import HostSection
from clipper_agents.streaming.app import ClipperApp
from clipper_agents.streaming.worker_process import redirect_stdout, run_worker
from clipper_topics.host_report import HostReport, State
from clipper_topics.manifests import ModelManifest

logger = logging.getLogger(__name__)

LAG_EVERY_S = 1.0
KNOWN_WITHIN_S = 5.0
"""The ready line waits so long for its report, so that routers know of a host that its supervisor calls ready."""
LAST_WORD_S = 2.0
"""A broker that is away must not hold up the end of a process."""


def run(settings: WorkerSettings[HostSection], model: ModelManifest, metrics: ProcessMetrics, port: int) -> None:
    """Host the model until SIGTERM or SIGINT; prints `ready role=host model=... metrics=PORT` when it serves.

    Its metrics and probes are served on `port` already. `SetupError` where the model cannot be loaded.
    """
    metrics.health.waits_for = f"model {model.ref} is loading"
    metrics.watch_disk(settings.data_dir)
    redirect_stdout()
    if model.cpus is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores_of(model.cpus, settings.instance, os.sched_getaffinity(0)))
    written = HostReports(settings.kafka, settings.catalogue.hosts)
    address = address_of(settings.section.metrics_address, port)
    reports = SelfReports(written, model, settings.instance, address)
    reports.say("starting")
    try:
        poison_rows = PoisonRows(settings.data_dir / "model")
        predictor = prepare(model, settings.allowed, settings.files)
    except Exception as error:
        reports.fails(error)
        raise
    ready = f"ready role=host model={model.ref} instance={settings.instance} metrics={port}"
    run_worker(
        lambda: HostProcess(settings, model, predictor, poison_rows, metrics, reports),
        ready,
        settings.kafka,
        metrics.health,
        reports,
    )


class SelfReports:
    """The reports of one host about itself; `metrics` is the address at which it serves its metrics, `host:port`."""

    def __init__(self, reports: HostReports, model: ModelManifest, instance: str, metrics: str | None = None) -> None:
        self._reports, self._model, self._instance, self._metrics = reports, model, instance, metrics
        self._is_over = False

    def say(self, state: State, reason: str | None = None) -> None:
        if self._is_over:
            return
        report = HostReport(model=self._model.ref, instance=self._instance, state=state, reason=reason)
        report.sha256, report.pid, report.metrics = self._model.sha256, os.getpid(), self._metrics
        self._reports.put(report)

    async def serves(self) -> None:
        """Report `ready`, and wait until that is written, for at most `KNOWN_WITHIN_S`."""
        self.say("ready")
        await asyncio.to_thread(self._reports.wait_written, KNOWN_WITHIN_S)

    def fails(self, reason: BaseException | str | None) -> None:
        self.say("failed", one_line(reason))
        self._is_over = True
        self._reports.close(LAST_WORD_S)

    async def leave(self) -> None:
        if not self._is_over:
            self._is_over = True
            self._reports.withdraw(self._model.ref, self._instance)
            await asyncio.to_thread(self._reports.close, LAST_WORD_S)

    async def watch_rights(self) -> None:
        """Wait for ever, or raise the error when this user may not write reports: then no router would ask it."""
        await asyncio.wrap_future(self._reports.refused)


def cores_of(cpus: float, instance: str, available: set[int]) -> list[int]:
    """The cores of a host: whole ones, at least one, at each start the same, and not the first ones for every host."""
    return random.Random(instance).sample(sorted(available), min(max(1, int(cpus)), len(available)))  # noqa: S311


class HostProcess:
    """A host from its start to its end."""

    def __init__(
        self,
        settings: WorkerSettings[HostSection],
        model: ModelManifest,
        predictor: Predictor,
        poison_rows: PoisonRows,
        metrics: ProcessMetrics,
        reports: SelfReports,
    ) -> None:
        catalogue = settings.catalogue
        self._metrics, self._reports = metrics, reports
        group = catalogue.host_group(model.name, model.version)
        self.app = ClipperApp(group, settings.kafka, settings.data_dir, settings.instance)
        metrics.health.serves(self.app.unready)
        self._topic = catalogue.requests(model.name, model.version)
        recorder = start_recorder("host", settings.instance, metrics.counter("clipper_spans_lost_total"))
        traces = BatchTraces(recorder, model.ref, self._topic)
        server = RequestServer(self.app, catalogue, metrics, poison_rows)
        self._tell_deaths(model, poison_rows)
        watch = ModelWatch(self._hung, self._outgrown)
        guards = poison_rows, watch.add(model.ref, model.batch.hang_s, model.memory_mib)
        self._engine = make_engine(model, predictor, server, metrics, guards, traces)
        if model.memory_mib is not None:
            bound_allocations(2 * model.memory_mib)
        self._tasks: list[asyncio.Task[None]] = []

        async def requests(stream: Any) -> None:
            await server.serve(stream, self._engine)

        self.app.agent(self.app.consumer.channel(self._topic), name="requests")(requests)

    async def start(self) -> None:
        self._running = self._spawn(self._engine.run())
        await self.app.maybe_start_producer()
        self._tasks.append(self.app.watch_brokers(self._metrics.set_broker_reachable))
        await self.app.topic_ids.learn(self.app.kafka_producer.client, [self._topic])
        await self.app.start()
        self._spawn(self._observe_lag())
        self._spawn(self._reports.watch_rights())

    async def stop(self) -> None:
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
        os.kill(os.getpid(), signal.SIGTERM)  # as its supervisor would to drain it

    def _tell_deaths(self, model: ModelManifest, poison_rows: PoisonRows) -> None:
        if poison_rows.found:
            text = "the run before ended in the model: its rows are asked alone, and not again after a second time"
            rows = sum(span.stop - span.start for span in poison_rows.found)
            deaths = max(span.deaths for span in poison_rows.found)
            event(logger, text, logging.WARNING, model=model.ref, rows=rows, deaths=deaths)

    async def _observe_lag(self) -> None:
        while True:
            self._metrics.set_consumer_lag(self.app.consumer.lag())
            await asyncio.sleep(LAG_EVERY_S)

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task = self.app.watched(work)
        self._tasks.append(task)
        return task
