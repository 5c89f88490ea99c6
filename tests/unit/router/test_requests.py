"""Requests go to the replica with the fewest rows before it, in a lane a model, and fail at once if they cannot go."""

import asyncio
import weakref
from math import inf

import numpy as np
import pytest
from aiokafka.errors import KafkaTimeoutError
from builders.kafka import Tasks
from unit.router.rig import settle

from clipper_agents.router.requests import RequestSender, encode_request
from clipper_stream.query import Request
from clipper_topics.catalogue import Catalogue
from clipper_topics.codec import decode_request

CATALOGUE = Catalogue()
A, B = CATALOGUE.requests("a", "1"), CATALOGUE.requests("b", "1")


class Surroundings:
    """A producer whose topics may be without partitions, held up, or refuse; and who hears of what was not sent."""

    def __init__(self):
        self.topics, self.followed, self.refused, self.sent, self.acks = {A: {0, 1}, B: {0}}, set(), {}, [], []
        self.held, self.client, self.cluster, self._topics = set(), self, self, self.followed
        self.replies, self.unsent, self.tasks, self.kafka_producer = [3, 5], [], Tasks(), self
        self.watched, self.watch = self.tasks.watched, self.tasks.watch
        self.sender = RequestSender(self, CATALOGUE, b"router", self, self)

    def owned_partitions(self, topic):
        return self.replies

    def dtype_of(self, ref):
        return "text"

    def partitions_for_topic(self, topic):
        return self.topics.get(topic)

    async def add_topic(self, topic):
        self.followed.add(topic)

    async def partitions_for(self, topic):
        """As aiokafka does: what it has in memory it does not ask for, and so does not follow either."""
        if self.topics.get(topic):
            return self.topics[topic]
        self.followed.add(topic)
        if topic in self.refused:
            raise self.refused[topic]
        return await asyncio.Event().wait()

    async def send(self, topic, value, *, partition, headers):
        while topic in self.held:
            await settle()
        if topic in self.refused:
            raise self.refused[topic]
        self.sent.append((topic, partition, decode_request(value)))
        self.acks.append(asyncio.get_running_loop().create_future())
        return self.acks[-1]

    def fail(self, request, reason):
        self.unsent.append((request.frame, reason))

    async def put(self, *requests):
        """Have requests sent; topic, replica and frame of all that were."""
        for one in requests:
            self.sender.put(one)
        await settle(0.01)
        return [(topic, partition, frame.frame) for topic, partition, frame in self.sent]


@pytest.fixture
async def around():
    made = Surroundings()
    for ref in ("a:1", "b:1"):
        await made.sender.open(ref)
    return made


def request(frame, ref="a:1", rows=1):
    return Request(ref, frame, np.zeros((rows, 2), "float32"), np.full(rows, inf))


async def test_each_request_goes_to_the_replica_that_has_fewest_rows_before_it(around):
    sent = await around.put(request(1, rows=5), request(2, rows=2), request(3, rows=2), request(4), request(5, "b:1"))
    assert [one for one in sent if one[0] == A] == [(A, 0, 1), (A, 1, 2), (A, 1, 3), (A, 1, 4)]
    assert (B, 0, 5) in sent
    around.sender.count_answered(1, 5)
    assert (await around.put(request(6)))[-1] == (A, 0, 6)
    told = {frame.frame: (frame.reply, frame.router) for *_, frame in around.sent}
    assert told == {frame: ((3, 5)[frame % 2], b"router") for frame in range(1, 7)}, "replies are spread"


def in_pieces_and_twice(sender):
    for rows in (1, 2, 2, 4):
        sender.count_answered(1, rows)
    sender.count_answered(99, 3)
    sender.count_answered(2, 1)


@pytest.mark.parametrize(
    "end",
    [in_pieces_and_twice, lambda sender: sender.forget([1, 2, 77, 1]), lambda sender: sender.forget_all()],
    ids=["answered in pieces and twice", "forgotten by the router", "after a rebalance"],
)
async def test_rows_that_are_waited_for_no_more_count_no_more_and_only_once(around, end):
    await around.put(request(1, rows=4), request(2))
    end(around.sender)
    assert (await around.put(request(3), request(4), request(5)))[2:] == [(A, 0, 3), (A, 1, 4), (A, 0, 5)]


async def test_after_a_rebalance_nothing_that_waits_is_sent(around):
    around.held.add(B)
    await around.put(request(2, "b:1"), request(3, "b:1"))
    around.sender.forget_all()
    around.held.clear()
    assert await around.put() == [(B, 0, 2)]


async def test_a_replica_that_is_added_is_used(around):
    await around.put(request(1, "b:1"))
    around.topics[B] = {0, 1}
    assert await around.put(request(2, "b:1")) == [(B, 0, 1), (B, 1, 2)]


async def test_a_model_that_is_held_up_holds_up_no_other(around):
    around.held.add(A)
    assert await around.put(request(1), request(2, "b:1")) == [(B, 0, 2)]
    around.held.clear()
    assert await around.put() == [(B, 0, 2), (A, 0, 1)]


async def test_requests_that_wait_past_their_deadlines_are_dropped(around):
    around.held.add(A)
    rows, deadlines_s = [], []
    for frame in range(100):
        one = request(frame)
        rows.append(weakref.ref(one.rows))
        deadlines_s.append(one.deadlines_s)
        for passed in deadlines_s[:-3]:
            passed[0] = 0.0
        await around.put(one)
        del one
        assert sum(array() is not None for array in rows) <= 4
    around.held.clear()
    assert await around.put() == [(A, 0, 0), (A, 1, 97), (A, 0, 98), (A, 1, 99)]


@pytest.mark.parametrize(
    ("where", "what", "why"),
    [
        ("topics", {B: {0}}, "deploy it again"),
        ("replies", [], "deploy it again"),
        ("refused", {A: KafkaTimeoutError()}, "could not be sent"),
    ],
    ids=["its topic is gone", "nowhere to answer to", "it cannot be queued"],
)
async def test_a_request_that_cannot_be_sent_fails_at_once_and_counts_no_more(around, where, what, why):
    before = getattr(around, where)
    setattr(around, where, what)
    await around.put(request(1, rows=3), request(2, "b:1"))
    assert [(frame, why in said) for frame, said in around.unsent if frame == 1] == [(1, True)]
    assert [topic for topic, *_ in around.sent] == ([] if where == "replies" else [B]), "others are asked"
    setattr(around, where, before)
    assert (await around.put(request(3), request(4)))[-2:] == [(A, 0, 3), (A, 1, 4)]


async def test_a_request_that_was_queued_and_lost_is_an_error(around):
    await around.put(request(1))
    lost = KafkaTimeoutError()
    around.acks[0].set_exception(lost)
    await settle()
    assert around.tasks.failures == [lost]


async def test_a_topic_that_does_not_exist_is_not_waited_for_long_nor_asked_for_again_and_again(around):
    """A broker that makes topics on demand would make one for each version that was deleted meanwhile."""
    around.refused[CATALOGUE.requests("d", "1")] = KafkaTimeoutError()
    for ref, error in (("c:1", TimeoutError), ("d:1", KafkaTimeoutError)):
        with pytest.raises(error):
            await around.sender.open(ref)
    assert around.followed == {A, B}


def test_numbers_go_as_a_matrix_and_anything_else_as_a_list():
    matrix, dtype_of = np.arange(6, dtype="int64").reshape(3, 2), {"a:1": "text"}.get
    token = 2**64 - 1
    frame = decode_request(encode_request(Request("a:1", token, matrix, np.array([1.0, 2.0, inf])), b"r", 2, dtype_of))
    assert (frame.frame, frame.dtype, frame.shape, frame.rows) == (token, "int64", [3, 2], [])
    assert np.array_equal(np.frombuffer(frame.matrix, frame.dtype).reshape(frame.shape), matrix)
    assert list(np.frombuffer(frame.deadlines, "<f8")) == [1.0, 2.0, inf]
    frame = decode_request(encode_request(Request("a:1", 7, ["x", "y"], np.array([1.0, 2.0])), b"r", 2, dtype_of))
    assert (frame.dtype, frame.shape, frame.rows, frame.matrix) == ("text", [2], ["x", "y"], b"")


async def test_a_lane_closes_once_everything_is_with_the_broker_and_opens_again(around):
    """Every query to a version that was back failed, as soon as its topic was forgotten after all."""
    around.held.add(A)
    await around.put(request(1))
    assert not around.sender.close("a:1"), "it is not sent yet"
    around.held.clear()
    await around.put()
    assert not around.sender.close("a:1"), "it is not acknowledged yet"
    around.acks[0].set_result(None)
    await settle()
    assert around.sender.close("a:1")
    assert around.followed == {B}
    assert around.sender.close("a:1"), "a second time does nothing"
    assert await around.put(request(2)) == [(A, 0, 1)]
    ((frame, why),) = around.unsent
    assert (frame, "a:1 is retired" in why) == (2, True)
    await around.sender.open("a:1")
    assert around.followed == {A, B}
    assert (await around.put(request(3)))[1:] == [(A, 0, 3)]
