"""The runner does what the router asks for, and wakes it when a deadline has come."""

import time
from types import SimpleNamespace

import numpy as np
import pytest
from builders.kafka import Tasks
from unit.router.rig import settle

from clipper_agents.observability.metrics import RouterMetrics
from clipper_agents.router.effects import EffectRunner
from clipper_stream.query import Effects, Request


class Surroundings:
    """A router with one deadline, and notes of what is carried where."""

    def __init__(self):
        self.next_deadline_s, self.expired, self.failure = None, 0, None
        self.put, self.requests, self.forgotten, self.deferred, self.rooms = [], [], [], [], []
        self.metrics, self.tasks = RouterMetrics(), Tasks()
        sender = SimpleNamespace(put=self.requests.extend, forget=self.forgotten.extend)
        self.runner = EffectRunner(
            self, SimpleNamespace(update_room=lambda: self.rooms.append(1)), SimpleNamespace(put=self.deferred.extend),
            SimpleNamespace(put=lambda *parts: self.put.append(parts)), self.metrics, self.tasks,
        )  # fmt: skip
        self.runner.connect(sender, SimpleNamespace(take=lambda request: request.ref == "here:1"))

    def run(self, after_s, **effects):
        """Run effects that leave a query with a deadline after so many seconds."""
        self.next_deadline_s = None if after_s is None else time.time() + after_s
        self.runner.run(Effects(now_s=0.0, **effects))

    def expire(self, now_s):
        self.expired, self.next_deadline_s = self.expired + 1, None
        if self.failure:
            raise self.failure
        return Effects(now_s=now_s, answers=["late"], forgotten=[7])


@pytest.fixture
async def around():
    return Surroundings()


async def test_everything_that_is_asked_for_is_carried_out(around):
    here, there = (Request(ref, 1, np.zeros((1, 1)), np.zeros(1)) for ref in ("here:1", "there:1"))
    around.run(
        None, requests=[here, there], answers=["a"], audits=["b"], block_answers=["c"], deferred=["d"], forgotten=[5],
        coalesced=3, lookups={"m:1": 4, "n:1": 2}, hits={"m:1": 1}, queries={"app": 2, None: 1},
    )  # fmt: skip
    assert (around.put, around.requests, around.forgotten) == ([(["a"], ["b"], ["c"])], [there], [5])
    assert (around.deferred, len(around.rooms)) == (["d"], 1)
    value = around.metrics.registry.get_sample_value
    assert [value(f"clipper_cache_{kind}_total", {"model": "m:1"}) for kind in ("lookups", "hits")] == [4, 1]
    assert [value(f"clipper_cache_{kind}_total", {"model": "n:1"}) for kind in ("lookups", "hits")] == [2, 0]
    assert [value("clipper_queries_total", {"application": name}) for name in ("app", "unknown")] == [2, 1]
    assert value("clipper_coalesced_total") == 3
    await settle(3600.0)
    assert around.expired == 0


@pytest.mark.parametrize("after_s", [(20.0,), (3600.0, 20.0), (20.0, 30.0)])
async def test_the_router_is_woken_once_at_its_earliest_deadline(around, after_s):
    for deadline_s in after_s:
        around.run(deadline_s)
    await settle(18.0)
    assert around.expired == 0
    await settle(3600.0)
    assert (around.expired, around.put[len(after_s) :], around.forgotten) == (1, [(["late"], [], [])], [7])


async def test_a_runner_that_is_stopped_wakes_nobody(around):
    around.run(20.0)
    around.runner.stop()
    await settle(30.0)
    assert around.expired == 0


async def test_a_defect_in_expiring_is_heard_of(around):
    around.failure = ZeroDivisionError()
    around.run(0.0)
    await settle()
    assert around.tasks.failures == [around.failure]
