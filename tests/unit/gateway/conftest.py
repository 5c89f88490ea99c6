"""Fixtures of the gateway's tests."""

import pytest
from unit.gateway.rig import Clock


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def keys_file(tmp_path):
    return tmp_path / "keys.json"


@pytest.fixture(scope="module")
async def one_loop(anyio_backend):
    """One for all tests of a module: gRPC gives late events of a loop that is closed to the loop of the next test."""
    yield  # noqa: PT022 - the loop is there until the fixture ends
