"""Declared models become askable side by side, and retired ones are let go when their last request has gone out."""

import asyncio
from collections import defaultdict
from types import SimpleNamespace

import pytest
from aiokafka.errors import KafkaConnectionError
from builders.kafka import Tasks
from unit.router.rig import settle

from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.router.models import AGAIN_AFTER_S, LOOK_S, ModelLifecycle
from clipper_stream.errors import ModelNotLoaded
from clipper_topics.manifests import ModelManifest


class Surroundings:
    """A registry, lanes that take long, fail or are busy, and models in this process."""

    def __init__(self, *models, leaving=()):
        self.unreached, self.leaving, self.declared = list(models), [*leaving], {}
        self.did, self.takes_s, self.failures, self.busy = [], defaultdict(float), {}, 0
        self.tasks = Tasks()
        self.models = ModelLifecycle(self, ReadyHosts(), self, self, self, self.tasks)
        self.model = self.declared.get

    def reached(self, ref):
        self.unreached = [model for model in self.unreached if model.ref != ref]

    async def open(self, ref):
        self.did.append(("open", ref))
        await asyncio.sleep(self.takes_s[ref])
        if ref in self.failures:
            raise self.failures[ref]

    async def load(self, manifest):
        self.did.append(("load", manifest.ref))

    def close(self, ref):
        self.busy -= 1
        self.did.append("close")
        return self.busy < 0

    async def unload(self, ref):
        self.did.append("unload")
        await asyncio.sleep(self.takes_s[ref])

    def forget_model(self, ref):
        self.did.append("forget")

    def left(self, ref):
        self.leaving.remove(ref)
        self.did.append("left")

    @property
    def waiting(self):
        return [one.ref for one in self.unreached]


def model(name, **changes):
    return ModelManifest(name=name, uri="x:y", **changes)


async def test_each_model_is_reached_once_by_its_own_way():
    around = Surroundings(model("m"), model("n", colocated=True))
    for _ in range(2):
        await around.models.reach()
    assert (around.did, around.waiting) == ([("open", "m:1"), ("load", "n:1")], [])


@pytest.mark.parametrize("error", [KafkaConnectionError(), TimeoutError(), ModelNotLoaded("no such file")])
async def test_a_model_that_cannot_be_reached_is_tried_again_after_a_while(error):
    around = Surroundings(model("m"), model("n"))
    around.failures["m:1"] = error
    await around.models.reach()
    await settle(0.9 * AGAIN_AFTER_S)
    await around.models.reach()
    assert (around.did, around.waiting) == ([("open", "m:1"), ("open", "n:1")], ["m:1"])
    await settle(0.2 * AGAIN_AFTER_S)
    around.failures.clear()
    await around.models.reach()
    assert around.waiting == []


async def test_a_model_that_takes_long_holds_up_no_other_and_is_not_tried_twice_at_a_time():
    around = Surroundings(model("m"), model("n"))
    around.takes_s["m:1"] = 60.0
    first = asyncio.create_task(around.models.reach())
    await settle()
    assert around.waiting == ["m:1"]
    await asyncio.gather(first, around.models.reach())
    assert (around.did, around.waiting) == ([("open", "m:1"), ("open", "n:1")], [])


async def test_a_defect_is_not_taken_for_a_model_that_is_not_there_yet():
    around = Surroundings(model("m"))
    around.failures["m:1"] = KeyError("a bug")
    with pytest.raises(KeyError):
        await around.models.reach()
    assert around.tasks.failures == [around.failures["m:1"]]


async def test_a_version_leaves_once_its_last_request_is_with_the_broker():
    around = Surroundings(leaving=["m:1"])
    around.busy = 2
    for _ in range(2):  # begun once
        around.models.follow()
    await settle(10 * LOOK_S)
    assert around.did == ["close", "close", "close", "left", "unload", "forget"]


async def test_a_version_that_is_declared_again_meanwhile_stays():
    around = Surroundings(leaving=["m:1"])
    around.busy = 1000
    around.models.follow()
    await settle()
    around.leaving.clear()
    await settle(10 * LOOK_S)
    assert around.did == ["close"]


@pytest.mark.parametrize(("retired", "ends"), [(False, []), (True, ["forget"])])
async def test_the_series_of_a_version_that_came_back_while_it_was_unloaded_go_on(retired, ends):
    around = Surroundings(leaving=["m:1"])
    around.takes_s["m:1"] = 60.0
    around.models.follow()
    await settle(1.0)
    around.declared["m:1"] = SimpleNamespace(retired=retired)
    await settle(60.0)
    assert around.did == ["close", "left", "unload", *ends]
