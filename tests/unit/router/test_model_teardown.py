"""What a router lets go of when a version is retired, and when."""

import asyncio

from clipper_agents.control.readiness import ReadyHosts
from clipper_agents.router.model_teardown import ModelTeardown


class Fixture:
    """A registry, a sender, and the rest, of one version."""

    def __init__(self, *, busy=0):
        self.leaving, self.did, self.busy, self.declared = ["m:1"], [], busy, None
        self.unloading = asyncio.Event()
        self.unloading.set()
        self.began = asyncio.Event()
        self.tasks = []
        self.releasing = ModelTeardown(self, ReadyHosts(), self, self.unload, self.forget, self.spawn, look_s=0.0)

    def close(self, ref):
        self.busy -= 1
        self.did.append("close")
        return self.busy < 0

    async def unload(self, ref):
        self.did.append("unload")
        self.began.set()
        await self.unloading.wait()

    def forget(self, ref):
        self.did.append("forget")

    def left(self, ref):
        self.leaving.remove(ref)
        self.did.append("left")

    def model(self, ref):
        return self.declared

    def spawn(self, work):
        self.tasks.append(asyncio.get_running_loop().create_task(work))
        return self.tasks[-1]


def released(test):
    return lambda: asyncio.run(asyncio.wait_for(test(), 30))


@released
async def test_a_version_leaves_once_its_last_request_is_with_the_broker():
    fixture = Fixture(busy=2)
    fixture.releasing.begin()
    fixture.releasing.begin()
    await asyncio.gather(*fixture.tasks)
    assert len(fixture.tasks) == 1, "begun once"
    assert fixture.did == ["close", "close", "close", "left", "unload", "forget"]


@released
async def test_a_version_that_is_declared_again_meanwhile_stays():
    fixture = Fixture(busy=1000)
    fixture.releasing.begin()
    await asyncio.sleep(0)
    fixture.leaving.clear()
    await asyncio.gather(*fixture.tasks)
    assert set(fixture.did) == {"close"}


@released
async def test_the_series_of_a_version_that_came_back_while_it_was_unloaded_go_on():
    fixture = Fixture()
    fixture.unloading.clear()
    fixture.releasing.begin()
    await fixture.began.wait()
    fixture.declared = type("Model", (), {"retired": False})
    fixture.unloading.set()
    await asyncio.gather(*fixture.tasks)
    assert "forget" not in fixture.did
