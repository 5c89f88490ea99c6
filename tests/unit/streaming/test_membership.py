"""What is written needs an answer of the group to a heartbeat of the last half of a session."""

import asyncio

import pytest
from builders.kafka import settle

from clipper_agents.streaming.membership import OwnershipLease

SESSION_S = 10.0


class Member:
    def __init__(self):
        self.now_s = 100.0
        self.lease = OwnershipLease(SESSION_S, lambda: self.now_s)

    async def is_sure(self, after_s=0.0):
        self.now_s += after_s
        asked = asyncio.ensure_future(self.lease.confirmed())
        await settle()
        return asked.done() or not asked.cancel()


@pytest.fixture
async def member():
    return Member()


async def test_a_member_is_sure_for_half_a_session_from_when_the_heartbeat_was_sent_that_was_answered(member):
    assert not await member.is_sure()
    for _ in range(3):
        sent_s = member.now_s
        member.now_s += 1
        member.lease.answered(sent_s)
        assert await member.is_sure(after_s=SESSION_S / 2 - 1.1)
        assert not await member.is_sure(after_s=0.2)


async def test_an_answer_that_comes_too_late_says_nothing_and_one_in_time_is_waited_for(member):
    waiting = asyncio.ensure_future(member.lease.confirmed())
    member.lease.answered(member.now_s - SESSION_S / 2)
    await settle()
    assert (waiting.done(), member.lease.is_confirmed) == (False, False)
    member.lease.answered(member.now_s)
    await waiting
    assert member.lease.is_confirmed


async def test_what_waits_goes_on_when_the_generation_ends(member):
    member.now_s += SESSION_S
    waiting = asyncio.ensure_future(member.lease.confirmed())
    await settle()
    assert not waiting.done()
    member.lease.ended()
    await waiting
