"""Applications whose clocks are wrong by minutes: the broker's counts, for deadlines and for what counts twice."""

import random
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from e2e.any_client import AnyClient
from e2e.programs import Program, until
from e2e.traffic import Traffic
from faults.deployment import APPLICATIONS, OwnDeployment
from faults.report import FaultReport
from faults.restored import judge_twice
from faults.verdict import Verdict, judge

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

EARLY_S, LATE_S = (-600.0, -300.0), (0.0, 600.0)
HORIZON_S = 120.0
"""Shorter than the clocks are wrong: with their timestamps, feedback would lie outside of it."""
CLOSE_S = 60.0


@pytest.fixture
def deployment(kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path) -> OwnDeployment:
    return OwnDeployment.on(kafka, catalogue, tmp_path)


@pytest.fixture
def host(deployment: OwnDeployment) -> Iterator[Program]:
    with deployment.worker("host", "slow-sum:1") as program:
        program.ready()
        yield program


def router(deployment: OwnDeployment) -> Program:
    return deployment.start(
        "worker", "router", "--instance", "router-0", "--set", f"router.horizon_s={HORIZON_S}",
    )  # fmt: skip


def tell_again(client: AnyClient, topic: str) -> None:
    """Every feedback once more, by applications with wrong clocks: none of it may count."""
    producer, rng = Producer({"bootstrap.servers": client.bootstrap}), random.Random(20191)
    for one in client.read(topic):
        at_ms = round((time.time() + rng.choice(EARLY_S + LATE_S)) * 1000)
        producer.produce(topic, one.value, one.key, one.partition, timestamp=at_ms, headers=list(one.headers.items()))
    assert producer.flush(60) == 0


def keep_the_clocks_of_applications(kafka: KafkaConnection, topic: str) -> None:
    """The topic is as an older deployment, or somebody else, has made it."""
    entry = ConfigEntry("message.timestamp.type", "CreateTime", incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    (done,) = admin.incremental_alter_configs([resource]).values()
    done.result(60)


def through_a_wiped_router(deployment: OwnDeployment, queries: int) -> Verdict:
    """Ask and tell, wipe the router, tell everything again; what the logs say then."""
    client, catalogue = deployment.client, deployment.catalogue
    with ExitStack() as stack:
        with router(deployment) as first:
            first.ready()
            traffic = stack.enter_context(
                Traffic(client, catalogue.prefix, catalogue.partitions, clock_errors_s=EARLY_S)
            )
            until("the first half of the queries", lambda: traffic.asked >= queries / 2)
            traffic.clock_errors_s = LATE_S
            until("all of them", lambda: traffic.asked >= queries)
            traffic.finish()
            judge(client, catalogue.prefix, APPLICATIONS).check()
            first.signal(signal.SIGKILL)
            first.ended()
        shutil.rmtree(deployment.data)
        with router(deployment) as second:
            second.ready()
            tell_again(client, traffic.feedback)
            return judge_twice(deployment, second)


@pytest.mark.usefixtures("host")
def test_wrong_clocks_of_applications_make_nothing_late_and_nothing_count_twice(
    deployment: OwnDeployment, short: bool, fault_report: FaultReport
):
    verdict = through_a_wiped_router(deployment, 240 if short else 2000)
    fault_report.add("clocks of applications 10 min early and late", verdict, kills=1)
    verdict.check()
    asked_s = [one.content["queried_at_ms"] / 1000 for one in verdict.answers]
    decided_s = [one.content["predicted_at_ms"] / 1000 for one in verdict.answers]
    assert max(abs(decided - asked) for asked, decided in zip(asked_s, decided_s, strict=True)) < CLOSE_S


@pytest.mark.usefixtures("host")
def test_with_client_clocks_early_queries_are_late_and_late_ones_count_as_now(
    kafka: KafkaConnection, deployment: OwnDeployment, short: bool, fault_report: FaultReport
):
    keep_the_clocks_of_applications(kafka, deployment.catalogue.queries)
    verdict = through_a_wiped_router(deployment, 240 if short else 1000)
    fault_report.add("the same, on a topic with CreateTime", verdict, kills=1)
    verdict.check()
    late = [one.content for one in verdict.answers if one.content.get("reason") == "arrived_late"]
    assert len(late) == pytest.approx(verdict.queries / 2, rel=0.5)
    assert all(" ms after its timestamp; nobody was asked" in one["explanation"] for one in late)
    ages_s = [(one.content["predicted_at_ms"] - one.content["queried_at_ms"]) / 1000 for one in verdict.answers]
    assert min(ages_s) >= 0.0
    assert sum(age_s > CLOSE_S for age_s in ages_s) == pytest.approx(verdict.queries / 2, rel=0.5)
