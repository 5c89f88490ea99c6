"""A process that stood still for half a session writes nothing until its group answers, or its generation ends."""

import asyncio

import pytest

from clipper_agents.streaming.consumer_thread import Membership

SESSION_S = 10.0


class Clock:
    def __init__(self):
        self.now_s = 100.0

    def __call__(self):
        return self.now_s


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def member(clock):
    return Membership(SESSION_S, clock)


async def is_sure(member):
    asked = asyncio.ensure_future(member.confirmed())
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    asked.cancel()
    return asked.done() and not asked.cancelled()


async def test_a_process_that_goes_on_is_sure(member, clock):
    for _ in range(10):
        clock.now_s += SESSION_S / 3
        assert await is_sure(member)


async def test_one_that_stood_still_waits_for_the_answer_to_a_later_heartbeat(member, clock):
    before_s = clock.now_s
    clock.now_s += SESSION_S / 2
    assert not await is_sure(member)
    member.answered(before_s)  # it had been sent before the process stood still
    assert not await is_sure(member)
    clock.now_s += 0.1
    member.answered(clock.now_s)
    assert await is_sure(member)


async def test_an_answer_from_before_that_is_read_first_says_nothing(member, clock):
    before_s = clock.now_s
    clock.now_s += 2 * SESSION_S
    member.answered(before_s)
    assert not await is_sure(member)


async def test_what_waits_goes_on_when_the_generation_ends(member, clock):
    clock.now_s += SESSION_S
    waiting = asyncio.ensure_future(member.confirmed())
    await asyncio.sleep(0)
    assert not waiting.done()
    member.ended()
    await waiting


async def test_the_loop_shows_by_itself_that_it_runs(member, clock):
    clock.now_s += SESSION_S - 1
    member.watch_loop()
    clock.now_s += 1
    assert not await is_sure(member)
    member.answered(clock.now_s)
    assert await is_sure(member)
