"""Requests go to the replica with the fewest rows before it, in a lane a model, and fail at once if they cannot go."""

import asyncio
from math import inf

import numpy as np
import pytest
from aiokafka.errors import KafkaTimeoutError

from clipper_agents.router.requests import Lane, RequestSender, encode_request
from clipper_stream.query import Request
from clipper_topics.catalogue import Catalogue
from clipper_topics.frames import decode_request

CATALOGUE = Catalogue()
A, B = CATALOGUE.requests("a", "1"), CATALOGUE.requests("b", "1")


class FakeProducer:
    """Notes what is sent; a topic may be without partitions, held up, or refuse."""

    def __init__(self, **partitions):
        self.topics = {A: {0, 1}, B: {0}} | partitions
        self.sent, self.failures, self.gates, self.futures = [], {}, {}, []
        self.client = self
        self.cluster = self
        self._topics, self.refuses = set(), None

    def partitions_for_topic(self, topic):
        return self.topics.get(topic)

    async def add_topic(self, topic):
        self._topics.add(topic)

    async def partitions_for(self, topic):
        """As aiokafka does: what it has in memory it does not ask for, and so does not follow either."""
        if self.topics.get(topic):
            return self.topics[topic]
        self._topics.add(topic)
        if topic == self.refuses:
            raise KafkaTimeoutError
        return await asyncio.Event().wait()

    async def send(self, topic, value, *, partition, headers):
        if topic in self.gates:
            await self.gates[topic].wait()
        if topic in self.failures:
            raise self.failures[topic]
        self.sent.append((topic, partition, decode_request(value)))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]


@pytest.fixture
async def fixture():
    return Fixture()


class Fixture:
    def __init__(self):
        self.producer, self.replies, self.unsent, self.done = FakeProducer(), [3, 5], [], []
        self.now_s = 100.0
        self.sender = RequestSender(
            self.producer, CATALOGUE, b"router", reply_partitions=lambda: self.replies, dtype_of=lambda ref: "text",
            receiver=self, tasks=self, clock=lambda: self.now_s,
        )  # fmt: skip

    def watched(self, work):
        return asyncio.create_task(work)

    def watch(self, future):
        self.done.append(future)

    def fail(self, request, reason):
        self.unsent.append((request.frame, reason))

    async def put(self, *requests):
        for ref in ("a:1", "b:1"):
            if not any(ref == one for one in self.sender._lanes):
                self.sender._lanes[ref] = Lane(CATALOGUE.requests(*ref.split(":")))
        self.sender.put(requests)
        for _ in range(10):
            await asyncio.sleep(0)

    @property
    def sent(self):
        return [(topic, partition, frame.frame) for topic, partition, frame in self.producer.sent]


def request(frame, ref="a:1", rows=1, deadline_s=inf):
    return Request(ref, frame, np.zeros((rows, 2), "float32"), np.full(rows, deadline_s))


async def test_each_request_goes_to_the_replica_that_has_fewest_rows_before_it(fixture):
    await fixture.put(request(1, rows=5), request(2, rows=2), request(3, rows=2), request(4), request(5, "b:1"))
    assert [one for one in fixture.sent if one[0] == A] == [(A, 0, 1), (A, 1, 2), (A, 1, 3), (A, 1, 4)]
    assert (B, 0, 5) in fixture.sent
    fixture.sender.count_answered(1, 5)
    await fixture.put(request(6))
    assert fixture.sent[-1] == (A, 0, 6)


async def test_rows_that_come_back_in_pieces_and_twice_are_counted_once(fixture):
    await fixture.put(request(1, rows=4))
    for rows in (1, 2, 2, 4):
        fixture.sender.count_answered(1, rows)
    fixture.sender.count_answered(99, 3)
    assert fixture.sender._lanes["a:1"].outstanding == {0: 0}
    assert not fixture.sender._unanswered


async def test_requests_that_the_router_forgets_count_no_more(fixture):
    await fixture.put(request(1, rows=4), request(2, rows=1))
    fixture.sender.forget([1, 2, 77])
    assert not fixture.sender._unanswered
    assert fixture.sender._lanes["a:1"].outstanding.total() == 0


async def test_replies_are_spread_over_the_partitions_that_this_process_reads(fixture):
    await fixture.put(*(request(frame) for frame in range(4)))
    assert [frame.reply for *_, frame in fixture.producer.sent] == [3, 5, 3, 5]
    assert {frame.router for *_, frame in fixture.producer.sent} == {b"router"}


async def test_a_replica_that_is_added_is_used(fixture):
    await fixture.put(request(1, "b:1"))
    fixture.producer.topics[B] = {0, 1}
    await fixture.put(request(2, "b:1"))
    assert fixture.sent == [(B, 0, 1), (B, 1, 2)]


async def test_a_model_whose_topic_is_gone_fails_its_own_requests_at_once(fixture):
    del fixture.producer.topics[A]
    await fixture.put(request(1), request(2, "b:1"))
    assert [frame for frame, _ in fixture.unsent] == [1]
    assert "deploy it again" in fixture.unsent[0][1]
    assert fixture.sent == [(B, 0, 2)]


async def test_a_model_that_is_held_up_holds_up_no_other(fixture):
    fixture.producer.gates[A] = asyncio.Event()
    await fixture.put(request(1), request(2, "b:1"))
    assert fixture.sent == [(B, 0, 2)]
    fixture.producer.gates[A].set()
    await fixture.put()
    assert fixture.sent == [(B, 0, 2), (A, 0, 1)]


async def test_requests_that_wait_past_their_deadlines_are_dropped(fixture):
    fixture.producer.gates[A] = asyncio.Event()
    for frame in range(100):
        fixture.now_s += 1.0
        await fixture.put(request(frame, deadline_s=fixture.now_s + 2.5))
        assert len(fixture.sender._lanes["a:1"].waiting) <= 3
    fixture.producer.gates[A].set()
    await fixture.put()
    assert [frame for *_, frame in fixture.sent] == [0, 97, 98, 99]  # the first was on its way


async def test_a_request_that_cannot_be_queued_fails_and_counts_no_more(fixture):
    fixture.producer.failures[A] = KafkaTimeoutError()
    await fixture.put(request(1, rows=3))
    assert [frame for frame, _ in fixture.unsent] == [1]
    assert fixture.sender._lanes["a:1"].outstanding.total() == 0
    del fixture.producer.failures[A]
    await fixture.put(request(2))
    assert fixture.sent == [(A, 0, 2)]


async def test_a_request_that_was_queued_and_lost_is_an_error(fixture):
    await fixture.put(request(1))
    fixture.producer.futures[0].set_exception(KafkaTimeoutError())
    await asyncio.sleep(0)
    assert fixture.done == fixture.producer.futures
    assert isinstance(fixture.done[0].exception(), KafkaTimeoutError)


async def test_without_partitions_to_answer_to_nothing_is_asked(fixture):
    fixture.replies = []
    await fixture.put(request(1))
    assert (fixture.sent, [frame for frame, _ in fixture.unsent]) == ([], [1])


async def test_after_a_rebalance_nothing_is_outstanding(fixture):
    fixture.producer.gates[B] = asyncio.Event()
    await fixture.put(request(1, rows=9), request(2, "b:1"), request(3, "b:1"))
    fixture.sender.forget_all()
    fixture.producer.gates[B].set()
    await fixture.put(request(4))
    assert fixture.sent[-1] == (A, 0, 4)
    assert (B, 0, 3) not in fixture.sent


async def test_a_topic_that_does_not_exist_is_not_waited_for_long(fixture):
    await fixture.sender.open("a:1")
    with pytest.raises(TimeoutError):
        await fixture.sender.open("c:1")


def test_numbers_go_as_a_matrix_and_anything_else_as_a_list():
    matrix = np.arange(6, dtype="int64").reshape(3, 2)
    token = 2**64 - 1
    frame = decode_request(encode_request(Request("a:1", token, matrix, np.array([1.0, 2.0, inf])), b"r", 2, "text"))
    assert (frame.frame, frame.dtype, frame.shape, frame.rows) == (token, "int64", [3, 2], [])
    assert np.array_equal(np.frombuffer(frame.matrix, frame.dtype).reshape(frame.shape), matrix)
    assert list(np.frombuffer(frame.deadlines, "<f8")) == [1.0, 2.0, inf]
    frame = decode_request(encode_request(Request("a:1", 7, ["x", "y"], np.array([1.0, 2.0])), b"r", 2, "text"))
    assert (frame.dtype, frame.shape, frame.rows, frame.matrix) == ("text", [2], ["x", "y"], b"")


async def test_a_lane_closes_once_everything_is_with_the_broker(fixture):
    await fixture.sender.open("a:1")
    assert A in fixture.producer._topics
    fixture.producer.gates[A] = asyncio.Event()
    await fixture.put(request(1))
    assert not fixture.sender.close("a:1"), "it is not sent yet"
    fixture.producer.gates[A].set()
    await fixture.put()
    assert not fixture.sender.close("a:1"), "it is not acknowledged yet"
    fixture.producer.futures[0].set_result(None)
    await fixture.put()
    assert fixture.sender.close("a:1")
    assert A not in fixture.producer._topics
    assert fixture.sender.close("a:1"), "a second time does nothing"


async def test_a_version_that_is_back_before_its_topic_is_forgotten_is_followed_again(fixture):
    """Every query to it failed, as soon as its topic was forgotten after all."""
    await fixture.sender.open("a:1")
    assert fixture.sender.close("a:1")
    await fixture.sender.open("a:1")
    assert A in fixture.producer._topics


async def test_a_request_to_a_model_that_has_left_fails_at_once(fixture):
    await fixture.sender.open("a:1")
    assert fixture.sender.close("a:1")
    fixture.sender.put([request(1)])
    await asyncio.sleep(0)
    ((frame, why),) = fixture.unsent
    assert frame == 1
    assert "a:1 is retired" in why
    assert fixture.producer.sent == []


async def test_a_topic_that_is_not_there_is_not_asked_for_again_and_again(fixture):
    """A broker that makes topics on demand would make one for each version that was deleted meanwhile."""
    fixture.producer.topics[A] = None
    fixture.producer.refuses = A
    with pytest.raises(KafkaTimeoutError):
        await fixture.sender.open("a:1")
    assert A not in fixture.producer._topics
