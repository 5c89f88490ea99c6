"""What is away, stuck or told for longer than the horizon, and routers whose own clocks are wrong by an hour."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager

import oracle
import pytest
from confluent_kafka.admin import AdminClient
from e2e.programs import Program, Shell, until
from e2e.traffic import Traffic
from faults.deployment import Deployment
from faults.restored import end, judge_twice
from faults.verdict import judge

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]

HORIZON_S = 5.0
BEYOND_S = 2 * (2 * HORIZON_S + 2 * oracle.EARLY_MS / 1000)
"""So long ago is what no feedback can be about any more, nor a query repeat."""
QUERIES = 400


@contextmanager
def asked(deployment: Deployment, **told: float) -> Iterator[tuple[Program, Program, Traffic]]:
    """A host, a router and traffic, of which some was answered."""
    client, catalogue = deployment.client, deployment.catalogue
    with deployment.worker("host", "slow-sum:1") as host, short_sighted(deployment) as router:
        host.ready()
        router.ready()
        with Traffic(client, catalogue.prefix, catalogue.partitions, **told) as traffic:
            until("queries", lambda: traffic.asked >= QUERIES)
            yield host, router, traffic


def short_sighted(deployment: Deployment) -> Program:
    return deployment.worker("router", router_horizon_s=HORIZON_S)


def passes(seconds: float) -> None:
    end_s = time.monotonic() + seconds
    until("time passes", lambda: time.monotonic() > end_s)


def test_feedback_counts_at_the_time_when_it_was_said_however_long_routers_were_away(deployment, fault_report):
    """A copy in the right partition had the time of the router that came back: 400 of 400 were orphans."""
    with asked(deployment, delay_s=2.0) as (_, router, traffic):
        router.signal(signal.SIGKILL)
        router.ended()
        passes(BEYOND_S)
        with short_sighted(deployment) as second:
            second.ready()
            traffic.finish()
            verdict = judge(deployment, horizon_s=HORIZON_S)
    copies = [one for one in deployment.client.read(deployment.catalogue.feedback) if oracle.FORWARDED in one.headers]
    late = [one for one in copies if one.timestamp_ms - oracle.said_ms(one) > 1000 * HORIZON_S]
    fault_report.add("feedback for another partition, routers away", verdict, kills=1, note=f"{len(late)} sent on late")
    verdict.check()
    assert late


@pytest.mark.parametrize("why", ["its group was deleted", "one before them is stuck"])
def test_queries_that_are_read_again_beyond_the_horizon_keep_their_answers(why, deployment, fault_report):
    """With the directory kept, 914 of 1,401 got another answer: it had forgotten them, and did not look again."""
    is_stuck = why == "one before them is stuck"
    if is_stuck:
        command = ("application", "update", "slow", "--field", "objective_ms=120000")
        Shell(deployment.folder, deployment.environ)(*command)
    with asked(deployment) as (host, router, traffic):
        if is_stuck:
            os.kill(host.pid, signal.SIGSTOP)
        passes(BEYOND_S)
        router.signal(signal.SIGKILL)
        router.ended()
        if is_stuck:
            os.kill(host.pid, signal.SIGCONT)
        else:
            until("its group is deleted", lambda: deleted(deployment))
        with short_sighted(deployment) as second:
            second.ready()
            traffic.finish()
            group, queries = deployment.catalogue.router_group, deployment.catalogue.queries
            until("all is read again", lambda: not deployment.behind(group, queries))
            verdict = judge(deployment, horizon_s=HORIZON_S)
    fault_report.add(f"queries read again, as {why}", verdict, kills=1)
    verdict.check()


def deleted(deployment: Deployment) -> bool:
    """Whether the routers' group is gone, which it is once its last member's session is over."""
    admin, group = AdminClient({"bootstrap.servers": deployment.client.bootstrap}), deployment.catalogue.router_group
    (done,) = admin.delete_consumer_groups([group]).values()
    return done.exception(60) is None


@pytest.mark.parametrize("wrong_s", [-3600, 3600])
def test_a_clock_of_a_router_that_is_wrong_by_an_hour_costs_no_feedback(wrong_s, deployment, fault_report):
    """An hour behind it refused 1,510: it took what was asked "in the future" for asked now. (Ahead, all is late.)"""
    clock = deployment.folder / "clock"
    clock.mkdir()
    (clock / "sitecustomize.py").write_text(f"import time\nnow = time.time\ntime.time = lambda: now() + {wrong_s}\n")
    with asked(deployment._replace(environ=deployment.environ | {"PYTHONPATH": str(clock)})) as (host, router, traffic):
        traffic.finish()
        verdict = judge_twice(deployment, router)
        end(host)
    fault_report.add(f"a router's clock {wrong_s} s wrong", verdict)
    verdict.check()
    asked_ms = {
        (one.partition, one.offset): one.timestamp_ms for one in deployment.client.read(deployment.catalogue.queries)
    }
    assert all(
        one.content["queried_at_ms"] == asked_ms[one.partition, one.content["query_offset"]] for one in verdict.answers
    )
