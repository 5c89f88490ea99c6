"""What an operator is told: the rules that find what is wrong, and the page, from snapshots without a Kafka."""

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from clipper_agents.admin.looking import instance_of
from clipper_agents.admin.status import BrokerStatus, GroupStatus, MemberStatus, ModelStatus, Status, TopicStatus
from clipper_agents.cli.status_view import show

ROUTERS = GroupStatus(
    group="clipper.router",
    state="Stable",
    members=(
        MemberStatus(instance="router-0", host="10.0.0.1", partitions={"clipper.queries": (0, 2)}),
        MemberStatus(instance="router-1", host="10.0.0.2", partitions={"clipper.queries": (1,)}),
    ),
    inputs={"clipper.queries": 3},
    lag={"clipper.queries": 7},
)
HEALTHY = Status(
    prefix="clipper",
    at_s=1_700_000_000.0,
    brokers=(BrokerStatus(node_id=1, address="10.0.0.9:9092", reachable=True),),
    topics=(TopicStatus(name="clipper.queries", partitions=3),),
    groups=(ROUTERS,),
    applications={"sums": ("sum:1",)},
    models=(ModelStatus(ref="sum:1", colocated=False, replicas=1, live=1),),
    dead_letters=4,
)


def changed(**fields: Any) -> Status:
    return replace(HEALTHY, **fields)


def group(**fields: Any) -> tuple[GroupStatus, ...]:
    return (replace(ROUTERS, **fields),)


def test_nothing_is_wrong_with_a_deployment_that_runs_dead_letters_included() -> None:
    assert HEALTHY.reasons() == []


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (
            {"brokers": (BrokerStatus(node_id=2, address="b:9092", reachable=False),)},
            "broker 2 at b:9092 does not answer",
        ),
        ({"silent_addresses": ("c:9092",)}, "address c:9092: nobody takes a connection"),
        ({"controller": False}, "no controller"),
        (
            {"topics": (TopicStatus(name="clipper.queries", partitions=3, leaderless=(0, 2)),)},
            "topic clipper.queries: partitions 0,2 have no leader",
        ),
        (
            {"topics": (TopicStatus(name="clipper.queries", partitions=3, under_replicated=(1,)),)},
            "1 partitions have fewer copies than they should (clipper.queries)",
        ),
        ({"missing_topics": ("clipper.feedback",)}, "topic clipper.feedback does not exist"),
        ({"groups": group(members=(), state="Empty")}, "no router runs"),
        ({"groups": group(state="PreparingRebalance")}, "group clipper.router is in state PreparingRebalance"),
        (
            {"groups": group(members=ROUTERS.members[:1])},
            "group clipper.router: nobody reads partitions 1 of clipper.queries",
        ),
        ({"groups": group(lag={"clipper.queries": 10_001})}, "group clipper.router is 10001 records behind"),
        (
            {"models": (ModelStatus(ref="sum:1", colocated=False, replicas=2, live=0),)},
            "model sum:1 has 0 of 2 hosts",
        ),
        ({"applications": {"sums": ("sum:1", "mean:2")}}, "application sums: model mean:2 is not declared"),
        ({"unreadable": {"model/x": "no such field"}}, "manifest model/x cannot be read: no such field"),
    ],
)
def test_each_thing_that_is_wrong_is_one_line_that_names_it(fields: dict[str, Any], said: str) -> None:
    (reason,) = changed(**fields).reasons()
    assert said in reason


def test_a_host_group_without_members_is_told_once_by_its_model() -> None:
    hosts = GroupStatus(group="clipper.host.sum.1", model="sum:1", state="Empty", inputs={"clipper.requests.sum.1": 1})
    models = (ModelStatus(ref="sum:1", colocated=False, replicas=1, live=0),)
    (reason,) = changed(groups=(ROUTERS, hosts), models=models).reasons()
    assert reason.startswith("model sum:1 has 0 of 1 hosts")


def test_the_operator_says_how_much_lag_is_fine() -> None:
    assert HEALTHY.reasons(most_lag=7) == []
    assert len(HEALTHY.reasons(most_lag=6)) == 1


def test_the_page_has_every_member_with_its_partitions_and_ends_with_the_reasons() -> None:
    console = Console(width=120, record=True, force_terminal=False)
    with console.capture() as said:
        show(console, HEALTHY, ["broker 2 is away"])
    page = said.get()
    assert "router-0" in page
    assert "10.0.0.2" in page
    assert "0,2" in page
    assert "dead letters within the last hour: 4" in page
    assert page.rstrip().endswith("wrong: broker 2 is away")


def test_a_static_member_is_called_by_its_instance() -> None:
    assert instance_of("svm-a-00000000-1111-2222-3333-444444444444") == "svm-a"
    assert instance_of("short") == "short"
