"""A query and its feedback pass through so many modules, and cross the border of the pure library so often."""

import asyncio
import runpy

import pytest
from sources import ROOT

WALK = runpy.run_path(str(ROOT / "docs/walk.py"))
traced, answer, learn = WALK["traced"], WALK["Deployment"].answer, WALK["Deployment"].learn


@pytest.mark.parametrize(
    ("step", "colocated", "modules", "crossings", "calls"),
    [(answer, False, 30, 8, 840), (answer, True, 30, 8, 630), (learn, False, 19, 2, 270)],
    ids=["a query", "a query in a router that runs its model", "feedback"],
)
def test_the_walk_of_a_lone_record_stays_short(step, colocated, modules, crossings, calls, tmp_path):
    walk = asyncio.run(traced(step, tmp_path, colocated=colocated))
    assert len(walk.modules) <= modules, f"{walk}"
    assert walk.crossings <= crossings, f"{walk}"
    assert walk.calls <= calls
