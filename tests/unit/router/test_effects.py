"""The runner does what the router asks for, and wakes it when a deadline has come."""

import asyncio
import time
from types import SimpleNamespace

import numpy as np
import pytest

from clipper_agents.router.effects import EffectRunner
from clipper_stream.query import Effects, Request


class Fixture:
    """A router with one deadline, and notes of what is carried where."""

    def __init__(self):
        self.next_deadline_s, self.expired, self.failure = None, asyncio.Event(), None
        self.answers, self.audits, self.requests, self.forgotten, self.cache, self.coalesced = [], [], [], [], {}, 0
        sender = SimpleNamespace(put=self.requests.extend, forget=self.forgotten.extend)
        recorder = SimpleNamespace(put=self.put)
        metrics = SimpleNamespace(count_cache=self.count_cache, count_coalesced=self.count_coalesced)
        self.spawned = asyncio.Event()
        self.effects = EffectRunner(
            self, SimpleNamespace(update_room=list), SimpleNamespace(put=list), recorder, metrics, tasks=self
        )
        self.effects.connect(sender, SimpleNamespace(take=lambda request: request.ref == "here:1"))

    def put(self, answers, audits, blocks):
        self.answers += [*answers, *blocks]
        self.audits += audits

    def watched(self, work):
        self.task = asyncio.create_task(work)
        self.spawned.set()
        return self.task

    def count_cache(self, ref, lookups, hits):
        self.cache[ref] = lookups, hits

    def count_coalesced(self, count):
        self.coalesced += count

    def expire(self, now_s):
        if self.failure:
            raise self.failure
        if now_s >= self.next_deadline_s:
            self.next_deadline_s = None
            self.expired.set()
        return Effects(now_s=now_s, answers=["late"], forgotten=[7])


@pytest.fixture
def fixture():
    return Fixture()


def request(frame, ref):
    return Request(ref, frame, np.zeros((1, 1)), np.zeros(1))


async def test_everything_that_is_asked_for_is_carried_out(fixture):
    here, there = request(1, "here:1"), request(2, "there:1")
    effects = Effects(now_s=0.0, requests=[here, there], answers=["a"], audits=["b"], forgotten=[5], coalesced=3)
    effects.block_answers = ["c"]
    effects.lookups, effects.hits = {"m:1": 4, "n:1": 2}, {"m:1": 1}
    fixture.effects.run(effects)
    assert (fixture.answers, fixture.audits, fixture.requests, fixture.forgotten) == (
        ["a", "c"],
        ["b"],
        [there],
        [5],
    )
    assert (fixture.cache, fixture.coalesced) == ({"m:1": (4, 1), "n:1": (2, 0)}, 3)
    assert fixture.effects._timer is None


async def test_the_router_is_woken_at_its_earliest_deadline(fixture):
    fixture.next_deadline_s = time.time() + 3600
    fixture.effects.run(Effects(now_s=0.0))
    fixture.next_deadline_s = time.time() + 0.01
    fixture.effects.run(Effects(now_s=0.0))
    await fixture.expired.wait()
    assert (fixture.answers, fixture.forgotten) == (["late"], [7])


async def test_a_later_deadline_moves_no_timer(fixture):
    fixture.next_deadline_s = time.time() + 3600
    fixture.effects.run(Effects(now_s=0.0))
    timer = fixture.effects._timer
    fixture.next_deadline_s += 1
    fixture.effects.run(Effects(now_s=0.0))
    assert fixture.effects._timer is timer
    fixture.effects.stop()
    assert timer.cancelled()


async def test_a_defect_in_expiring_is_heard_of(fixture):
    fixture.failure, fixture.next_deadline_s = ZeroDivisionError(), 0.0
    fixture.effects.run(Effects(now_s=0.0))
    await fixture.spawned.wait()
    with pytest.raises(ZeroDivisionError):
        await fixture.task
