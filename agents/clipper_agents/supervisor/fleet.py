"""The hosts of all models that the control topic declares: started, replaced and ended while traffic flows.

Rules of this file:
- A manifest that is none, or names a model that this deployment may not load, is refused: what it replaced goes on.
- Versions live beside each other: one that is slow to start or to end holds up no other.
- What a host says of itself counts; what it can no longer say (why it ended, that it is gone) is said here.
- Machines that share the hosts agree without a word: each knows all names, and ranks them for a version by a hash. So a
  deploy moves no other version's hosts, and a machine that comes or goes moves its own share only.
"""

import asyncio
import logging
import re
from collections.abc import Sequence
from hashlib import sha256
from math import inf

from clipper_agents.control.host_reports import HostReports, one_line
from clipper_agents.control.state import ControlState, RefusedRecord
from clipper_agents.kafka.follower import TopicFollower
from clipper_agents.kafka.reader import Record
from clipper_agents.kafka.retry import reached_in
from clipper_agents.observability.logging import event
from clipper_agents.supervisor.kafka_resources import KafkaResources
from clipper_agents.supervisor.process import ChildSpec
from clipper_agents.supervisor.supervisor import Supervisor
from clipper_agents.supervisor.version import SETTLE_S, Version
from clipper_agents.supervisor.workers import Workers, host_names, model_of_host
from clipper_stream.models.registry import check_declared
from clipper_stream.query.planner import THROUGHPUT_WAIT_S
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import Manifest
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import REF_PATTERN, ApplicationManifest, ModelManifest

log = logging.getLogger(__name__)


class Fleet:
    """Hosts by model version. A version that cannot start is left out until its manifest changes.

    Routers have `settle_s` seconds to hear that a version is retired.

    Attributes:
        settled: Set when the hosts of all versions that were declared at first serve, or were given up.
        shared: Set when `share_among` has been called.
        control: What the control topic says.
    """

    def __init__(
        self,
        supervisor: Supervisor,
        workers: Workers,
        resources: KafkaResources,
        reports: HostReports,
        settle_s: float = SETTLE_S,
    ) -> None:
        self._supervisor, self._workers = supervisor, workers
        self._resources, self._reports, self._settle_s = resources, reports, settle_s
        self._versions: dict[str, Version] = {}
        self._at_work: dict[str, asyncio.Task[None]] = {}
        self._asked_s: dict[str, float] = {}
        self._refused: set[str] = set()
        self._caught_up = False
        self.settled, self.shared = asyncio.Event(), asyncio.Event()
        self.control = ControlState(notes=(), accept=self._accept)
        self._published = self.control.manifests
        self._machines = [workers.machine]

    def begin(self, models: Sequence[ModelManifest]) -> list[ChildSpec]:
        """The hosts of these models, whose topics are there; whoever asks starts them."""
        for model in models:
            if host_names(model):
                self._version(model.ref).started(model)
        return [spec for model in models for spec in self._workers.hosts(model)]

    def share_among(self, machines: list[str]) -> None:
        """Host what is this machine's part of all versions; the names are those of all machines."""
        event(log, "hosts are shared", machines=",".join(machines))
        self._machines = machines
        self.shared.set()
        if self._caught_up:
            self.reconcile()

    async def follow(self, kafka: KafkaConnection, topic: str) -> None:
        """Do as the control topic says, until cancelled."""
        follower = TopicFollower(kafka, topic, self.take)
        following = asyncio.ensure_future(follower.run())
        try:
            await reached_in(following, follower.caught_up)
            self.reconcile()
            wanted = {ref for ref, model in self._published.models.items() if host_names(model)}
            starting = [task for ref, task in self._at_work.items() if ref in wanted]
            await asyncio.gather(*starting, return_exceptions=True)
            self.settled.set()
            await following
        finally:
            self.settled.set()
            self._caught_up = False  # and whatever machines come, nothing is started any more
            following.cancel()
            for task in self._at_work.values():
                task.cancel()
            await asyncio.gather(following, *self._at_work.values(), return_exceptions=True)

    def take(self, records: list[Record]) -> None:
        for record, taken in zip(records, self.control.take(records), strict=True):
            refused = taken if isinstance(taken, RefusedRecord) else None
            if refused is not None:
                event(log, "manifest refused", logging.ERROR, **refused.details)
            self._tell_refusal(record.key, None if refused is None else refused.reason)
        for ref in self._asked_s.keys() - self._published.models.keys() - self._versions.keys():
            del self._asked_s[ref]
        for manifest in self._published.applications.values():
            self._note_patience(manifest)
        if self._caught_up:
            self.reconcile()

    def reconcile(self) -> None:
        """Tell each version what is wanted of it now, and let those work that have something to do."""
        self._caught_up = True
        published = self._published.models
        for ref in dict.fromkeys([*published, *self._versions]):
            if ref in self._versions or not published[ref].colocated:
                self._version(ref).want(published.get(ref), self._replicas_here(ref))
                if ref not in self._at_work:
                    self._at_work[ref] = asyncio.create_task(self._work(ref), name=f"hosts of {ref}")

    def _replicas_here(self, ref: str) -> int:
        """How many of a version's replicas this machine runs: they are dealt out by turns."""
        replicas = self._published.models[ref].replicas if ref in self._published.models else 0
        ranked = sorted(self._machines, key=lambda machine: sha256(f"{ref} {machine}".encode()).digest())
        return len(range(ranked.index(self._workers.machine), replicas, len(ranked)))

    def failed(self, name: str, reason: str) -> None:
        """A child has ended by itself."""
        ref = model_of_host(name)
        if ref is not None:
            self._reports.put(HostReport(model=ref, instance=name, state="failed", reason=one_line(reason)))

    def withdraw(self, name: str) -> None:
        ref = model_of_host(name)
        if ref is not None:
            self._reports.withdraw(ref, name)

    def _accept(self, manifest: Manifest) -> None:
        if isinstance(manifest, ModelManifest):
            declared = (manifest.runtime, manifest.uri, manifest.sha256, manifest.parameters)
            check_declared(*declared, self._workers.allowed, self._workers.files)

    def _tell_refusal(self, key: bytes | None, reason: str | None) -> None:
        """A version that never was one here has failed; one that is hosted goes on as it was.

        What was said is taken back when the manifest is, or when another one is accepted.
        """
        ref = (key or b"").decode("utf-8", "replace").removeprefix("model/")
        if not re.fullmatch(REF_PATTERN, ref):
            return
        name, version = ref.split(":")
        host, *_ = host_names(ModelManifest(name=name, version=version, uri=ref), self._workers.machine)
        if reason is not None and ref not in self._published.models:
            self._refused.add(ref)
            self.failed(host, reason)
        elif reason is None and ref in self._refused:
            self._refused.remove(ref)
            self.withdraw(host)

    def _note_patience(self, manifest: ApplicationManifest) -> None:
        """Its queries wait so long for the versions that it names, also when it names them no more."""
        wait_s = THROUGHPUT_WAIT_S if manifest.objective_ms is None else manifest.objective_ms / 1000
        for ref in manifest.refs:
            self._asked_s[ref] = max(wait_s, self._asked_s.get(ref, -inf))

    def _version(self, ref: str) -> Version:
        if ref not in self._versions:
            self._versions[ref] = Version(
                self._supervisor,
                self._workers,
                self._resources,
                self.withdraw,
                lambda: self._asked_s.get(ref, 0.0),
                self._settle_s,
            )
        return self._versions[ref]

    async def _work(self, ref: str) -> None:
        version = self._versions[ref]
        try:
            await version.converge()
        except Exception:
            log.exception("hosts of %s are not looked after until its manifest changes", ref)
        finally:
            del self._at_work[ref]
        if version.is_over and ref not in self._published.models:
            del self._versions[ref]
            self._asked_s.pop(ref, None)
