"""Fixtures of the host's tests."""

import asyncio

import pytest


@pytest.fixture
def run():
    """Runs a coroutine to its end, and fails instead of hanging."""
    return lambda coroutine: asyncio.run(asyncio.wait_for(coroutine, timeout=20))
