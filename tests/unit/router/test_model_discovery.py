"""Models that are declared become askable, side by side, and a failure is tried again after a while."""

import asyncio

import pytest
from aiokafka.errors import KafkaConnectionError

from clipper_agents.router.model_discovery import ModelDiscovery
from clipper_stream.errors import ModelNotLoaded
from clipper_topics.manifests import ModelManifest


class Fixture:
    def __init__(self, *models):
        self.unreached = list(models)
        self.asked, self.failures, self.gates, self.second = [], {}, {}, asyncio.Event()
        self.reaching = ModelDiscovery(self, self.find, self.load)

    def reached(self, ref):
        self.unreached = [model for model in self.unreached if model.ref != ref]

    async def find(self, ref):
        self.asked.append(("find", ref))
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

    def later(self):
        """The moment of trying again has come."""
        self.reaching._again_s.clear()


def model(name, **changes):
    return ModelManifest(name=name, uri="x:y", **changes)


def reaching(test):
    return lambda: asyncio.run(asyncio.wait_for(test(), 30))


@reaching
async def test_each_model_is_reached_once_by_its_own_way():
    fixture = Fixture(model("m"), model("n", colocated=True))
    await fixture.reaching.reach()
    await fixture.reaching.reach()
    assert fixture.asked == [("find", "m:1"), ("load", "n:1")]
    assert fixture.unreached == []


@pytest.mark.parametrize("error", [KafkaConnectionError(), TimeoutError(), ModelNotLoaded("no such file")])
def test_a_model_that_cannot_be_reached_is_tried_again_after_a_while(error):
    async def body():
        fixture = Fixture(model("m"), model("n"))
        fixture.failures["m:1"] = error
        await fixture.reaching.reach()
        await fixture.reaching.reach()
        assert fixture.asked == [("find", "m:1"), ("find", "n:1")]
        assert [one.ref for one in fixture.unreached] == ["m:1"]
        fixture.later()
        fixture.failures.clear()
        await fixture.reaching.reach()
        assert fixture.unreached == []

    asyncio.run(body())


@reaching
async def test_a_model_that_takes_long_holds_up_no_other_and_is_not_tried_twice_at_a_time():
    fixture = Fixture(model("m"), model("n"))
    fixture.gates["m:1"] = asyncio.Event()
    first = asyncio.create_task(fixture.reaching.reach())
    await fixture.second.wait()
    await asyncio.sleep(0)
    assert [one.ref for one in fixture.unreached] == ["m:1"]
    second = asyncio.create_task(fixture.reaching.reach())
    fixture.gates["m:1"].set()
    await asyncio.gather(first, second)
    assert fixture.asked == [("find", "m:1"), ("find", "n:1")]


@reaching
async def test_a_defect_is_not_taken_for_a_model_that_is_not_there_yet():
    fixture = Fixture(model("m"))
    fixture.failures["m:1"] = KeyError("a bug")
    with pytest.raises(KeyError):
        await fixture.reaching.reach()
