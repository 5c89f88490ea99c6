"""Declared models become askable side by side, and retired ones are let go when their last request has gone out."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.router.models import ModelDiscovery, ModelTeardown
from clipper_stream.errors import ModelNotLoaded
from clipper_topics.manifests import ModelManifest


class Discovered:
    def __init__(self, *models):
        self.unreached = list(models)
        self.asked, self.failures, self.gates, self.second = [], {}, {}, asyncio.Event()
        self.discovery = ModelDiscovery(self, self, self, self)

    def reached(self, ref):
        self.unreached = [model for model in self.unreached if model.ref != ref]

    async def open(self, ref):
        self.asked.append(("open", ref))
        if len(self.asked) == 2:
            self.second.set()
        if ref in self.gates:
            await self.gates[ref].wait()
        if ref in self.failures:
            raise self.failures[ref]

    async def load(self, manifest):
        self.asked.append(("load", manifest.ref))
        if manifest.ref in self.failures:
            raise self.failures[manifest.ref]

    def watch(self, attempt):
        pass

    def later(self):
        """The moment of trying again has come."""
        self.discovery._again_s.clear()


def model(name, **changes):
    return ModelManifest(name=name, uri="x:y", **changes)


async def test_each_model_is_reached_once_by_its_own_way():
    fixture = Discovered(model("m"), model("n", colocated=True))
    await fixture.discovery.reach()
    await fixture.discovery.reach()
    assert fixture.asked == [("open", "m:1"), ("load", "n:1")]
    assert fixture.unreached == []


@pytest.mark.parametrize("error", [KafkaConnectionError(), TimeoutError(), ModelNotLoaded("no such file")])
async def test_a_model_that_cannot_be_reached_is_tried_again_after_a_while(error):
    fixture = Discovered(model("m"), model("n"))
    fixture.failures["m:1"] = error
    await fixture.discovery.reach()
    await fixture.discovery.reach()
    assert fixture.asked == [("open", "m:1"), ("open", "n:1")]
    assert [one.ref for one in fixture.unreached] == ["m:1"]
    fixture.later()
    fixture.failures.clear()
    await fixture.discovery.reach()
    assert fixture.unreached == []


async def test_a_model_that_takes_long_holds_up_no_other_and_is_not_tried_twice_at_a_time():
    fixture = Discovered(model("m"), model("n"))
    fixture.gates["m:1"] = asyncio.Event()
    first = asyncio.create_task(fixture.discovery.reach())
    await fixture.second.wait()
    await asyncio.sleep(0)
    assert [one.ref for one in fixture.unreached] == ["m:1"]
    second = asyncio.create_task(fixture.discovery.reach())
    fixture.gates["m:1"].set()
    await asyncio.gather(first, second)
    assert fixture.asked == [("open", "m:1"), ("open", "n:1")]


async def test_a_defect_is_not_taken_for_a_model_that_is_not_there_yet():
    fixture = Discovered(model("m"))
    fixture.failures["m:1"] = KeyError("a bug")
    with pytest.raises(KeyError):
        await fixture.discovery.reach()


class Leaving:
    """A registry, a sender, and the rest, of one version."""

    def __init__(self, *, busy=0):
        self.leaving, self.did, self.busy, self.declared = ["m:1"], [], busy, None
        self.unloading = asyncio.Event()
        self.unloading.set()
        self.began = asyncio.Event()
        self.tasks = []
        self.teardown = ModelTeardown(self, ReadyHosts(), self, self, self, self, look_s=0.0)

    def close(self, ref):
        self.busy -= 1
        self.did.append("close")
        return self.busy < 0

    async def unload(self, ref):
        self.did.append("unload")
        self.began.set()
        await self.unloading.wait()

    def forget_model(self, ref):
        self.did.append("forget")

    def left(self, ref):
        self.leaving.remove(ref)
        self.did.append("left")

    def model(self, ref):
        return self.declared

    def watched(self, work):
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]


async def test_a_version_leaves_once_its_last_request_is_with_the_broker():
    fixture = Leaving(busy=2)
    fixture.teardown.begin()
    fixture.teardown.begin()
    await asyncio.gather(*fixture.tasks)
    assert len(fixture.tasks) == 1, "begun once"
    assert fixture.did == ["close", "close", "close", "left", "unload", "forget"]


async def test_a_version_that_is_declared_again_meanwhile_stays():
    fixture = Leaving(busy=1000)
    fixture.teardown.begin()
    await asyncio.sleep(0)
    fixture.leaving.clear()
    await asyncio.gather(*fixture.tasks)
    assert set(fixture.did) == {"close"}


async def test_the_series_of_a_version_that_came_back_while_it_was_unloaded_go_on():
    fixture = Leaving()
    fixture.unloading.clear()
    fixture.teardown.begin()
    await fixture.began.wait()
    fixture.declared = type("Model", (), {"retired": False})
    fixture.unloading.set()
    await asyncio.gather(*fixture.tasks)
    assert "forget" not in fixture.did
