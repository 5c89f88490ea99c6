"""Fixtures of the router's tests: a rig, and an event loop whose time passes at once."""

import pytest
from unit.router.rig import FakeTimeLoop, RouterRig


@pytest.fixture
def anyio_backend():
    return "asyncio", {"loop_factory": FakeTimeLoop}


@pytest.fixture
async def make_rig(tmp_path):
    """Makes the one rig of a test, of the applications that it is given."""
    made = []

    def make(*applications, **settings):
        made.append(RouterRig(tmp_path / f"{len(made)}", *applications, **settings))
        return made[-1]

    yield make
    for rig in made:
        assert rig.tasks.failures == []
        rig.close()


@pytest.fixture
async def rig(make_rig):
    return make_rig()
