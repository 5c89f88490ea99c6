"""Fixtures of the console's tests."""

import pytest
from unit.gateway.rig import Clock

from clipper_gateway.console.history import SeriesHistory


@pytest.fixture
def clock():
    """At the beginning of a step of each resolution of a history."""
    return Clock(1_700_000_400)


@pytest.fixture
def open_history(tmp_path, clock):
    """Opens a history in the one folder of a test; all are closed at its end."""
    opened = []

    def open_it(folder="history"):
        opened.append(SeriesHistory(tmp_path / folder, clock))
        return opened[-1]

    yield open_it
    for one in opened:
        one.close()


@pytest.fixture
def history(open_history):
    return open_history()
