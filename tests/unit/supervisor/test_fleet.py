"""Hosts follow what is declared: started, replaced one by one, ended when nobody waits for them, and cleared away."""

import asyncio
from types import SimpleNamespace

import msgspec
import pytest
from builders.kafka import record

from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_agents.supervisor.fleet import Fleet
from clipper_agents.supervisor.process import ChildNotReady, ChildSpec
from clipper_agents.supervisor.workers import host_names
from clipper_stream.models.runtimes.model_files import STRICT
from clipper_topics import codec
from clipper_topics.control_keys import key_of
from clipper_topics.manifests import ApplicationManifest, ModelManifest


class World:
    """Processes, Kafka, disk and reports of a fleet, and in which order it used them."""

    def __init__(self):
        self.did, self.children, self.reports = [], {}, {}
        self.allowed, self.files = ("m:",), STRICT
        self.broken, self.slow, self.unread = set(), {}, set()
        self.unreachable = 0
        self.fleet = Fleet(self, self, self, self, settle_s=0.0)

    # the supervisor
    async def start(self, specs):
        for spec in specs:
            self.did.append(("start", spec.name))
            self.children[spec.name] = SimpleNamespace(fields={})
            if spec.name in self.slow:
                await self.slow[spec.name].wait()
            if spec.name in self.broken:
                self.fleet.failed(spec.name, "ended with exit code 3 before it was ready; last lines: error: no file")
                raise ChildNotReady(f"{spec.name} ended with exit code 3")
            self.children[spec.name] = SimpleNamespace(fields={"role": "host"})

    async def stop(self, *names):
        assert names, "no name means all"
        for name in names:
            if self.children.pop(name, None):
                self.did.append(("stop", name))

    # the workers
    def hosts(self, model):
        return [ChildSpec(name=name, command=("x", model.uri)) for name in host_names(model)]

    def forget(self, name):
        self.did.append(("forget", name))

    def forget_model(self, model):
        self.did.append(("forget model", model.ref))

    # Kafka
    async def provide(self, model):
        if self.unreachable:
            self.unreachable -= 1
            raise KafkaUnreachable("nobody there")
        self.did.append(("provide", model.ref))

    async def is_consumed(self, model):
        return model.ref not in self.unread

    async def evict(self, model, instances):
        if instances:
            self.did.append(("evict", *instances))

    async def remove(self, model):
        self.did.append(("remove", model.ref))

    # reports
    def put(self, report):
        self.reports[report.instance] = (report.model, report.state, report.reason)

    def withdraw(self, model, instance):
        self.reports.pop(instance, None)
        self.did.append(("withdraw", instance))

    def take(self, *manifests, key=None):
        """Records of the control topic; `key` takes that one away."""
        records = [record(0, encoded(one), key_of(one), "control") for one in manifests]
        self.fleet.take([*records, *([record(1, None, key, "control")] if key else [])])
        self.fleet.reconcile()

    async def settled(self):
        while self.fleet._at_work:
            await asyncio.wait(list(self.fleet._at_work.values()))
            await asyncio.sleep(0)

    async def after(self, *manifests, **options):
        """What was done about these records."""
        self.did.clear()
        self.take(*manifests, **options)
        await self.settled()
        return self.did


def encoded(one):
    return codec.applications.encode(one) if isinstance(one, ApplicationManifest) else codec.models.encode(one)


def model(name="svm", **changes):
    return ModelManifest(name=name, uri="m:f", **changes)


def changed(one, **changes):
    return msgspec.structs.replace(one, **changes)


def in_a_world(test):
    def run():
        asyncio.run(asyncio.wait_for(test(World()), 30))

    run.__doc__ = test.__doc__
    return run


@in_a_world
async def test_a_declared_version_gets_its_topic_and_then_its_hosts(world):
    did = await world.after(model(replicas=2), model("c", colocated=True), model("r", retired=True))
    hosts = [one for one in did if "svm" in str(one)]
    assert hosts == [("provide", "svm:1"), ("start", "host.svm.1.0"), ("start", "host.svm.1.1")]
    assert not [one for one in did if one[0] == "start" and "svm" not in one[1]]


@in_a_world
async def test_a_version_that_was_retired_while_nobody_looked_is_cleared_away_once(world):
    did = await world.after(model(retired=True))
    assert did == [("remove", "svm:1"), ("withdraw", "host.svm.1.0"), ("forget", "host.svm.1.0")]
    assert await world.after(model("other", retired=True, colocated=True)) == [], "it never had hosts"
    assert await world.after(model(retired=True)) == []


@in_a_world
async def test_a_retired_version_loses_hosts_group_topic_folders_and_reports(world):
    await world.after(model(replicas=2))
    names = host_names(model(replicas=2))
    did = await world.after(model(replicas=2, retired=True))
    assert did == [
        *(("stop", name) for name in names), ("evict", *names), ("forget model", "svm:1"), ("remove", "svm:1"),
        *((what, name) for name in names for what in ("withdraw", "forget")),
    ]  # fmt: skip
    assert await world.after(key=b"model/svm:1") == []
    assert world.fleet._versions == {}


@in_a_world
async def test_a_withdrawn_version_is_cleared_away_like_a_retired_one(world):
    await world.after(model())
    did = await world.after(key=b"model/svm:1")
    assert [one[0] for one in did] == ["stop", "evict", "forget model", "remove", "withdraw", "forget"]
    assert (world.fleet._versions, world.fleet._asked_s) == ({}, {})


@in_a_world
async def test_hosts_end_only_when_their_requests_are_finished(world):
    await world.after(model(), ApplicationManifest(name="a", models=["svm:1"], objective_ms=86_400_000))
    world.unread.add("svm:1")
    world.did.clear()
    world.take(model(retired=True))
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.did == []
    world.unread.clear()
    await world.settled()
    assert ("stop", "host.svm.1.0") in world.did


@in_a_world
async def test_hosts_that_do_not_get_on_are_ended_when_nobody_waits_any_more(world):
    await world.after(model(), ApplicationManifest(name="a", models=["svm:1"], objective_ms=50))
    world.unread.add("svm:1")
    did = await world.after(ApplicationManifest(name="a", models=[], revision=2), model(retired=True))
    assert ("stop", "host.svm.1.0") in did


@in_a_world
async def test_a_version_that_is_wanted_again_before_its_hosts_have_ended_keeps_them(world):
    await world.after(model(), ApplicationManifest(name="a", models=["svm:1"], objective_ms=86_400_000))
    world.unread.add("svm:1")
    world.did.clear()
    world.take(model(retired=True))
    await asyncio.sleep(0)
    await world.after(model())
    assert world.did == []
    assert list(world.children) == ["host.svm.1.0"]


@in_a_world
async def test_more_or_fewer_replicas_leave_the_other_hosts_alone(world):
    await world.after(model(replicas=2))
    first = world.children["host.svm.1.0"]
    assert await world.after(model(replicas=3)) == [("provide", "svm:1"), ("start", "host.svm.1.2")]
    assert await world.after(model(replicas=1)) == [
        ("provide", "svm:1"), ("stop", "host.svm.1.1"), ("stop", "host.svm.1.2"),
        ("evict", "host.svm.1.1", "host.svm.1.2"),
        ("withdraw", "host.svm.1.1"), ("forget", "host.svm.1.1"),
        ("withdraw", "host.svm.1.2"), ("forget", "host.svm.1.2"),
    ]  # fmt: skip
    assert world.children == {"host.svm.1.0": first}


@in_a_world
async def test_another_manifest_replaces_the_hosts_one_after_the_other(world):
    await world.after(model(replicas=2))
    did = await world.after(changed(model(replicas=2), uri="m:g"))
    assert did == [(what, f"host.svm.1.{number}") for number in (0, 1) for what in ("stop", "start")]


@in_a_world
async def test_when_the_first_new_host_cannot_start_the_others_go_on_as_they_are(world):
    await world.after(model(replicas=2))
    world.broken.add("host.svm.1.0")
    did = await world.after(changed(model(replicas=2), uri="m:g"))
    assert did == [
        ("stop", "host.svm.1.0"), ("start", "host.svm.1.0"), ("stop", "host.svm.1.0"), ("evict", "host.svm.1.0"),
    ]  # fmt: skip
    assert list(world.children) == ["host.svm.1.1"]


@in_a_world
async def test_a_version_that_cannot_start_is_tried_again_with_a_new_manifest(world):
    world.broken.add("host.svm.1.0")
    await world.after(model())
    assert world.children == {}
    ((ref, state, reason),) = world.reports.values()
    assert (ref, state) == ("svm:1", "failed")
    assert reason.endswith("error: no file")
    assert await world.after(model()) == []
    world.broken.clear()
    assert ("start", "host.svm.1.0") in await world.after(model(parameters={"x": 1}))


@in_a_world
async def test_a_slow_version_holds_up_no_other_and_may_be_retired_meanwhile(world):
    world.slow["host.slow.1.0"] = asyncio.Event()
    world.take(model("slow"), model())
    await world.fleet._at_work["svm:1"]
    assert list(world.children) == ["host.slow.1.0", "host.svm.1.0"]
    did = await world.after(model("slow", retired=True))
    assert ("stop", "host.slow.1.0") in did
    assert ("remove", "slow:1") in did


@in_a_world
async def test_while_no_broker_answers_a_version_is_not_given_up(world):
    world.unreachable = 1
    world.take(model())
    while not world.fleet._versions["svm:1"].is_settled:
        world.fleet._versions["svm:1"]._changed.set()
        await asyncio.sleep(0)
    await world.settled()
    assert list(world.children) == ["host.svm.1.0"]


@pytest.mark.parametrize("hosted", [False, True])
def test_a_forbidden_manifest_is_a_failure_unless_an_older_one_is_in_force(hosted):
    async def check(world):
        if hosted:
            await world.after(model())
        assert await world.after(changed(model(), uri="os:system")) == []
        failed = {name: (state, "outside" in reason) for name, (_, state, reason) in world.reports.items()}
        assert failed == ({} if hosted else {"host.svm.1.0": ("failed", True)})
        if not hosted:
            await world.after(key=b"model/svm:1")
            assert (world.reports, world.fleet._refused) == ({}, set()), "taken back with the manifest"

    in_a_world(check)()


@in_a_world
async def test_what_is_no_host_is_not_reported(world):
    world.fleet.failed("router-0", "ended with exit code 4")
    world.fleet.withdraw("router-0")
    assert (world.reports, world.did) == ({}, [])
