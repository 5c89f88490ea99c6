"""A deployment under traffic, on a Kafka to which something is done."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from e2e.any_client import AnyClient
from e2e.programs import Program, environment, run, until
from e2e.traffic import Traffic
from faults.deployment import CONFIGURATION, OwnDeployment
from faults.restored import judge_twice, without_prediction
from faults.verdict import Verdict
from faults.watching import Watch

from clipper_topics.catalogue import Catalogue

PREFIX = "clipper"
PARTITIONS = 2
SOME = 100
"""Queries of which the traffic is known to flow."""


@dataclass
class Standing:
    """What runs, and what was done to it.

    Attributes:
        deployment: Its topics and folders.
        client: Reads and writes.
        up: The supervisor of the workers.
        traffic: Asks and tells.
        watch: Notes when answers arrive.
        faults_s: When something was done, by `time.monotonic`.
    """

    deployment: OwnDeployment
    client: AnyClient
    up: Program
    traffic: Traffic
    watch: Watch
    faults_s: list[float] = field(default_factory=list)

    def fault(self) -> None:
        """Something is done now."""
        self.faults_s.append(time.monotonic())

    def flows(self, within_s: float = 120.0) -> None:
        """Wait until queries are answered that were asked after this call."""
        asked, seen = self.traffic.asked, len(self.watch.arrivals_s)
        until("more queries", lambda: self.traffic.asked > asked + SOME, within_s)
        until("more answers", lambda: len(self.watch.arrivals_s) > seen + 5, within_s)

    def verdict(self) -> Verdict:
        """Ask no more, and look what the logs say, as `judge_twice`.

        After an outage a producer may have written a query twice, and the second takes the answer of the first.
        """
        self.traffic.finish(lambda: without_prediction(self.client, PREFIX))
        return judge_twice(self.deployment, self.up)

    @property
    def stalls_s(self) -> list[float]:
        """The longest time without an answer after each fault, seconds."""
        return self.watch.stalls_s(self.faults_s)

    @property
    def restarts(self) -> int:
        """How often the supervisor started a worker again."""
        return self.up.log.count('msg="child ended, restarting"')


@contextmanager
def standing(bootstrap: str, folder: Path, *settings: str, replication: int = 1) -> Iterator[Standing]:
    """The deployment of kills.toml, as `up` starts it, with traffic that flows."""
    folder.mkdir(parents=True, exist_ok=True)
    environ = environment(
        KAFKA_BOOTSTRAP_SERVERS=bootstrap,
        CLIPPER_KAFKA_PREFIX=PREFIX,
        CLIPPER_KAFKA_PARTITIONS=str(PARTITIONS),
        CLIPPER_KAFKA_REPLICATION=str(replication),
    )
    applied = run("apply", "--config", str(CONFIGURATION), folder=folder, environ=environ)
    assert applied.code == 0, applied.err
    client, catalogue = AnyClient(bootstrap), Catalogue(prefix=PREFIX, partitions=PARTITIONS)
    deployment = OwnDeployment(client, catalogue, folder, folder / "data", environ)
    with (
        deployment.start("up", *(word for one in settings for word in ("--set", one))) as up,
        Watch(client, f"{PREFIX}.predictions") as watch,
        Traffic(client, PREFIX, PARTITIONS) as traffic,
    ):
        up.ready()
        stands = Standing(deployment, client, up, traffic, watch)
        stands.flows()
        yield stands
