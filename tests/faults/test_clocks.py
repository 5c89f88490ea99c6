"""Applications whose clocks are wrong by minutes: the broker's counts, for deadlines and for what counts twice."""

import shutil
import signal

import pytest
from e2e.programs import until
from e2e.traffic import Traffic
from faults.deployment import Deployment
from faults.restored import TOPIC, judge_twice, set_config, tell_again
from faults.verdict import Verdict, judge

from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

EARLY_S, LATE_S = (-600.0, -300.0), (0.0, 600.0)
HORIZON_S = 120.0
"""Shorter than the clocks are wrong: with their timestamps, feedback would lie outside of it."""
CLOSE_S = 60.0


def keep_the_clocks_of_applications(kafka: KafkaConnection, topic: str) -> None:
    """The topic is as an older deployment, or somebody else, has made it."""
    set_config(kafka.bootstrap, TOPIC, topic, {"message.timestamp.type": "CreateTime"})


def through_a_wiped_router(deployment: Deployment, queries: int) -> tuple[Verdict, range]:
    """Ask and tell, wipe the router, tell everything again; what the logs say then, and how many clocks were behind.

    The last that is asked while the clocks are set may have either.
    """
    client, catalogue = deployment.client, deployment.catalogue
    with deployment.worker("host", "slow-sum:1") as host:
        host.ready()
        with deployment.worker("router", router_horizon_s=HORIZON_S) as first:
            first.ready()
            with Traffic(client, catalogue.prefix, catalogue.partitions, clock_errors_s=EARLY_S) as traffic:
                until("the first half of the queries", lambda: traffic.asked >= queries / 2)
                at_least = traffic.asked
                traffic.clock_errors_s = LATE_S
                behind = range(at_least, traffic.asked + 2)
                until("all of them", lambda: traffic.asked >= queries)
                traffic.finish()
            judge(deployment).check()
            first.signal(signal.SIGKILL)
            first.ended()
        shutil.rmtree(deployment.data)
        with deployment.worker("router", router_horizon_s=HORIZON_S) as second:
            second.ready()
            tell_again(client, catalogue.feedback, EARLY_S + LATE_S)
            return judge_twice(deployment, second), behind


def test_wrong_clocks_of_applications_make_nothing_late_and_nothing_count_twice(deployment, short, fault_report):
    verdict, _ = through_a_wiped_router(deployment, 240 if short else 2000)
    fault_report.add("clocks of applications 10 min early and late", verdict, kills=1)
    verdict.check()
    spans_ms = [one.content["predicted_at_ms"] - one.content["queried_at_ms"] for one in verdict.answers]
    assert max(map(abs, spans_ms)) < 1000 * CLOSE_S


def test_with_client_clocks_early_queries_are_late_and_late_ones_count_as_now(kafka, deployment, short, fault_report):
    keep_the_clocks_of_applications(kafka, deployment.catalogue.queries)
    verdict, behind = through_a_wiped_router(deployment, 240 if short else 1000)
    fault_report.add("the same, on a topic with CreateTime", verdict, kills=1)
    verdict.check()
    each = {(one.partition, one.content["query_offset"]): one.content for one in verdict.answers}
    ages_ms = {place: one["predicted_at_ms"] - one["queried_at_ms"] for place, one in each.items()}
    assert min(ages_ms.values()) >= 0
    late = [one for place, one in each.items() if ages_ms[place] > 1000 * CLOSE_S]
    assert len(late) in behind
    assert {one.get("reason") for one in late} == {"arrived_late"}
    assert all(" ms after its timestamp; nobody was asked" in one["explanation"] for one in late)
