"""A process that stood still for half a session writes nothing until its group answers, or its generation ends."""

import asyncio

import pytest
from builders.kafka import settle

from clipper_agents.streaming.consumer_thread import Membership

SESSION_S = 10.0


class Member:
    def __init__(self):
        self.now_s = 100.0
        self.membership = Membership(SESSION_S, lambda: self.now_s)

    async def is_sure(self, after_s=0.0):
        self.now_s += after_s
        asked = asyncio.ensure_future(self.membership.confirmed())
        await settle()
        return asked.done() or not asked.cancel()


@pytest.fixture
async def member():
    return Member()


async def test_a_process_that_goes_on_is_sure(member):
    assert [await member.is_sure(after_s=SESSION_S / 3) for _ in range(10)] == [True] * 10


@pytest.mark.parametrize("looked_before_the_answer", [True, False])
async def test_one_that_stood_still_waits_for_the_answer_to_a_later_heartbeat(member, looked_before_the_answer):
    before_s = member.now_s
    member.now_s += SESSION_S / 2
    if looked_before_the_answer:
        assert not await member.is_sure()
    member.membership.answered(before_s)  # it had been sent before the process stood still
    assert not await member.is_sure()
    member.now_s += 0.1
    member.membership.answered(member.now_s)
    assert await member.is_sure()


async def test_what_waits_goes_on_when_the_generation_ends(member):
    member.now_s += SESSION_S
    waiting = asyncio.ensure_future(member.membership.confirmed())
    await settle()
    assert not waiting.done()
    member.membership.ended()
    await waiting


async def test_the_loop_shows_by_itself_that_it_runs(member):
    member.now_s += SESSION_S - 1
    member.membership.watch_loop()
    assert not await member.is_sure(after_s=1)
    member.membership.answered(member.now_s)
    assert await member.is_sure()
