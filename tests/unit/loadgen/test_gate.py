"""The open loop in fake time: what is due is sent at once, and a stall is counted for every query it delays."""

import asyncio
import threading
import time

import numpy as np
import pytest

from clipper_loadgen import Dataset, LoadPlan
from clipper_loadgen.gate import CHUNK, Gate, Pacer, releases, send_released
from clipper_loadgen.ledger import Ledger
from clipper_loadgen.script import write_script


class FakeTime:
    """A clock that only moves when somebody waits or stalls."""

    def __init__(self):
        self.now_s = 0.0

    def clock(self):
        return self.now_s

    def wait(self, seconds):
        self.now_s += seconds
        return False


class StallingOutlet:
    """Takes the time `stalls` says to send the query of that number, and none for the others."""

    def __init__(self, fake, stalls=None):
        self.fake, self.stalls, self.sent, self.sizes = fake, stalls or {}, 0, []

    async def send(self, records):
        self.sizes.append(len(records))
        for _ in records:
            self.fake.now_s += self.stalls.get(self.sent, 0.0)
            self.sent += 1


def script_of(count):
    return write_script(LoadPlan("a", mode="saturation", queries=count), Dataset([1]), partitions=1, run="00000000")


async def settled():
    """Let the loop run until every task waits for something."""
    for _ in range(20):
        await asyncio.sleep(0)


def driven(due_s, stalls):
    """Send on schedule in fake time, each query answered the moment it is sent; the ledger."""

    async def drive():
        fake, gate, ledger = FakeTime(), Gate(), Ledger(due_s)
        outlet = StallingOutlet(fake, stalls)
        sending = asyncio.create_task(send_released(script_of(len(due_s)), gate, outlet, ledger, fake.clock))
        for released in releases(due_s, clock=fake.clock, wait=fake.wait):
            gate.release(released)
            await settled()
            for query in range(ledger.answered_count, released):
                ledger.answered(query, fake.now_s, reason=None)
        await sending
        return ledger

    return asyncio.run(drive())


def test_without_a_stall_every_query_leaves_at_its_intended_time():
    ledger = driven([0.0, 0.1, 0.25, 0.25, 0.7], stalls={})
    assert np.allclose(ledger.latencies_s(), 0.0)
    assert np.allclose(ledger.sent_s, ledger.due_s)


def test_a_stalled_sender_delays_every_query_that_was_due_meanwhile():
    due_s = [0.1 * query for query in range(20)]
    ledger = driven(due_s, stalls={5: 1.0})  # from 0.5 to 1.5 nothing leaves
    expected = [max(0.0, 1.5 - due) if due >= 0.5 else 0.0 for due in due_s]
    assert np.allclose(ledger.latencies_s(), expected)
    assert np.allclose(np.subtract(ledger.sent_s, due_s), expected)


def test_late_or_not_every_query_is_released_once_and_in_order():
    fake = FakeTime()
    due_s = np.sort(np.random.default_rng(0).uniform(0, 1, 200)).tolist()
    seen = []
    for released in releases(due_s, clock=fake.clock, wait=fake.wait):
        assert due_s[released - 1] <= fake.now_s
        fake.now_s += 0.013
        seen.append(released)
    assert seen == sorted(set(seen))
    assert seen[-1] == len(due_s)


def test_a_tick_lets_queries_gather():
    fake = FakeTime()
    due_s = [0.0001 * query for query in range(100)]
    times = [fake.now_s for _ in releases(due_s, clock=fake.clock, wait=fake.wait, tick_s=0.001)]
    assert len(times) == pytest.approx(11, abs=1)
    assert np.diff(times).min() > 0.00099


def test_a_wait_that_ends_early_releases_nothing_too_soon():
    fake = FakeTime()

    def short_wait(seconds):
        fake.now_s += max(seconds / 2, 1e-6)
        return False

    assert list(releases([1.0], clock=fake.clock, wait=short_wait)) == [1]
    assert fake.now_s >= 1.0


def test_a_run_that_is_given_up_releases_nothing_more():
    fake = FakeTime()
    assert list(releases([0.0, 5.0], clock=fake.clock, wait=lambda _: True)) == [1]


def test_the_pacer_tells_of_every_query_from_its_thread():
    start_s, released, done = time.perf_counter(), [], threading.Event()

    def on_release(count):
        released.append(count)
        if count == 5:
            done.set()

    with Pacer([start_s + 0.002 * query for query in range(5)], on_release):
        assert done.wait(10)
    assert released[-1] == 5


def test_leaving_the_pacer_ends_its_thread_before_the_schedule_does():
    with Pacer([time.perf_counter() + 3600.0], lambda _: None) as pacer:
        pass
    assert not pacer._thread.is_alive()


def test_nothing_passes_the_gate_before_it_is_released_and_a_burst_goes_in_chunks():
    async def drive():
        fake, gate, ledger = FakeTime(), Gate(), Ledger([0.0] * (3 * CHUNK))
        outlet = StallingOutlet(fake)
        sending = asyncio.create_task(send_released(script_of(3 * CHUNK), gate, outlet, ledger, fake.clock))
        await settled()
        before = outlet.sent
        gate.release(2 * CHUNK)
        gate.release(1)  # never fewer than before
        await settled()
        first = outlet.sent
        gate.release(10 * CHUNK)
        await sending
        return before, first, outlet.sizes

    assert asyncio.run(drive()) == (0, 2 * CHUNK, [CHUNK] * 3)
