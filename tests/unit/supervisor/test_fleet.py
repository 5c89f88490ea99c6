import asyncio
from types import SimpleNamespace

import pytest
from builders.kafka import record
from unit.router.rig import FakeTimeLoop, settle

from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_agents.supervisor.fleet import Fleet
from clipper_agents.supervisor.process import ChildNotReady, ChildSpec
from clipper_agents.supervisor.workers import host_names, model_of_host
from clipper_stream.models.runtimes.model_files import STRICT
from clipper_topics import codec
from clipper_topics.control_keys import key_of
from clipper_topics.manifests import ApplicationManifest, ModelManifest

WAIT_S = 10.1
"""Of the loop's time: longer than a fleet waits before it looks again, and no multiple of that."""
DAY_MS = 86_400_000
KEY = b"model/svm:1"


class World:
    """Processes, Kafka, disk and reports of a fleet, and in which order it used them."""

    def __init__(self, machine=""):
        self.did, self.children, self.reports = [], {}, {}
        self.machine, self.allowed, self.files = machine, ("m:",), STRICT
        self.broken, self.slow, self.unread, self.loaded_elsewhere = set(), {}, set(), set()
        self.unreachable, self.partitions = 0, {}
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
        return [ChildSpec(name=name, command=("x", model.uri)) for name in host_names(model, self.machine)]

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
        self.partitions[model.ref] = model.replicas

    async def is_consumed(self, model):
        return model.ref not in self.unread

    async def has_others(self, model, instances):
        return model.ref in self.loaded_elsewhere

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

    async def after(self, *manifests, **options):
        self.did.clear()
        self.take(*manifests, **options)
        await settle(WAIT_S)
        return self.did


def encoded(one):
    return codec.applications.encode(one) if isinstance(one, ApplicationManifest) else codec.models.encode(one)


def model(name="svm", **changes):
    return ModelManifest(name=name, uri=changes.pop("uri", "m:f"), **changes)


def application(objective_ms, name="a"):
    return ApplicationManifest(name=name, models=["svm:1"], objective_ms=objective_ms)


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": FakeTimeLoop}


@pytest.fixture
def world():
    return World()


async def test_a_declared_version_gets_its_topic_and_then_its_hosts(world):
    did = await world.after(model(replicas=2), model("c", colocated=True), model("r", retired=True))
    hosts = [one for one in did if "svm" in str(one)]
    assert hosts == [("provide", "svm:1"), ("start", "host.svm.1.0"), ("start", "host.svm.1.1")]
    assert not [one for one in did if one[0] == "start" and "svm" not in one[1]]


async def test_a_version_that_was_retired_while_nobody_looked_is_cleared_away_once(world):
    did = await world.after(model(retired=True))
    assert did == [("remove", "svm:1"), ("withdraw", "host.svm.1.0"), ("forget", "host.svm.1.0")]
    assert await world.after(model("other", retired=True, colocated=True)) == [], "it never had hosts"
    assert await world.after(model(retired=True)) == []


@pytest.mark.parametrize("withdrawn", [False, True])
async def test_a_retired_or_withdrawn_version_loses_hosts_group_topic_folders_and_reports(world, withdrawn):
    await world.after(model(replicas=2))
    names = host_names(model(replicas=2))
    did = await world.after(*[] if withdrawn else [model(replicas=2, retired=True)], key=KEY if withdrawn else None)
    assert did == [
        *(("stop", name) for name in names), ("evict", *names), ("forget model", "svm:1"), ("remove", "svm:1"),
        *((what, name) for name in names for what in ("withdraw", "forget")),
    ]  # fmt: skip
    assert await world.after(key=KEY) == []
    assert (world.fleet._versions, world.fleet._asked_s) == ({}, {}), "of memory there is nothing left"


@pytest.mark.parametrize("wanted_again", [False, True])
async def test_hosts_end_only_when_their_requests_are_finished_or_are_kept_when_wanted_again(world, wanted_again):
    await world.after(model(), application(DAY_MS), application(1, "b"))
    world.unread.add("svm:1")
    assert await world.after(model(retired=True)) == []
    if wanted_again:
        assert await world.after(model()) == []
    world.unread.clear()
    await settle(WAIT_S)
    assert list(world.children) == (["host.svm.1.0"] if wanted_again else [])
    assert (world.did == []) == wanted_again


async def test_hosts_that_do_not_get_on_are_ended_when_nobody_waits_any_more(world):
    await world.after(model(), application(50))
    world.unread.add("svm:1")
    await world.after(ApplicationManifest(name="a", models=[], revision=2), model(retired=True))
    while world.children:
        await settle(WAIT_S)
    assert ("stop", "host.svm.1.0") in world.did


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


@pytest.mark.parametrize("broken", [False, True])
async def test_another_manifest_replaces_the_hosts_one_by_one_as_long_as_the_new_ones_start(world, broken):
    first, second = host_names(model(replicas=2))
    await world.after(model(replicas=2))
    world.broken.update([first] if broken else [])
    did = await world.after(model(replicas=2, uri="m:g"))
    rest = [("stop", first), ("evict", first)] if broken else [("stop", second), ("start", second)]
    assert did == [("stop", first), ("start", first), *rest]
    assert set(world.children) == ({second} if broken else {first, second})


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


async def test_a_slow_version_holds_up_no_other_and_may_be_retired_meanwhile(world):
    world.slow["host.slow.1.0"] = asyncio.Event()
    await world.after(model("slow"), model())
    assert list(world.children) == ["host.slow.1.0", "host.svm.1.0"]
    did = await world.after(model("slow", retired=True))
    assert {("stop", "host.slow.1.0"), ("remove", "slow:1")} <= {*did}


async def test_while_no_broker_answers_a_version_is_not_given_up(world):
    world.unreachable = 1
    await world.after(model())
    assert list(world.children) == ["host.svm.1.0"]


@pytest.mark.parametrize("hosted", [False, True])
async def test_a_forbidden_manifest_is_a_failure_unless_an_older_one_is_in_force(world, hosted):
    await world.after(*[model()] * hosted)
    assert await world.after(model(uri="os:system")) == []
    failed = {name: (state, "outside" in reason) for name, (_, state, reason) in world.reports.items()}
    assert failed == ({} if hosted else {"host.svm.1.0": ("failed", True)})
    if not hosted:
        await world.after(key=KEY)
        assert world.reports == {}, "taken back with the manifest"
        assert await world.after(key=KEY) == [], "once"


async def test_what_is_no_host_is_not_reported(world):
    world.fleet.failed("router-0", "ended with exit code 4")
    world.fleet.withdraw("router-0")
    assert (world.reports, world.did) == ({}, [])


# --- several machines -------------------------------------------------------------------------------------------------
async def test_machines_share_replicas_evenly_and_one_that_is_lost_leaves_the_others_what_they_have():
    worlds = {name: World(name) for name in "abc"}
    declared = [model(f"m{number}", replicas=1 + number % 3) for number in range(12)]
    for world in worlds.values():
        world.fleet.share_among([*worlds])
        await world.after(*declared)
        assert {model_of_host(name) for name in world.children} >= {each.ref for each in declared if each.replicas == 3}
    hosted = {name: {*world.children} for name, world in worlds.items()}
    assert sum(map(len, hosted.values())) == sum(each.replicas for each in declared)
    assert all(name.rpartition(".")[2].startswith(f"{machine}-") for machine, of in hosted.items() for name in of)
    assert worlds.pop("c").partitions["m2:1"] == 3, "a partition for each replica, wherever it runs"
    for name, world in worlds.items():
        world.fleet.share_among([*worlds])
        await settle(WAIT_S)
        assert hosted[name] <= world.children.keys()
    assert sum(len(world.children) for world in worlds.values()) == sum(each.replicas for each in declared)


async def test_a_version_moves_to_another_machine_once_that_one_has_loaded_it_and_stays_on_kafka():
    world = World("b")
    world.fleet.share_among(["b"])
    await world.after(model())
    world.did.clear()
    world.fleet.share_among(["a", "b"])
    await settle(WAIT_S)
    assert ([*world.children], world.did) == (["host.svm.1.b-0"], []), "nobody has loaded it there yet"
    world.loaded_elsewhere.add("svm:1")
    await settle(WAIT_S)
    host = "host.svm.1.b-0"
    assert world.did == [
        ("stop", host),
        ("evict", host),
        ("withdraw", host),
        ("forget", host),
        ("forget model", "svm:1"),
    ]
    world.fleet.share_among(["b"])
    await settle(WAIT_S)
    assert [*world.children] == [host], "and back, when it is alone again"
    assert ("remove", "svm:1") in await world.after(model(retired=True))


async def test_a_machine_that_was_away_takes_back_what_it_had_said_of_hosts_that_others_run_now():
    world = World("b")
    world.fleet.share_among(["a", "b"])
    assert await world.after(model()) == [("withdraw", "host.svm.1.b-0"), ("forget", "host.svm.1.b-0")]
    assert await world.after(model(retired=True)) == [], "who hosts it deletes what is left of it"
