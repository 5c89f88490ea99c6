"""A whole deployment on this machine: broker, topics, manifests, routers, hosts and gateway."""

import asyncio
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import msgspec

from clipper_agents.broker import BrokerNotStarted, EmbeddedBroker
from clipper_agents.broker.node import KafkaNode
from clipper_agents.control.apply import KEPT, apply_manifests, split_known, with_digests
from clipper_agents.control.change_records import Signature
from clipper_agents.control.host_reports import HostReports
from clipper_agents.control.manifest_text import plan_lines
from clipper_agents.control.state import read_control
from clipper_agents.kafka.retry import reached_in
from clipper_agents.kafka.startup_check import check_until_answered
from clipper_agents.kafka.topics import ensure_topics
from clipper_agents.observability.logging import DEFAULT_LOGS, LogOptions, event
from clipper_agents.observability.metrics import ProcessMetrics
from clipper_agents.observability.probes import ProbeServer
from clipper_agents.settings import Settings
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.cluster import ClusterWatch
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.problems import problems_of
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_agents.streaming.membership import follow_members
from clipper_agents.supervisor.fleet import Fleet
from clipper_agents.supervisor.forked_process import WorkerTemplate
from clipper_agents.supervisor.kafka_resources import KafkaResources
from clipper_agents.supervisor.metrics_targets import MetricsTargets
from clipper_agents.supervisor.process import ChildNotReady, ChildSpec
from clipper_agents.supervisor.supervisor import ProcessEnvironment, Supervisor
from clipper_agents.supervisor.workers import GATEWAY, PROGRAM, ROLES, Workers, role_of, worker_environment
from clipper_stream.client.access import check_access
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelManifest

log = logging.getLogger(__name__)

OVERWRITTEN = "what was live has been changed as the configuration says:"
BROKER_CHECK_S = 1.0
LAST_WORD_S = 2.0
"""For the last reports about hosts: a broker that is away must not hold up the end."""


class Deployment:
    """Starts everything that a configuration says, and ends it; as a context manager it leaves nothing behind.

        async with Deployment(load_settings(Path("clipper.toml"), os.environ)) as deployment:
            async with Client(deployment.connection) as client: ...

    Inside the block a query is answered, and a model that is declared, changed or withdrawn on the control topic gets,
    changes or loses its hosts. On the way out the gateway drains first, then the routers, then the hosts, then the
    broker ends.

    Args:
        settings: Without `kafka.bootstrap` an embedded broker is started.
        environ: The environment variables of the children, without settings; None: this process's.
        overwrite: Publish the configuration also over what is live and differs; else that is logged.
        machine: Name of this machine, which publishes nothing and starts hosts alone, its part of all that the control
            topic declares; empty: everything is started here.
        process_environment: Backoff, clock and where the children's lines go.
    """

    def __init__(
        self,
        settings: Settings,
        environ: Mapping[str, str] | None = None,
        *,
        overwrite: bool = False,
        machine: str = "",
        logs: LogOptions = DEFAULT_LOGS,
        process_environment: ProcessEnvironment | None = None,
        program: tuple[str, ...] = PROGRAM,
    ) -> None:
        self.settings = settings
        self._overwrite, self._machine = overwrite, machine
        self.broker: EmbeddedBroker | None = None
        self._environ = dict(os.environ if environ is None else environ)
        self._logs, self._program = logs, program
        self._template = WorkerTemplate(program, worker_environment(self._environ))
        process_environment = process_environment or ProcessEnvironment()
        self.supervisor = Supervisor(replace(process_environment, launch=self._template.launch))
        self.metrics, self.metrics_port = ProcessMetrics("supervisor"), 0
        self._stack = AsyncExitStack()
        self._facts = DeploymentView()
        self._watch: ClusterWatch | None = None

    @property
    def connection(self) -> KafkaConnection:
        return self.settings.connection(self._environ)

    @property
    def catalogue(self) -> Catalogue:
        return self.settings.catalogue

    def url(self, field: str) -> str | None:
        """URL that the gateway serves at, `http` or `console`; None while there is none."""
        child = self.supervisor.children.get(GATEWAY)
        return child.fields.get(field) if child else None

    def waits_for(self) -> str:
        """What its end would wait for, and how long at most: gateway, routers and the rest drain one after another."""
        drains_s = {"gateway": 0.0, "router": 0.0, "host": 0.0}
        for name, child in self.supervisor.children.items():
            stage = role if (role := role_of(name)) in drains_s else "host"
            drains_s[stage] = max(drains_s[stage], child.spec.drain_s)
        longest_s = sum(drains_s.values())
        found = [f"queries in flight are answered, within {longest_s:g} s"] if longest_s else []
        return ", then ".join([*found, "Kafka stops" if self.broker else "it disconnects"])

    async def start(self) -> None:
        """Start everything; returns when a query sent now will be answered. On any error nothing is left."""
        since_s = time.monotonic()
        try:
            await self._start()
        except BaseException:
            await self.stop()
            raise
        self.metrics.health.serves(self._unready)
        seconds = f"{time.monotonic() - since_s:.1f}"
        event(log, "ready", bootstrap=self.connection.bootstrap, metrics=self.metrics_port, seconds=seconds)

    async def stop(self) -> None:
        """End everything in order; a second time does nothing."""
        self.metrics.health.is_draining = True
        await self._stack.aclose()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start(self) -> None:
        self._stack.callback(self._template.close)
        self._template.start()
        self._serve_probes()
        run_dir = Path(tempfile.mkdtemp(prefix="clipper-"))
        self._stack.callback(shutil.rmtree, run_dir, ignore_errors=True)
        targets_file = self.settings.metrics_targets
        if self.settings.forgets:
            targets_file = run_dir / targets_file.name
        bootstrap = self.settings.kafka.bootstrap
        event(log, f"{'connecting to' if bootstrap else 'starting'} kafka", bootstrap=bootstrap or "embedded")
        if self._machine:
            await check_until_answered(self.connection, self.metrics.health)
        elif bootstrap is None:
            self.settings = await self._with_embedded_broker(run_dir)
        else:
            await check_access(self.connection)  # one line when we are not let in, and none of aiokafka's before it
        models = [] if self._machine else await self._publish()
        own = self._environ, self._machine
        workers = Workers(self.settings, run_dir, *own, logs=self._logs, program=self._program)
        reports = HostReports(self.connection, self.catalogue.hosts)
        self._stack.push_async_callback(asyncio.to_thread, reports.close, LAST_WORD_S)
        resources = KafkaResources(self.connection, self.catalogue, self.settings.topic_creation)
        fleet = Fleet(self.supervisor, workers, resources, reports)
        if self._machine:
            await self._join_machines(fleet)
        self.supervisor.on_failure = fleet.failed
        self.supervisor.on_restart = lambda name: self.metrics.counter("clipper_restarts_total", role_of(name)).inc()
        targets = MetricsTargets(targets_file, self._metrics_address, self._ready_fields)
        telling = asyncio.create_task(targets.follow(), name="tell Prometheus")
        self._stack.push_async_callback(_end, telling)
        self._stack.push_async_callback(self._stop_workers, fleet)
        children, gateways = fleet.begin(models), []
        if not self._machine:
            children, gateways = [*workers.routers(), *workers.stewards(), *children], workers.gateways()
        names = ",".join(child.name for child in [*children, *gateways])
        event(log, "starting workers, hosts load their models", workers=names)
        gateway = asyncio.create_task(self._start_gateway(gateways), name="start gateway")
        self._stack.push_async_callback(_end, gateway)
        await self.supervisor.start(children)
        following = asyncio.create_task(fleet.follow(self.connection, self.catalogue.control), name="follow control")
        following.add_done_callback(_tell_failure)
        self._stack.push_async_callback(_end, following)
        self._facts = DeploymentView(declared=fleet.control)
        if not self._machine:
            self._watch = ClusterWatch(self.connection, self.catalogue, lambda: self._facts)
            self._stack.push_async_callback(_end, asyncio.create_task(self._watch.run(), name="watch the cluster"))
        await fleet.settled.wait()
        await gateway
        targets.write()

    async def _join_machines(self, fleet: Fleet) -> None:
        group, topic = self.catalogue.machines_group, self.catalogue.control
        staying = asyncio.create_task(
            follow_members(self.connection, group, self._machine, topic, fleet.share_among), name="follow the machines"
        )
        self._stack.push_async_callback(_end, staying)
        await reached_in(staying, fleet.shared)
        staying.add_done_callback(_tell_failure)

    def _metrics_address(self, role: str) -> str:
        address: str = getattr(self.settings, role).metrics_address
        return address

    def _ready_fields(self) -> dict[str, dict[str, str]]:
        own = {"role": "supervisor", "metrics": str(self.metrics_port)}
        return {own["role"]: own, **{name: child.fields for name, child in self.supervisor.children.items()}}

    def _serve_probes(self) -> None:
        section, metrics = self.settings.supervisor, self.metrics
        for role in ROLES:
            metrics.counter("clipper_restarts_total", role)
            metrics.gauge("clipper_children_wanted", role).set_function(partial(self._count, role))
            metrics.gauge("clipper_children_ready", role).set_function(partial(self._count, role, ready=True))
        probes = ProbeServer(metrics.registry, metrics.health)
        self.metrics_port = probes.start(section.metrics_port, section.metrics_address)
        self._stack.callback(probes.stop)
        metrics.health.watch_loop()

    def _count(self, role: str, *, ready: bool = False) -> int:
        children = self.supervisor.children.items()
        return sum(role_of(name) == role and (bool(child.fields) or not ready) for name, child in children)

    def _unready(self) -> list[str]:
        children = self.supervisor.children.items()
        own = [f"{name} does not serve: {child.reason or 'it starts'}" for name, child in children if not child.fields]
        if own or self._watch is None or (cluster := self._watch.newest) is None:
            return own
        cluster = replace(cluster, dead_letters=0)  # what a client sends is no fault of who serves
        builder = StatusBuilder(facts=self._facts, recent=TrafficWindow(), now_s=time.time(), cluster=cluster)
        return [*map(str, problems_of(builder.status(self.catalogue.prefix, {})))]

    async def _start_gateway(self, specs: list[ChildSpec]) -> None:
        """A deployment whose gateway cannot start goes on: everything else works without it."""
        try:
            await self.supervisor.start(specs)
        except ChildNotReady as error:
            event(log, "no gateway, the deployment goes on without it", logging.ERROR, reason=error)

    async def _publish(self) -> list[ModelManifest]:
        creation = self.settings.topic_creation
        await ensure_topics(self.connection, self.catalogue, creation=creation)
        published = (await read_control(self.connection, self.catalogue)).manifests
        models = with_digests(self.settings.models, published.models)
        found, written, kept = await apply_manifests(
            self.connection,
            self.catalogue,
            self.settings.applications,
            models,
            Signature(why="published by `up`"),
            overwrite=self._overwrite,
        )
        _, overwritten = split_known(written, found)
        for plan, what in ((kept, KEPT), (overwritten, OVERWRITTEN)):
            for line in [what, *plan_lines(found, plan)] if plan else ():
                log.warning("%s", line)
        in_force = [model for model in models if model.ref not in {one.ref for one in kept.models}]
        report = await ensure_topics(self.connection, self.catalogue, in_force, creation)
        for line in report.advice:
            log.warning("%s", line)
        return in_force

    async def _stop_workers(self, fleet: Fleet) -> None:
        """Gateway, routers, hosts: what one has open is answered only while the next is there."""
        for first in (GATEWAY, "router-"):
            if names := [name for name in self.supervisor.children if name.startswith(first)]:
                await self.supervisor.stop(*names)
        hosts = list(self.supervisor.children)
        await self.supervisor.stop()
        for name in hosts:
            fleet.withdraw(name)  # whatever it said of itself, it is gone: also when it had no time to say so

    async def _with_embedded_broker(self, run_dir: Path) -> Settings:
        section, temporary = self.settings.broker, self.settings.forgets
        self.broker = EmbeddedBroker(section.data_dir, section.port, section.heap_mib)
        self._stack.push_async_callback(asyncio.to_thread, self.broker.stop)
        await _to_its_end(asyncio.create_task(asyncio.to_thread(self.broker.start)))
        keeping = asyncio.create_task(keep_started(self.broker.node), name="keep kafka")
        self._stack.push_async_callback(_end, keeping)
        change = msgspec.structs.replace
        settings = change(self.settings, kafka=change(self.settings.kafka, bootstrap=self.broker.bootstrap))
        if not temporary:
            return settings
        router = change(settings.router, data_dir=str(run_dir / "router"))
        host = change(settings.host, data_dir=str(run_dir / "host"))
        gateway = change(settings.gateway, console_dir=str(run_dir / GATEWAY))
        return change(settings, router=router, host=host, gateway=gateway)


async def keep_started(node: KafkaNode, every_s: float = BROKER_CHECK_S) -> None:
    """Start the embedded Kafka again, on its ports and its records, whenever it has ended by itself."""
    while True:
        await asyncio.sleep(every_s)
        if node.pid is None:
            event(log, "kafka has ended, starting it again", logging.WARNING)
            try:
                await _to_its_end(asyncio.create_task(asyncio.to_thread(node.start)))
            except BrokerNotStarted as error:
                event(log, "kafka is not started again", logging.ERROR, error=error)


def _tell_failure(task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (error := task.exception()):
        log.error("%s failed, changes are not followed any more", task.get_name(), exc_info=error)


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.wait({task})


async def _to_its_end(task: "asyncio.Task[object]") -> None:
    """Wait for a task that must not be left halfway, even when we are cancelled meanwhile."""
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
