"""The board of health, from statuses without a Kafka."""

from dataclasses import replace
from typing import Any

import pytest
from unit.status.test_problems import AT_S, HEALTHY, HOSTS, ROUTERS, SUM, application, model, waiting

from clipper_agents.status.health import board, worst
from clipper_agents.status.model import BrokerStatus, Status
from clipper_agents.status.problems import CLUSTER_AGE_S, problems_of

assert HEALTHY.cluster is not None
CLUSTER = replace(HEALTHY.cluster, dead_letters=0)
WELL = replace(HEALTHY, cluster=CLUSTER)


def of_cluster(**fields: Any) -> Status:
    return replace(WELL, cluster=replace(CLUSTER, **fields))


def routers(**fields: Any) -> Status:
    return of_cluster(groups=(replace(ROUTERS, **fields),))


def shown(status: Status) -> dict[str, tuple[str, str]]:
    gauges = board(status, [*status.applications.values()])
    return {gauge.label: (gauge.value, gauge.health) for gauge in gauges}


def test_a_healthy_deployment_is_good_in_everything() -> None:
    assert shown(WELL) == {
        "Brokers": ("1 of 1", "good"),
        "Routers": ("2 of 2", "good"),
        "Hosts": ("1 of 1", "good"),
        "Lag": ("7", "good"),
        "Dead letters": ("0", "good"),
        "Unanswered": ("0.0%", "good"),
    }


BROKERS = tuple(BrokerStatus(node_id=number, address="a:1", reachable=number == 1) for number in (1, 2))
TWO_HOSTS = {"sum:1": model(hosts=1, replicas=2)}


@pytest.mark.parametrize(
    ("status", "label", "value", "health"),
    [
        (of_cluster(brokers=BROKERS), "Brokers", "1 of 2", "warn"),
        (of_cluster(brokers=BROKERS[1:]), "Brokers", "0 of 1", "bad"),
        (replace(WELL, routers=("router-0", "router-9")), "Routers", "2 of 3", "warn"),
        (routers(waiting=waiting(stands_still=True)), "Routers", "1 of 2", "warn"),
        (routers(waiting=waiting(stands_still=True), members=ROUTERS.members[1:]), "Routers", "0 of 1", "bad"),
        (routers(members=()), "Routers", "0 of 0", "bad"),
        (of_cluster(groups=(HOSTS,)), "Routers", "0 of 0", "bad"),
        (replace(WELL, models=TWO_HOSTS), "Hosts", "1 of 2", "warn"),
        (replace(WELL, models={"sum:1": model(hosts=None)}), "Hosts", "0 of 1", "warn"),
        (routers(lag={"clipper.queries": 10_001}), "Lag", "10,001", "warn"),
        (routers(waiting=waiting()), "Lag", "7", "bad"),
        (of_cluster(dead_letters=1), "Dead letters", "1", "warn"),
        (of_cluster(dead_letters=101), "Dead letters", "101", "bad"),
        (
            replace(WELL, applications=application(SUM, queries=100, defaults={"late": 2, "invalid_input": 90})),
            "Unanswered", "2.0%", "bad",
        ),
        (replace(WELL, applications=application(SUM, queries=100, defaults={"late": 1})), "Unanswered", "1.0%", "good"),
    ],
)  # fmt: skip
def test_a_figure_that_is_not_as_it_should_be_says_so(status: Status, label: str, value: str, health: str) -> None:
    assert shown(status)[label] == (value, health)


NOT_KNOWN = {
    "nothing was said": replace(WELL, cluster=None),
    "this user may not ask": replace(WELL, cluster=None, cluster_refused="may not be read"),
    "it was said too long ago": replace(WELL, at_s=AT_S + CLUSTER_AGE_S),
    "no broker answers": replace(WELL, stale="no broker answers"),
}


@pytest.mark.parametrize("status", NOT_KNOWN.values(), ids=NOT_KNOWN)
def test_what_is_not_known_is_not_good_and_is_a_problem(status: Status) -> None:
    assert {health for _, health in shown(status).values()} <= {"unknown", "bad"}
    assert problems_of(status)


def test_the_worst_figure_decides_and_what_is_unknown_is_worse_than_a_warning() -> None:
    gauges = [gauge._replace(health=health) for gauge, health in zip(board(WELL, []), ("good", "warn"), strict=False)]
    assert worst(gauges) == "warn"
    assert worst([*gauges, gauges[0]._replace(health="unknown")]) == "unknown"
