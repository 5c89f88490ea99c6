"""What an operator is told: the rules that find what is wrong, and the page, from snapshots without a Kafka."""

from dataclasses import replace
from typing import Any

import pytest

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

AT_S = 1_700_000_000.0
SUM = VersionStatus(model="sum:1", stage="live", hosts=1, replicas=1)
SHADOW = VersionStatus(model="nn:3", stage="shadow", declared_share=1.0, colocated=True, queries=20)
AWAY = replace(SUM, hosts=0)
TOPIC = TopicStatus(name="clipper.queries", partitions=3)
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


def model(ref: str = "sum:1", *, replicas: int = 1, live: int = 0, **fields: Any) -> ModelStatus:
    return ModelStatus(ref=ref, colocated=not replicas, replicas=replicas, live=live, **fields)


def application(*versions: VersionStatus, **fields: Any) -> dict[str, ApplicationStatus]:
    live = tuple(version.model for version in versions if version.stage == "live")
    return {"sums": ApplicationStatus(models=live, versions=versions, **fields)}


def trial(queries: int = 20, **fields: Any) -> dict[str, ApplicationStatus]:
    """An application with a shadow that was asked so often."""
    plain = {"feedbacks": 0, "difference": 0.0, "lower": -1.0, "upper": 1.0, "source": "totals"}
    one = TrialStatus(model="nn:3", **(plain | fields))
    return application(SUM, replace(SHADOW, queries=queries), trials=(one,))


HEALTHY = Status(
    prefix="clipper",
    at_s=AT_S,
    brokers=(BrokerStatus(node_id=1, address="10.0.0.9:9092", reachable=True),),
    topics=(TOPIC,),
    groups=(ROUTERS,),
    applications=application(SUM),
    models=(model(live=1), model("nn:3", replicas=0, live=2), model("old:1", replicas=0, retired=True)),
    dead_letters=4,
)


def reasons(**fields: Any) -> list[str]:
    return reasons_of(replace(HEALTHY, **fields))


@pytest.mark.parametrize(
    ("unanswered", "said"),
    [
        ({"error": 1}, []),
        ({"late": 50}, []),
        ({"error": 2, "late": 90}, ["failed 2 of 100 queries in the last 60 s: ValueError: no: look at the log"]),
        ({"late": 51}, ["was late 51 of 100 times in the last 60 s: give it more hosts"]),
    ],
)
def test_a_version_that_fails_or_is_late_too_often_is_told(unanswered: dict[str, int], said: list[str]) -> None:
    version = replace(SUM, queries=100, unanswered=unanswered, said="ValueError: no")
    found = reasons(applications=application(version, window_s=60))
    assert [text in line for text, line in zip(said, found, strict=True)] == [True] * len(said)


@pytest.mark.parametrize(("queries", "defaults", "is_told"), [(19, 19, False), (20, 10, False), (20, 11, True)])
def test_an_application_that_gives_little_but_its_default_is_told(queries: int, defaults: int, is_told: bool) -> None:
    counts = {"no_models": defaults - 1, "late": 1}
    found = reasons(applications=application(SUM, window_s=60, queries=queries, defaults=counts))
    told = f"application sums: {defaults} of {queries} queries in the last 60 s got the default"
    why = f"(no_models {defaults - 1}: the application has no model to ask; late 1: nothing arrived by the deadline)"
    assert found == ([f"{told} {why}"] if is_told else [])


def topic(**fields: Any) -> dict[str, Any]:
    return {"topics": (replace(TOPIC, **fields),)}


def routers(*others: GroupStatus, **fields: Any) -> dict[str, Any]:
    return {"groups": (replace(ROUTERS, **fields), *others)}


def sums(*versions: VersionStatus) -> dict[str, Any]:
    return {"applications": application(*versions)}


HOSTS = GroupStatus(group="clipper.host.sum.1", model="sum:1", state="Empty", inputs={"requests": 1})
UNDECLARED = VersionStatus(model="mean:2", stage="canary", declared=False)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"brokers": (BrokerStatus(node_id=2, address="b:9", reachable=False),)}, "broker 2 at b:9 does not answer"),
        ({"silent_addresses": ("c:9092",)}, "address c:9092: nobody takes a connection"),
        ({"controller": False}, "no controller"),
        (topic(leaderless=(0, 2)), "topic clipper.queries: partitions 0,2 have no leader"),
        (topic(under_replicated=(1,)), "1 partitions have fewer copies than they should (clipper.queries)"),
        (topic(configured=2), "topic clipper.queries has 3 partitions, 2 are configured"),
        ({"missing_topics": ("clipper.feedback",)}, "topic clipper.feedback does not exist"),
        ({"replaced_topics": ("clipper.feedback",)}, "topic clipper.feedback was deleted and created again"),
        ({"unread_topics": ("clipper.hosts",)}, "topic clipper.hosts: not read to its end in time"),
        ({"refused_topics": ("clipper.audits",)}, "topic clipper.audits: this user may not read it"),
        ({"unreadable": {"model/x": "no such field"}}, "manifest model/x cannot be read: no such field"),
        (routers(members=(), state="Empty"), "no router runs"),
        (routers(state="PreparingRebalance"), "group clipper.router is in state PreparingRebalance"),
        (routers(members=ROUTERS.members[:1]), "router: nobody reads partitions 1 of clipper.queries"),
        (routers(lag={"clipper.queries": 10_001}), "group clipper.router is 10001 records behind"),
        ({"models": (model(replicas=2),)}, "model sum:1 has 0 of 2 hosts"),
        ({"models": (model(),), **sums(AWAY)}, "model sum:1 has 0 of 1 hosts"),
        ({"models": (model(),), **routers(HOSTS)}, "model sum:1 has 0 of 1 hosts"),
        ({"applications": application(AWAY) | {"more": application(AWAY)["sums"]}}, "model sum:1: none of 1 hosts"),
        (sums(SUM, UNDECLARED), "application sums: model mean:2 is not declared"),
        (
            sums(replace(AWAY, starting=("h0", "h1"))),
            "model sum:1: none of 1 hosts is ready (h0, h1 not yet), so no query asks it: wait for its start, or run",
        ),
        (
            sums(replace(SUM, failed={"h0": "no module named shop"})),
            "host h0 of model sum:1 failed: no module named shop: correct the model or its manifest",
        ),
        ({"applications": trial(since_s=AT_S - 1260)}, "application sums: trial nn:3 got no feedback for 21 min: send"),
        ({"applications": trial()}, "application sums: trial nn:3 got no feedback so far"),
    ],
)
def test_each_thing_that_is_wrong_is_told_once_in_a_line_that_names_it(fields: dict[str, Any], said: str) -> None:
    (reason,) = reasons(**fields)
    assert said in reason


RETIRED = replace(AWAY, model="old:1", stage="retired", failed={"h": "ended"})
FINE = {
    "dead letters alone": {},
    "it has a feedback": {"applications": trial(feedbacks=1, since_s=0.0)},
    "it began just now": {"applications": trial(since_s=AT_S - 599)},
    "hardly anybody asked it": {"applications": trial(queries=19)},
    "no host ever reported": sums(replace(SUM, hosts=None)),
    "it is retired": sums(SUM, RETIRED),
}


@pytest.mark.parametrize("fine", FINE.values(), ids=FINE)
def test_what_only_looks_like_a_fault_is_not_told(fine: dict[str, Any]) -> None:
    assert reasons(**fine) == []


def test_a_failed_host_is_told_beside_its_version_that_has_no_process() -> None:
    failed = application(replace(AWAY, failed={"h0": "out of memory"}))
    assert len(reasons(models=(model(),), applications=failed)) == 2


def test_the_operator_says_how_much_lag_is_fine() -> None:
    assert [len(reasons_of(HEALTHY, most_lag=lag)) for lag in (7, 6)] == [0, 1]


def test_a_static_member_is_called_by_its_instance() -> None:
    assert instance_of("svm-a-00000000-1111-2222-3333-444444444444") == "svm-a"
    assert instance_of("short") == "short"
