"""What the console's pages show: a deployment as it is now, followed on its topics, a second at a time.

Rules of this file:
- Nothing ends it. A Kafka that is away is waited for, and topics that are missing, deleted or made again are read anew;
  until then what was read last stays, with the reason why it is stale.
- What nobody looks at is not made; what somebody looks at is made once a second, however many look.
- It shares a loop with the gateway's calls: between two applications it lets them run.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar, cast

from aiokafka.errors import KafkaError

from clipper_agents.kafka.errors import checked_partitions
from clipper_agents.status import figures
from clipper_agents.status.build import StatusBuilder
from clipper_agents.status.cluster import ClusterWatch, readable_partitions
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.host_watch import HostWatch
from clipper_agents.status.model import ApplicationStatus
from clipper_agents.status.problems import application_reasons, reasons_of
from clipper_agents.status.tailer import DeploymentTailer
from clipper_agents.status.traffic_window import TrafficWindow
from clipper_agents.status.whole import status_of, workers_of_groups
from clipper_agents.streaming.reachability import watch_topics
from clipper_gateway.console.history import FINEST, Clock, SeriesHistory
from clipper_gateway.console.rebuild import rebuild
from clipper_stream.errors import ClipperError
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

T = TypeVar("T")

SAMPLE_PER_S = 200
AGAIN_S, SILENT_S, TICK_AT_S = 1.0, 3.0, 0.85
"""Between two attempts; without an answer, until that is told; behind a second, when all of it has been read."""
POINTS_A_SECOND, STATUSES_A_SECOND, MODELS_A_SECOND = 20, 5, 250
"""What is made at most: of more than two hundred applications, each has a point more seldom than every ten seconds."""
SCRAPE_S, LOOKED_TICKS = 10.0, 30
"""Between two readings of metrics; so long is something looked at by whoever asked for it once."""
SUMMARIES, PROBLEMS, VERSIONS, DEPLOYMENT = "/summaries", "/problems", "/versions", "/deployment"
"""Pages beside those of applications, which have no slash in their names."""
READING, SILENT = "the topics are being read", "no broker answers"


class LiveView:
    """A deployment that is followed.

    Args:
        kafka: Where it is.
        catalogue: Its topics.
        history: Takes its figures in.
        clock: Says the time, seconds since the epoch.

    Attributes:
        facts: What is declared, changed and learned.
        recent: What flowed.
        at_s: When it last heard of Kafka, seconds since the epoch.
        is_read: Whether the topics were read to their end once.
        stale_reason: Why it does not follow now; empty while it does.
        tick: Seconds seen.
        cluster: What brokers and groups say.
    """

    def __init__(
        self, kafka: KafkaConnection, catalogue: Catalogue, history: SeriesHistory, clock: Clock = time.time
    ) -> None:
        self.facts, self.recent, self.history = DeploymentView(contexts_read=False), TrafficWindow(), history
        self.at_s, self.is_read, self.tick, self.stale_reason = 0.0, False, 0, READING
        self._kafka, self._catalogue, self._clock = kafka, catalogue, clock
        self._ticked, self._second = asyncio.Event(), 0
        self._left_out: tuple[Iterable[str], Iterable[str]] = (), ()
        self._hosts = HostWatch()
        self.cluster = ClusterWatch(kafka, catalogue, lambda: self.facts, self._is_looked_at)
        self._statuses: dict[str, ApplicationStatus] = {}
        self._problems: dict[str, int] = {}
        self._made: dict[str, tuple[int, object]] = {}

    async def run(self) -> None:
        """Follow the deployment, without end; a Kafka that is away is waited for."""
        async with asyncio.TaskGroup() as tasks:
            for work in (self._tick(), self._keep(), self._follow(), self._scrape(), self.cluster.run()):
                tasks.create_task(work)

    async def next_tick(self, after: int) -> int:
        """Wait until `tick` is beyond `after`, and return it."""
        while self.tick <= after:
            await self._ticked.wait()
        return self.tick

    # --- what pages show --------------------------------------------------------------------------------------------
    def summaries(self) -> Sequence[figures.ApplicationSummary]:
        """All applications in the order of their names."""
        return self._once(SUMMARIES, lambda: figures.application_summaries(self._builder(), self._problems))

    def status(self, name: str) -> ApplicationStatus | None:
        """One application, whole; None: it is not declared."""
        return self._once(name, lambda: self._status(name))

    def reasons(self) -> Sequence[str]:
        """What is wrong, a line each with what helps."""
        return self._once(PROBLEMS, self._reasons, 1 + len(self.facts.declared.manifests.models) // MODELS_A_SECOND)

    def models(self) -> Sequence[figures.VersionSummary]:
        """Every declared version."""
        ticks = 1 + len(self.facts.declared.manifests.models) // MODELS_A_SECOND
        return self._once(VERSIONS, lambda: figures.version_summaries(self._builder(), self._hosts.restarts), ticks)

    def _once(self, what: str, make: Callable[[], T], ticks: int = 1) -> T:
        """What was made within the last ticks, or is made now."""
        if what not in self._made or self._made[what][0] <= self.tick - ticks:
            self._made[what] = self.tick, make()
        return cast("T", self._made[what][1])

    def _names(self) -> list[str]:
        return sorted(self.facts.declared.manifests.applications)

    def _is_looked_at(self) -> bool:
        return self.is_read and bool(self._made)

    def _builder(self) -> StatusBuilder:
        """Figures of now, or of when Kafka was heard of last."""
        now_s = self.at_s if self.stale_reason else self._clock()
        workers = workers_of_groups(self.cluster.newest, self._hosts.workers)
        return StatusBuilder(facts=self.facts, recent=self.recent, now_s=now_s, workers=workers)

    def _status(self, name: str) -> ApplicationStatus | None:
        self._statuses |= (found := self._builder().applications([name]))
        self._problems[name] = len(application_reasons(found, self._clock()))
        return found.get(name)

    def deployment_reasons(self) -> Sequence[str]:
        """What is wrong with brokers, groups and processes, and not with one application."""
        return self._once(DEPLOYMENT, lambda: self._reasons_of({}) if self.cluster.newest else [])

    def _reasons(self) -> Sequence[str]:
        """What is wrong, by statuses that are made in turns."""
        for name in islice((name for name in self._names() if name not in self._statuses), STATUSES_A_SECOND):
            self._status(name)
        return [*filter(None, [self.history.reason]), *self._reasons_of(self._statuses)]

    def _reasons_of(self, applications: Mapping[str, ApplicationStatus]) -> list[str]:
        cluster = self.cluster.newest
        status = status_of(
            self._builder(), self._catalogue.prefix, applications, cluster, *self._left_out, self.cluster.refused
        )
        return [*filter(None, [self.stale_reason]), *reasons_of(status)]

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
                self.stale_reason = str(error) or repr(error)
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
        """Read what the topics hold, then what comes."""
        kafka, catalogue = self._kafka, self._catalogue
        partitions = await readable_partitions(kafka, catalogue)
        checked_partitions(catalogue.control, sum(tp.topic == catalogue.control for tp in partitions))
        async with DeploymentTailer(kafka, catalogue, contexts=False, sample_per_s=SAMPLE_PER_S) as tailer:
            self._left_out = await tailer.catch_up(partitions), tailer.refused
            self.facts, self.recent = tailer.facts, tailer.recent
            self.is_read, self.stale_reason, self.at_s = True, "", self._clock()
            rebuilding = asyncio.ensure_future(rebuild(self.history, kafka, catalogue, partitions, self.facts))
            try:
                while True:
                    await tailer.poll()
                    if rebuilding.done():
                        rebuilding.result()  # it tells what it expects; anything else is a bug, and ends this process
            finally:
                await _ended([rebuilding])

    # --- each second ------------------------------------------------------------------------------------------------
    async def _tick(self) -> None:
        while True:
            now_s = self._clock()
            await asyncio.sleep(math.floor(now_s - TICK_AT_S) + 1 + TICK_AT_S - now_s)
            self.look()

    def look(self) -> None:
        """See another second."""
        self.tick += 1
        self._made = {what: made for what, made in self._made.items() if made[0] > self.tick - LOOKED_TICKS}
        self._hosts.see(self.facts.hosts.reports)
        self._ticked.set()
        self._ticked = asyncio.Event()

    async def _keep(self) -> None:
        tick = 0
        while True:
            tick = await self.next_tick(tick)
            if self.is_read and not self.stale_reason:
                await self.keep(int(self._clock()))

    async def keep(self, now_s: int) -> None:
        """Add points of the applications whose turn it is; see how others are while somebody reads what is wrong."""
        names = self._names()
        points: dict[str, tuple[figures.Point, dict[str, figures.Point]]] = {"": ({}, {})}
        is_looked_at = bool(self._made.keys() & {PROBLEMS, SUMMARIES})
        point_turns = max(FINEST.step_s, math.ceil(len(names) / POINTS_A_SECOND))
        status_turns = math.ceil(len(names) / STATUSES_A_SECOND)
        for second in range(max(self._second + 1, now_s - FINEST.step_s + 1), now_s + 1):
            for at, name in enumerate(names):
                has_point, has_status = (second - at) % point_turns == 0, (second - at) % status_turns == 0
                if has_point:
                    points[name] = figures.point_of(self._builder(), name)
                if has_status and is_looked_at:
                    self._status(name)
                if has_point or has_status:
                    await asyncio.sleep(0)
        self._second = now_s
        self._statuses, self._problems = (self._statuses, self._problems) if is_looked_at else ({}, {})
        await asyncio.to_thread(self._add, now_s, points)

    def _add(self, at_s: int, points: Mapping[str, tuple[figures.Point, dict[str, figures.Point]]]) -> None:
        for name, point in points.items():
            self.history.add(name, at_s, *point)

    async def _scrape(self) -> None:
        while True:
            await asyncio.sleep(SCRAPE_S)
            looked_at = [one for name, one in self.facts.declared.manifests.applications.items() if name in self._made]
            await self._hosts.read(self.facts.hosts.reports.values(), {ref for one in looked_at for ref in one.refs})


async def _ended(tasks: Sequence["asyncio.Future[None]"]) -> None:
    """Cancel tasks, and wait for their ends.

    A task group, which does the same, swallows a cancellation from outside while it ends by an error.
    """
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
