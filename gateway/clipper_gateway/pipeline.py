"""The gateway's side of Kafka: one client, the registered applications, and whether it can serve.

Rules of this file:
- A Kafka that is away makes a gateway unready, never dead. What ends is begun again, without end.
- What no waiting mends, topics that were deleted and made again, ends the process: the next one reads them anew.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.control.state import ControlState
from clipper_agents.kafka.follower import TopicFollower
from clipper_agents.kafka.reader import Record
from clipper_agents.kafka.retry import retry
from clipper_agents.settings.load import WorkerSettings
from clipper_agents.settings.sections import GatewaySection
from clipper_agents.status.build import trial_verdict
from clipper_agents.status.deployment_view import COMPARED_WITHIN_S, DeploymentView
from clipper_agents.status.query_history import QueryHistory, QueryHistoryReader, partitions_of_query
from clipper_agents.streaming.reachability import run_until_one_ends, watch_kafka
from clipper_gateway.callers import Caller, Shares
from clipper_gateway.errors import Refusal
from clipper_stream.client import BrokerUnavailable, Client
from clipper_stream.client.access import RIGHTS, refused_right
from clipper_stream.errors import SetupError, shown
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import MSGPACK
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest, ModelManifest
from clipper_topics.query_ids import partition_of

PROBED_S, NOTICE_S = 15.0, 1.5
"""A balancer that has probed lately does it each second: then it has seen that nothing should come any more."""


class DeployedApplications:
    """What is registered now, as the followers of `control` and `hosts` have read it."""

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue) -> None:
        self._state, self._hosts = ControlState(notes=("change",), saved_rows=False), ReadyHosts()
        self._facts = DeploymentView(declared=self._state)
        self.control = TopicFollower(kafka, catalogue.control, self._state.take)
        self.comparisons = TopicFollower(kafka, catalogue.comparisons, self._compare, COMPARED_WITHIN_S)
        self.hosts = TopicFollower(kafka, catalogue.hosts, self._hosts.take)

    @property
    def is_known(self) -> bool:
        """Whether the control topic has been read to its end once."""
        return self.control.caught_up.is_set()

    @property
    def applications(self) -> Mapping[str, ApplicationManifest]:
        return self._state.manifests.applications

    @property
    def models(self) -> Mapping[str, ModelManifest]:
        return self._state.manifests.models

    def check_known(self) -> None:
        """Raise a `Refusal` when the control topic was never read to its end: what is missing may be in it."""
        if not self.is_known:
            raise Refusal(503, "this gateway has not read the applications yet: try again", retry_after_s=1.0)

    def manifest(self, name: str) -> ApplicationManifest:
        found = self.applications.get(name)
        if found is not None:
            return found
        self.check_known()
        raise Refusal(404, f"there is no application {shown(name)}: GET /v1/applications lists those that exist")

    def verdict(self, name: str, ref: str) -> dict[str, Any]:
        """Return how a trial stands or ended; errors as of `manifest`, and where the version never was on trial."""
        self.manifest(name)
        if not self.comparisons.caught_up.is_set():
            raise Refusal(503, "this gateway has not read the comparisons yet: try again", retry_after_s=1.0)
        if found := trial_verdict(self._facts, name, ref, time.time()):
            return {"application": name, "model": ref} | found
        raise Refusal(404, f"{shown(ref)} was never on trial for {shown(name)}: GET /v1/applications has its trials")

    def _compare(self, records: Iterable[Record]) -> None:
        for one in records:
            self._facts.comparison(one.key, one.value, one.headers, one.timestamp / 1000)

    def is_ready(self, name: str) -> bool:
        """Return whether a version that may answer for the application is served now; errors as of `manifest`."""
        return any(self._is_served(ref) for ref in self.manifest(name).refs)

    def _is_served(self, ref: str) -> bool:
        model = self.models.get(ref)
        return model is not None and not model.retired and (model.colocated or self._hosts.hosts(ref) > 0)


class Pipeline:
    """Kafka, as one gateway uses it; once it is `ending`, nobody should send it anything any more."""

    def __init__(
        self, settings: WorkerSettings[GatewaySection], reachable: Callable[[bool], None], shares: Shares
    ) -> None:
        kafka, catalogue = settings.kafka, settings.catalogue
        self.client = Client(kafka, prefix=catalogue.prefix, content_type=MSGPACK)
        self.history = QueryHistoryReader(kafka, catalogue)
        self.deployed = DeployedApplications(kafka, catalogue)
        self.ending, self._searches = asyncio.Event(), shares.searches
        self._kafka, self._topics = kafka, (catalogue.control, catalogue.queries, catalogue.predictions)
        self._reachable, self._is_reachable, self._is_open = reachable, True, False
        self._probed_s = -math.inf

    async def run(self) -> None:
        """Be connected until cancelled; raises when nothing helps but another process."""
        works = {
            "the client": self._serve_client,
            "the control topic": self.deployed.control.run,
            "the topic of hosts": self.deployed.hosts.run,
            "the topic of comparisons": self.deployed.comparisons.run,
        }
        reachable = watch_kafka(self._kafka, self._note, self._topics)
        try:
            await run_until_one_ends(reachable, *(self._restarted(name, work) for name, work in works.items()))
        finally:
            await self.client.close()
            await self.history.close()

    def reasons(self) -> list[str]:
        """Return why this gateway does not serve now, empty when it does."""
        found = {
            "the gateway ends": self.ending.is_set(),
            "no broker answers": not self._is_reachable,
            "the topics are not connected": not self._is_open,
            "the applications are not read yet": not self.deployed.is_known,
        }
        return [reason for reason, holds in found.items() if holds]

    def probed(self) -> list[str]:
        """Return the reasons to a probe, which sees changes from now on."""
        self._probed_s = time.monotonic()
        return self.reasons()

    def notice_s(self) -> float:
        """Return how long somebody who probes needs to see a change: nothing where nobody has asked lately."""
        return NOTICE_S if time.monotonic() - self._probed_s < PROBED_S else 0.0

    def check(self) -> None:
        if not (self._is_open and self._is_reachable):
            raise Refusal(503, f"{self.reasons()[0]}: try again", retry_after_s=1.0)

    async def read_query(
        self, caller: Caller, query_id: str, application: str | None, context: str | None, back_s: float
    ) -> QueryHistory:
        """Return what the logs of the last seconds say about a query, as far as it is the caller's business.

        Feedback that names no application may be about another one's query of the same id, if a client chose that.
        """
        self.check()
        partitions = partitions_of_query(query_id, context, self.client.partitions)
        since_ms = int((time.time() - back_s) * 1000)
        async with self._searches.turn(caller.holder):
            found = await self.history.read(query_id, application, partitions, since_ms=since_ms)
        if caller.applications is None or partition_of(query_id) is not None:
            return found
        return replace(found, feedback=tuple(one for one in found.feedback if one.said.application is not None))

    async def _serve_client(self) -> None:
        await self.client.open()
        self._is_open = True
        try:
            await self.client.ended()
            raise BrokerUnavailable("it reads no more answers")
        finally:
            self._is_open = False

    def _note(self, reachable: bool) -> None:
        self._is_reachable = reachable
        self._reachable(reachable)

    async def _restarted(self, what: str, work: Callable[[], Awaitable[None]]) -> None:
        async def attempt() -> None:
            try:
                await work()
            except RIGHTS as error:
                raise refused_right(self._kafka, error) from error

        await retry(f"{what} is begun again", attempt, passes=lambda error: isinstance(error, SetupError))
