"""A topic that is followed: what is there, what comes, and a right that is missing or taken away."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError
from builders.kafka import settle

from clipper_agents.kafka import follower as following
from clipper_agents.kafka.follower import TopicFollower
from clipper_agents.kafka.retry import reached_in
from clipper_topics.connection import KafkaConnection

TP = TopicPartition("control", 0)


class Log:
    """A reader of one partition with two records; each fetch after them ends in the next of these errors."""

    def __init__(self, *errors):
        self.errors, self.positions, self.begun, self.closed = [*errors], {}, [], 0

    async def partitions_of(self, topic):
        return [TopicPartition(topic, 0)]

    async def beginning_offsets(self, partitions):
        return dict.fromkeys(partitions, 0)

    async def follow(self, starts):
        self.begun.append(starts[TP])
        self.positions = dict(starts)

    @property
    def behind(self):
        return [tp for tp, offset in self.positions.items() if offset < 2]

    async def fetch(self, wait_s):
        if self.behind:
            self.positions[TP] += 1
            return {TP: [f"record {self.positions[TP] - 1}"]}
        if self.errors:
            raise self.errors.pop(0)
        return await asyncio.Event().wait()

    async def close(self):
        self.closed += 1


@pytest.fixture
def follow(monkeypatch):
    monkeypatch.setattr(following, "RESTART_WAIT_S", 0.0)

    def make(log):
        found = []
        follower = TopicFollower(KafkaConnection("127.0.0.1:1"), "control", found.extend)
        monkeypatch.setattr(following, "LogReader", lambda *_, **__: log)
        return follower, found

    return make


@pytest.mark.parametrize("error", [None, TopicAuthorizationFailedError("control"), KafkaError("no leader")])
async def test_each_record_is_handed_over_once_whatever_happens_after_all_was_read(follow, error):
    log = Log(*[error] * (error is not None))
    follower, found = follow(log)
    running = asyncio.ensure_future(follower.run())
    await reached_in(running, follower.caught_up)
    await settle()
    assert (found, follower.followed_upto()) == (["record 0", "record 1"], 2)
    assert (log.begun, log.closed) == (([0], 0) if error is None else ([0, 2], 1))
    running.cancel()


async def test_who_may_not_read_a_topic_is_told_so_at_the_start(follow):
    class Refused(Log):
        async def partitions_of(self, topic):
            raise TopicAuthorizationFailedError(topic)

    log = Refused()
    follower, _ = follow(log)
    running = asyncio.ensure_future(follower.run())
    with pytest.raises(TopicAuthorizationFailedError):
        await reached_in(running, follower.caught_up)
    assert log.closed == 1
