"""What the console's pages show: a deployment as it is now, followed on its topics, a second at a time.

Rules of this file:
- Nothing ends it. A Kafka that is away is waited for, and topics that are missing, deleted or made again are read anew;
  until then what was read last stays, with the reason why it is stale.
- What nobody looks at is not made; what somebody looks at is made once a second, however many look.
- It shares a loop with the gateway's calls: between two applications it lets them run.
"""

import asyncio
import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from aiokafka.errors import KafkaError

from clipper_agents.kafka.errors import TopicMismatch, checked_partitions
from clipper_agents.observability.logging import event
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.cluster import ClusterWatch, readable_partitions
from clipper_agents.status.collect import SILENT, SILENT_S
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import ApplicationStatus, Status
from clipper_agents.status.problems import StatusProblem, application_problems, problems_of
from clipper_agents.status.processes import MetricsWatch
from clipper_agents.status.tailer import DeploymentTailer
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_agents.streaming.reachability import watch_topics
from clipper_gateway.console.history import FINEST_S, SeriesHistory, point_of
from clipper_gateway.errors import Refusal
from clipper_stream.errors import ClipperError
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)

SAMPLE_PER_S = 200
AGAIN_S, TICK_AT_S = 1.0, 0.85
"""Between two attempts; behind a second, when all of it has been read."""
STATUSES_A_SECOND, MODELS_A_SECOND = 20, 250
"""Applications that are looked at in a second, in turns: of more than these each is some seconds old, and of more than
two hundred a point is taken more seldom than every ten seconds. The whole deployment is looked at each second, and more
seldom where it has more models."""
LOOKED_TICKS = 30
"""So long is something looked at by whoever asked for it once."""
READING = "the topics are being read"
UNREAD = "the topics cannot be read, the gateway's log says why"
MISSING = "topics are missing, or others than configured: run `clipper-stream topics create`"


class LiveView:
    """A deployment that is followed.

    Attributes:
        at_s: When it last heard of Kafka, seconds since the epoch.
        is_read: Whether the topics were read to their end once.
        stale_reason: Why it does not follow now; empty while it does.
        tick: Seconds seen.
    """

    def __init__(
        self,
        kafka: KafkaConnection,
        catalogue: Catalogue,
        history: SeriesHistory,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.facts, self.recent, self.history = DeploymentView(), TrafficWindow(), history
        self.at_s, self.is_read, self.tick, self.stale_reason = 0.0, False, 0, READING
        self._kafka, self._catalogue, self._clock = kafka, catalogue, clock
        self._ticked, self._is_ending = asyncio.Event(), False
        self._left_out: tuple[Iterable[str], Iterable[str]] = (), ()
        """Topics that were not read to their end, and that may not be read."""
        self.metrics = MetricsWatch(lambda: self.facts)
        self.cluster = ClusterWatch(kafka, catalogue, lambda: self.facts, self._is_looked_at)
        self._looked_tick = -LOOKED_TICKS
        self._statuses: dict[str, tuple[int, ApplicationStatus]] = {}
        """With the tick in which it was made, the oldest first."""
        self._status: tuple[int, Status] | None = None
        self._step, self._began_tick = -1, 0
        self._kept: set[str] = set()
        """Applications that have a point in this step of the history, which began at a tick."""

    async def run(self) -> None:
        """Follow the deployment, without end; a Kafka that is away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._tick(), self._keep(), self._follow(), self.metrics.run(), self.cluster.run()):
                tasks.create_task(work)

    async def next_tick(self, after: int) -> int:
        """Wait until `tick` is beyond `after`, and return it; who waits when the gateway ends is refused."""
        while self.tick <= after and not self._is_ending:
            await self._ticked.wait()
        if self._is_ending:
            raise Refusal(503, "the gateway ends")
        return self.tick

    def end(self) -> None:
        self._is_ending = True
        self._ticked.set()

    # --- what pages show --------------------------------------------------------------------------------------------
    def applications(self) -> Sequence[ApplicationStatus]:
        """All applications in the order of their names, as each was seen last."""
        self._look_at([name for name in self._names() if name not in self._statuses])
        self._looked_tick = self.tick
        return [self._statuses[name][1] for name in self._names()]

    def application(self, name: str) -> ApplicationStatus | None:
        """One application as it is now; None: it is not declared."""
        if name not in self.facts.declared.manifests.applications:
            return None
        if name not in self._statuses or self._statuses[name][0] < self.tick:
            self._look_at([name])
        self._looked_tick = self.tick
        return self._statuses[name][1]

    def status(self) -> Status:
        """The whole deployment, made once a second at most."""
        self._looked_tick = self.tick
        ticks = 1 + len(self.facts.declared.manifests.models) // MODELS_A_SECOND
        if self._status is None or self._status[0] <= self.tick - ticks:
            applications = {one.name: one for one in self.applications()}
            unread, refused = self._left_out
            found = replace(
                self._builder().status(self._catalogue.prefix, applications),
                stale=self.stale_reason,
                unread_topics=tuple(unread),
                refused_topics=tuple(sorted(refused)),
                cluster_refused=self.cluster.refused,
            )
            self._status = self.tick, found
        return self._status[1]

    def problems(self, name: str | None = None) -> Sequence[StatusProblem]:
        """What is wrong: of the whole deployment, or with one application alone, as it was seen last."""
        if name is not None:
            return application_problems(self._statuses[name][1], self.at_s) if name in self._statuses else ()
        own = [StatusProblem(self.history.reason, "charts have gaps")] if self.history.reason else []
        return [*own, *problems_of(self.status())]

    def _names(self) -> list[str]:
        return sorted(self.facts.declared.manifests.applications)

    def _look_at(self, names: Sequence[str]) -> None:
        for name, found in self._builder().applications(names).items():
            self._statuses.pop(name, None)
            self._statuses[name] = self.tick, found

    def _is_looked_at(self) -> bool:
        return self.is_read and self._looked_tick > self.tick - LOOKED_TICKS

    def _builder(self) -> StatusBuilder:
        """Figures of now, or of when Kafka was heard of last."""
        now_s = self.at_s if self.stale_reason else self._clock()
        newest, metrics = self.cluster.newest, self.metrics.newest
        return StatusBuilder(facts=self.facts, recent=self.recent, now_s=now_s, cluster=newest, metrics=metrics)

    # --- Kafka ------------------------------------------------------------------------------------------------------
    async def _follow(self) -> None:
        of = self._catalogue
        topics = [*of.logs, of.control, of.hosts, of.selection, of.comparisons]
        while True:
            work = watch_topics(self._kafka, topics, self._note), self._read()
            parts = [asyncio.ensure_future(each) for each in work]
            try:
                done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
                for part in done:
                    part.result()
            except (ClipperError, KafkaError, OSError, TimeoutError) as error:
                if self.stale_reason not in {UNREAD, MISSING}:
                    event(logger, "the console reads no topics", logging.WARNING, error=repr(error))
                self.stale_reason = UNREAD if not isinstance(error, TopicMismatch) else MISSING
            finally:
                await _ended(parts)
            await asyncio.sleep(AGAIN_S)

    def _note(self, answered: bool) -> None:
        if answered:
            self.at_s = self._clock()
            self.stale_reason = "" if self.stale_reason.startswith(SILENT) else self.stale_reason
        elif not self.stale_reason and self._clock() - self.at_s > SILENT_S:
            self.stale_reason = f"{SILENT} since {time.strftime('%H:%M:%SZ', time.gmtime(self.at_s))}"

    async def _read(self) -> None:
        kafka, catalogue = self._kafka, self._catalogue
        partitions = await readable_partitions(kafka, catalogue)
        checked_partitions(catalogue.control, sum(tp.topic == catalogue.control for tp in partitions))
        async with DeploymentTailer(kafka, catalogue, sample_per_s=SAMPLE_PER_S) as tailer:
            self._left_out = await tailer.catch_up(partitions), tailer.refused
            self.facts, self.recent = tailer.facts, tailer.recent
            self.stale_reason, self.at_s = "", self._clock()
            for name in self._names():
                self._look_at([name])
                await asyncio.sleep(0)
            self.is_read = True
            while True:
                await tailer.poll()

    # --- each second ------------------------------------------------------------------------------------------------
    async def _tick(self) -> None:
        while True:
            now_s = self._clock()
            await asyncio.sleep(math.floor(now_s - TICK_AT_S) + 1 + TICK_AT_S - now_s)
            self.look()

    def look(self) -> None:
        self.tick += 1
        self._ticked.set()
        self._ticked = asyncio.Event()

    async def _keep(self) -> None:
        while not self._is_ending:
            await self._ticked.wait()
            if self.is_read and not self.stale_reason:
                await self.keep(int(self._clock()))

    async def keep(self, now_s: int) -> None:
        """Look at the applications whose turn it is, and keep a point of each in every step of the history."""
        names, step = self.facts.declared.manifests.applications.keys(), now_s // FINEST_S
        self._statuses = {name: one for name, one in self._statuses.items() if name in names}
        oldest = [*(name for name in names if name not in self._statuses), *self._statuses]
        seldom = min(STATUSES_A_SECOND, math.ceil(len(names) / FINEST_S))
        for name in oldest[: STATUSES_A_SECOND if self._is_looked_at() else seldom]:
            self._look_at([name])
            await asyncio.sleep(0)
        if step != self._step:
            self._step, self._began_tick, self._kept = step, self.tick, set()
        found = ((name, one) for name, (tick, one) in self._statuses.items() if tick >= self._began_tick)
        fresh = {name: point_of(one) for name, one in found if name not in self._kept}
        self._kept |= fresh.keys()
        await asyncio.to_thread(self.history.add, now_s, fresh)


async def _ended(tasks: Sequence["asyncio.Future[None]"]) -> None:
    """Cancel tasks, and wait for their ends; a task group would swallow a cancellation from outside meanwhile."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
