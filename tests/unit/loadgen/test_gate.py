import asyncio
import queue
import threading
import time

import numpy as np
import pytest

from clipper_loadgen import Dataset, LoadPlan
from clipper_loadgen.gate import CHUNK, Gate, pacer, releases, send_released
from clipper_loadgen.ledger import Ledger
from clipper_loadgen.script import write_script


class FakeTime:
    """A clock that only moves when somebody waits or stalls."""

    def __init__(self, wait_share=1.0):
        self.now_s, self.wait_share = 0.0, wait_share

    def clock(self):
        return self.now_s

    def wait(self, seconds):
        self.now_s += max(self.wait_share * seconds, 1e-6)
        return False

    def releases(self, due_s, **options):
        return releases(due_s, clock=self.clock, wait=self.wait, **options)


class Sending:
    """Queries on their way through a gate to an outlet that takes the time `stalls` says for the query of a number."""

    def __init__(self, due_s, stalls=None):
        self.time, self.gate, self.ledger, self.stalls = FakeTime(), Gate(), Ledger(due_s), stalls or {}
        plan = LoadPlan("a", mode="saturation", queries=len(due_s), dataset=Dataset([1]))
        script = write_script(plan, partitions=1, run="00000000")
        self.sent, self.sizes, self.released = 0, [], 0
        self.task = asyncio.create_task(send_released(script, self.gate, self.send, self.ledger, self.time.clock))

    async def send(self, records):
        self.sizes.append(len(records))
        for _ in records:
            assert self.sent < self.released
            self.time.now_s += self.stalls.get(self.sent, 0.0)
            self.sent += 1

    async def release(self, count):
        """Return when what was released is sent."""
        self.released = max(count, self.released)
        self.gate.release(count)
        while self.ledger.sent_count < min(self.released, len(self.ledger)) and not self.task.done():
            await asyncio.sleep(0)


async def driven(due_s, stalls):
    sending = Sending(due_s, stalls)
    for released in sending.time.releases(due_s):
        await sending.release(released)
        for query in range(sending.ledger.answered_count, released):
            sending.ledger.answered(query, sending.time.now_s, reason=None)
    await sending.task
    return sending.ledger


async def test_a_query_leaves_at_its_intended_time_and_a_stalled_sender_delays_all_that_were_due_meanwhile():
    due_s = [0.1 * query for query in range(19)] + [1.8]
    ledger = await driven(due_s, stalls={5: 1.0})  # from 0.5 to 1.5 nothing leaves
    expected = [max(0.0, 1.5 - due) if due >= 0.5 else 0.0 for due in due_s]
    assert np.allclose(ledger.latencies_s(), expected, atol=1e-5)
    assert np.allclose(np.subtract(ledger.sent_s, due_s), expected, atol=1e-5)


async def test_nothing_passes_the_gate_before_it_is_released_and_a_burst_goes_in_chunks():
    sending = Sending([0.0] * (3 * CHUNK))
    for count in (0, 2 * CHUNK, 1, 10 * CHUNK):  # never fewer than before
        await asyncio.sleep(0)
        await sending.release(count)
    await sending.task
    assert sending.sizes == [CHUNK] * 3


@pytest.mark.parametrize("wait_share", [1.0, 0.5], ids=["exact", "ends early"])
def test_late_or_not_every_query_is_released_once_in_order_and_not_too_soon(wait_share):
    fake, seen = FakeTime(wait_share), []
    due_s = np.sort(np.random.default_rng(0).uniform(0, 1, 200)).tolist()
    for released in fake.releases(due_s):
        assert due_s[released - 1] <= fake.now_s
        fake.now_s += 0.013
        seen.append(released)
    assert seen == sorted(set(seen))
    assert seen[-1] == len(due_s)


def test_a_tick_lets_queries_gather_and_a_run_that_is_given_up_releases_nothing_more():
    fake = FakeTime()
    times = [fake.now_s for _ in fake.releases([0.0001 * query for query in range(100)], tick_s=0.001)]
    assert len(times) == pytest.approx(11, abs=1)
    assert np.diff(times).min() > 0.00099
    assert list(releases([0.0, 5.0], clock=lambda: 0.0, wait=lambda _: True)) == [1]


def test_the_pacer_tells_of_every_query_from_its_thread_which_ends_with_it_before_the_schedule_does():
    start_s, released = time.perf_counter(), queue.Queue()
    with pacer(
        [start_s + 0.002 * query for query in range(5)],
        lambda count: released.put((count, threading.current_thread().name)),
    ):
        while (told := released.get(timeout=10)) != (5, "pacer"):
            assert told[1] == "pacer"
    with pacer([time.perf_counter() + 3600.0], lambda _: None):
        assert "pacer" in {thread.name for thread in threading.enumerate()}
    assert "pacer" not in {thread.name for thread in threading.enumerate()}
