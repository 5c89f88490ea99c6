"""What an operator is told: the rules that find what is wrong, and the page, from snapshots without a Kafka."""

from dataclasses import replace
from typing import Any

import pytest
from rich.console import Console

from clipper_agents.cli.status_view import show
from clipper_agents.kafka.consumer_groups import instance_of
from clipper_agents.status.model import (
    ApplicationStatus,
    BrokerStatus,
    GroupStatus,
    MemberStatus,
    ModelStatus,
    Status,
    TopicStatus,
    TrialStatus,
    VersionStatus,
)
from clipper_agents.status.problems import reasons_of


def application(*versions: VersionStatus, trials: tuple[TrialStatus, ...] = ()) -> ApplicationStatus:
    live = tuple(version.model for version in versions if version.stage == "live")
    return ApplicationStatus(models=live, versions=versions, trials=trials)


def trial(**fields: Any) -> TrialStatus:
    plain = {"feedbacks": 0, "difference": 0.0, "lower": -1.0, "upper": 1.0, "source": "totals"}
    return TrialStatus(model="nn:3", **(plain | fields))


HEALTHY_AT_S = 1_700_000_000.0
SUM = VersionStatus(model="sum:1", stage="live", hosts=1, replicas=1)
SHADOW = VersionStatus(model="nn:3", stage="shadow", declared_share=1.0, colocated=True, queries=20)
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
    at_s=HEALTHY_AT_S,
    brokers=(BrokerStatus(node_id=1, address="10.0.0.9:9092", reachable=True),),
    topics=(TopicStatus(name="clipper.queries", partitions=3),),
    groups=(ROUTERS,),
    applications={"sums": application(SUM)},
    models=(
        ModelStatus(ref="sum:1", colocated=False, replicas=1, live=1),
        ModelStatus(ref="nn:3", colocated=True, replicas=0, live=2),
        ModelStatus(ref="old:1", colocated=False, replicas=0, live=0, retired=True),
    ),
    dead_letters=4,
)


def changed(**fields: Any) -> Status:
    return replace(HEALTHY, **fields)


def group(**fields: Any) -> tuple[GroupStatus, ...]:
    return (replace(ROUTERS, **fields),)


@pytest.mark.parametrize(
    ("unanswered", "said"),
    [
        ({"error": 1}, ""),
        ({"late": 50}, ""),
        ({"error": 2, "late": 90}, "failed 2 of 100 queries in the last 60 s: ValueError: no: look at the log"),
        ({"late": 51}, "was late 51 of 100 times in the last 60 s: give it more hosts"),
    ],
)
def test_a_version_that_fails_or_is_late_too_often_is_told(unanswered: dict[str, int], said: str) -> None:
    version = replace(SUM, queries=100, unanswered=unanswered, said="ValueError: no")
    found = reasons_of(changed(applications={"sums": replace(application(version), window_s=60)}))
    assert [said in line for line in found] == ([True] if said else [])


@pytest.mark.parametrize(("queries", "defaults", "is_told"), [(19, 19, False), (20, 10, False), (20, 11, True)])
def test_an_application_that_gives_little_but_its_default_is_told(queries: int, defaults: int, is_told: bool) -> None:
    flowing = replace(application(SUM), window_s=60, queries=queries, defaults={"no_models": defaults - 1, "late": 1})
    found = reasons_of(changed(applications={"sums": flowing}))
    told = (
        f"application sums: {defaults} of {queries} queries in the last 60 s got the default (no_models {defaults - 1}"
    )
    said = f"{told}: the application has no model to ask; late 1: nothing arrived by the deadline)"
    assert [said in line for line in found] == ([True] if is_told else [])


def test_nothing_is_wrong_with_a_deployment_that_runs_dead_letters_included() -> None:
    assert reasons_of(HEALTHY) == []


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
        (
            {"topics": (TopicStatus(name="clipper.queries", partitions=3, configured=2),)},
            "topic clipper.queries has 3 partitions, 2 are configured",
        ),
        ({"missing_topics": ("clipper.feedback",)}, "topic clipper.feedback does not exist"),
        ({"replaced_topics": ("clipper.feedback",)}, "topic clipper.feedback was deleted and created again"),
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
        (
            {"applications": {"sums": application(SUM, VersionStatus(model="mean:2", stage="canary", declared=False))}},
            "application sums: model mean:2 is not declared",
        ),
        (
            {"applications": {"sums": application(replace(SUM, hosts=0, starting=("h0", "h1")))}},
            "model sum:1: none of 1 hosts is ready (h0, h1 not yet), so no query asks it: wait for its start, or run",
        ),
        (
            {"applications": {"sums": application(replace(SUM, failed={"h0": "no module named shop"}))}},
            "host h0 of model sum:1 failed: no module named shop: correct the model or its manifest",
        ),
        (
            {"applications": {"sums": application(SUM, SHADOW, trials=(trial(since_s=HEALTHY_AT_S - 1260),))}},
            "application sums: trial nn:3 got no feedback for 21 min: send labels with the ids of its queries",
        ),
        (
            {"applications": {"sums": application(SUM, SHADOW, trials=(trial(),))}},
            "application sums: trial nn:3 got no feedback so far",
        ),
        ({"unread_topics": ("clipper.hosts",)}, "topic clipper.hosts: not read to its end in time"),
        ({"refused_topics": ("clipper.audits",)}, "topic clipper.audits: this user may not read it"),
        ({"unreadable": {"model/x": "no such field"}}, "manifest model/x cannot be read: no such field"),
    ],
)
def test_each_thing_that_is_wrong_is_one_line_that_names_it(fields: dict[str, Any], said: str) -> None:
    (reason,) = reasons_of(changed(**fields))
    assert said in reason


def test_a_host_group_without_members_is_told_once_by_its_model() -> None:
    hosts = GroupStatus(group="clipper.host.sum.1", model="sum:1", state="Empty", inputs={"clipper.requests.sum.1": 1})
    models = (ModelStatus(ref="sum:1", colocated=False, replicas=1, live=0),)
    (reason,) = reasons_of(changed(groups=(ROUTERS, hosts), models=models))
    assert reason.startswith("model sum:1 has 0 of 1 hosts")


@pytest.mark.parametrize(
    "fine",
    [
        application(SUM, SHADOW, trials=(trial(feedbacks=1, since_s=0.0),)),
        application(SUM, SHADOW, trials=(trial(since_s=HEALTHY_AT_S - 599),)),
        application(SUM, replace(SHADOW, queries=19), trials=(trial(),)),
        application(replace(SUM, hosts=None)),
        application(SUM, VersionStatus(model="old:1", stage="retired", hosts=0, failed={"h": "ended"})),
    ],
    ids=["it has one", "it began just now", "hardly anybody asked it", "no host ever reported", "it is retired"],
)
def test_what_only_looks_like_a_fault_of_a_version_is_not_told(fine: ApplicationStatus) -> None:
    assert reasons_of(changed(applications={"sums": fine})) == []


def test_a_version_without_a_process_is_told_once_and_a_failed_host_besides() -> None:
    away = (ModelStatus(ref="sum:1", colocated=False, replicas=1, live=0),)
    (reason,) = reasons_of(changed(models=away, applications={"sums": application(replace(SUM, hosts=0))}))
    assert reason.startswith("model sum:1 has 0 of 1 hosts")
    failed = application(replace(SUM, hosts=0, failed={"h0": "out of memory"}))
    assert len(reasons_of(changed(models=away, applications={"sums": failed}))) == 2


def test_a_version_of_two_applications_is_told_once() -> None:
    both = {"sums": application(replace(SUM, hosts=0)), "more": application(replace(SUM, hosts=0))}
    assert len(reasons_of(changed(applications=both))) == 1


def test_the_operator_says_how_much_lag_is_fine() -> None:
    assert reasons_of(HEALTHY, most_lag=7) == []
    assert len(reasons_of(HEALTHY, most_lag=6)) == 1


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
