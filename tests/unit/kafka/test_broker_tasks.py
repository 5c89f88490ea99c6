"""Fetches that go on by themselves and requests that begin at once do what aiokafka's own do, with fewer wake-ups."""

import asyncio

import pytest
from aiokafka import TopicPartition
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.fetch import FetchResponse_v11
from aiokafka.protocol.metadata import MetadataResponse_v1
from aiokafka.protocol.produce import ProduceResponse_v7
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from clipper_agents.kafka.broker_tasks import BrokerFetcher, EagerSender
from clipper_agents.kafka.fetch_sessions import PackedProduceRequest, SessionFetchRequest

A, B = TopicPartition("queries", 0), TopicPartition("queries", 1)
OUT_OF_ORDER = 45
SOON_S = 10.0


class Brokers:
    """Stands in for aiokafka's client: each request is answered by hand."""

    def __init__(self, leaders):
        self._loop, self._metadata_max_age_ms = asyncio.get_running_loop(), 60_000
        self.cluster = ClusterMetadata(metadata_max_age_ms=60_000)
        self.lead(leaders)
        self.asked = asyncio.Queue()
        self.updates = []

    def lead(self, leaders):
        brokers = [(node, "localhost", 9092, None) for node in {*leaders.values()} - {-1}]
        partitions = [(0, tp.partition, node, [node], [node]) for tp, node in leaders.items()]
        self.cluster.update_metadata(MetadataResponse_v1(brokers, 0, [(0, A.topic, False, partitions)]))

    async def send(self, node_id, request):
        answer = self._loop.create_future()
        self.asked.put_nowait((node_id, request, answer))
        return await answer

    def force_metadata_update(self):
        self.updates.append(self._loop.create_future())
        return self.updates[-1]

    async def next_request(self):
        return await asyncio.wait_for(self.asked.get(), SOON_S)

    async def _maybe_wait_metadata(self):
        pass


async def some_turns(count=20):
    for _ in range(count):
        await asyncio.sleep(0)


# --- fetches --------------------------------------------------------------------------------------------------------
class Looking(BrokerFetcher):
    looks = 0

    def _get_actions_per_node(self, assignment):
        self.looks += 1
        return super()._get_actions_per_node(assignment)


def reading(brokers, positions, **options):
    subscriptions = SubscriptionState()
    subscriptions.assign_from_user({*positions})
    for tp, offset in positions.items():
        subscriptions.seek(tp, offset)
    return Looking(brokers, subscriptions, fetcher_timeout=60, prefetch_backoff=60, **options), subscriptions


@pytest.fixture(autouse=True)
def packed_requests(monkeypatch):
    monkeypatch.setattr("aiokafka.consumer.fetcher.FetchRequest", SessionFetchRequest)
    monkeypatch.setattr("aiokafka.producer.sender.ProduceRequest", PackedProduceRequest)


def answer(found):
    """One record of each of these partitions, at an offset."""
    partitions = []
    for tp, offset in found.items():
        builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
        builder.append(0, 1_000, b"key", b"value", [])
        batch = bytearray(builder.build())
        batch[:8] = offset.to_bytes(8, "big")
        partitions.append((tp.partition, 0, offset + 1, offset + 1, 0, [], -1, bytes(batch)))
    return FetchResponse_v11(0, 0, 5, [(A.topic, partitions)])


async def wanted(brokers):
    node_id, request, future = await brokers.next_request()
    return node_id, {TopicPartition(*tp): offset for tp, (offset, _) in request.wanted.items()}, future


async def test_the_task_of_a_broker_goes_on_when_its_records_were_taken():
    brokers = Brokers({A: 1, B: 1})
    fetcher, _ = reading(brokers, {A: 5, B: 7})
    offset = 5
    for _ in range(3):
        node_id, asked, future = await wanted(brokers)
        assert (node_id, asked) == (1, {A: offset, B: 7})
        future.set_result(answer({A: offset}))
        await fetcher.wait_for_records(SOON_S)
        await some_turns()
        assert brokers.asked.empty(), "nothing is fetched before the records were taken"
        assert [one.offset for one in (await fetcher.fetched_records([A]))[A]] == [offset]
        offset += 1
    assert fetcher.looks == 1
    await fetcher.close()


async def test_what_is_not_taken_for_a_while_holds_up_no_other_partition():
    brokers = Brokers({A: 1, B: 1})
    fetcher, _ = reading(brokers, {A: 5, B: 7})
    fetcher._prefetch_backoff = 0.01
    _, _, future = await wanted(brokers)
    future.set_result(answer({A: 5}))
    _, asked, _ = await wanted(brokers)
    assert asked == {B: 7}
    await fetcher.close()


async def test_a_paused_partition_is_left_out_and_a_resumed_one_fetched_again():
    brokers = Brokers({A: 1, B: 1})
    fetcher, subscriptions = reading(brokers, {A: 5, B: 7})
    _, _, future = await wanted(brokers)
    subscriptions.pause(B)
    future.set_result(answer({}))
    _, asked, future = await wanted(brokers)
    assert asked == {A: 5}
    subscriptions.pause(A)
    future.set_result(answer({}))
    await some_turns()
    assert brokers.asked.empty()
    subscriptions.resume(B)
    _, asked, _ = await wanted(brokers)
    assert asked == {B: 7}
    await fetcher.close()


async def test_another_position_is_fetched_from_wherever_it_was_set():
    brokers = Brokers({A: 1, B: 2})
    fetcher, subscriptions = reading(brokers, {A: 5, B: 7})
    first = {node_id: future for node_id, _, future in [await wanted(brokers), await wanted(brokers)]}
    subscriptions.pause(B)
    first[2].set_result(answer({}))
    await some_turns()
    fetcher.seek_to(A, 9)
    first[1].set_result(answer({A: 5}))
    node_id, asked, _ = await wanted(brokers)
    assert (node_id, asked) == (1, {A: 9}), "what was fetched for the earlier position is dropped"
    looks = fetcher.looks
    fetcher.seek_to(B, 3)
    await some_turns()
    assert fetcher.looks > looks, "the broker of this one has no task"
    subscriptions.resume(B)
    assert (await wanted(brokers))[:2] == (2, {B: 3})
    await fetcher.close()


async def test_new_leaders_are_asked_as_soon_as_they_are_known():
    brokers = Brokers({A: 1, B: 1})
    fetcher, _ = reading(brokers, {A: 5, B: 7})
    _, _, future = await wanted(brokers)
    brokers.lead({A: 1, B: 2})
    future.set_result(answer({}))
    found = {node_id: asked for node_id, asked, _ in [await wanted(brokers), await wanted(brokers)]}
    assert found == {1: {A: 5}, 2: {B: 7}}
    await fetcher.close()


async def test_a_consumer_that_has_other_partitions_fetches_no_more_of_the_earlier_ones():
    brokers = Brokers({A: 1, B: 1})
    fetcher, subscriptions = reading(brokers, {A: 5})
    _, _, future = await wanted(brokers)
    future.set_result(answer({A: 5}))
    await fetcher.wait_for_records(SOON_S)
    subscriptions.unsubscribe()
    subscriptions.assign_from_user({B})
    subscriptions.seek(B, 7)
    assert (await wanted(brokers))[1] == {B: 7}
    await fetcher.close()


async def test_a_busy_process_waits_between_fetches_that_brought_records():
    brokers = Brokers({A: 1})
    fetcher, _ = reading(brokers, {A: 5})
    gate, pauses = asyncio.get_running_loop().create_future(), []

    async def sleep(pause_s):
        pauses.append(pause_s)
        await gate

    fetcher.pause_s, fetcher.sleep = lambda: 0.004, sleep
    _, _, future = await wanted(brokers)
    future.set_result(answer({}))
    _, _, future = await wanted(brokers)
    assert not pauses, "what brought nothing had waited at the broker"
    future.set_result(answer({A: 5}))
    await fetcher.wait_for_records(SOON_S)
    assert await fetcher.fetched_records([A]), "they are served meanwhile"
    await some_turns()
    assert pauses == [0.004]
    assert brokers.asked.empty()
    gate.set_result(None)
    assert (await wanted(brokers))[1] == {A: 6}
    await fetcher.close()


async def test_a_wait_without_records_ends_in_time():
    brokers = Brokers({A: 1})
    fetcher, _ = reading(brokers, {A: 5})
    await fetcher.wait_for_records(0.01)
    assert await fetcher.fetched_records([A]) == {}
    await fetcher.close()


# --- produce --------------------------------------------------------------------------------------------------------
class Producing:
    """A sender with the records that are queued for it."""

    def __init__(self, brokers):
        self.brokers = brokers
        self.numbers = TransactionManager(None, 60_000)
        self.numbers.set_pid_and_epoch(7, 0)
        self.queue = MessageAccumulator(brokers.cluster, 10_000, 0, 60, txn_manager=self.numbers)
        self.sender = EagerSender(
            brokers, acks=-1, txn_manager=self.numbers, message_accumulator=self.queue,
            retry_backoff_ms=1, request_timeout_ms=1_000,
        )  # fmt: skip

    async def add(self, tp, value=b"value"):
        return await self.queue.add_message(tp, None, value, 1.0)

    async def request(self):
        node_id, request, future = await self.brokers.next_request()
        topics = [(topic, [partition for partition, _ in found]) for topic, found in request._topics]
        return node_id, dict(topics).get(A.topic), future


def stored(*partitions, code=0):
    return ProduceResponse_v7([(A.topic, [(partition, code, 3, -1, 0) for partition in partitions])], 0)


async def test_records_of_one_turn_go_in_one_request_and_later_ones_follow_it():
    one = Producing(Brokers({A: 1, B: 1}))
    await one.sender.start()
    first = [await one.add(A), await one.add(B)]
    node_id, partitions, future = await one.request()
    assert (node_id, sorted(partitions)) == (1, [0, 1])
    later = await one.add(A)
    await some_turns()
    assert one.brokers.asked.empty(), "one request to a broker at a time"
    future.set_result(stored(0, 1))
    assert [(await found).offset for found in first] == [3, 3]
    _, partitions, future = await one.request()
    assert partitions == [0]
    future.set_result(stored(0))
    assert (await later).offset == 3
    await one.sender.close()


async def test_a_broker_that_does_not_answer_holds_up_no_other():
    one = Producing(Brokers({A: 1, B: 2}))
    await one.sender.start()
    await one.add(A)
    _, _, held = await one.request()
    for _ in range(3):
        written = await one.add(B)
        node_id, _, future = await one.request()
        assert node_id == 2
        future.set_result(stored(1))
        await written
    held.set_result(stored(0))
    await one.sender.close()


async def test_nothing_is_looked_at_while_nothing_is_queued():
    one = Producing(Brokers({A: 1}))
    drained = one.queue.drain_by_nodes
    calls = []
    one.queue.drain_by_nodes = lambda *args: calls.append(args) or drained(*args)
    await one.sender.start()
    await some_turns()
    written = await one.add(A)
    _, _, future = await one.request()
    future.set_result(stored(0))
    await written
    await some_turns(100)
    assert len(calls) == 3, "at the start, for the record, and after its request"
    await one.sender.close()


async def test_records_without_a_leader_wait_for_one_and_ask_once():
    one = Producing(Brokers({A: -1, B: 1}))
    await one.sender.start()
    waiting = await one.add(A)
    for _ in range(3):
        written = await one.add(B)
        _, _, future = await one.request()
        future.set_result(stored(1))
        await written
    assert len(one.brokers.updates) == 1
    one.brokers.lead({A: 2, B: 1})
    one.brokers.updates[0].set_result(True)
    node_id, _, future = await one.request()
    assert node_id == 2
    future.set_result(stored(0))
    assert (await waiting).offset == 3
    await one.sender.close()


async def test_brokers_that_know_no_leader_are_asked_again_after_a_while():
    one = Producing(Brokers({A: -1}))
    one.sender._retry_backoff = 3600.0
    await one.sender.start()
    await one.add(A)
    await some_turns()
    one.brokers.updates[0].set_result(False)
    await some_turns(100)
    assert len(one.brokers.updates) == 1
    one.sender._look_again()
    assert len(one.brokers.updates) == 2
    one.queue.fail_all(KafkaError())
    await one.sender.close()


async def test_an_error_that_ends_the_producer_fails_all_that_is_queued(monkeypatch):
    one = Producing(Brokers({A: 1, B: 1}))

    async def fails(node_id, batches):
        raise OutOfOrderSequenceNumber

    monkeypatch.setattr(one.sender, "_send_produce_req", fails)
    monkeypatch.setattr(one.numbers, "fatal_error", lambda error: None)  # of transactions, which there are none of
    await one.sender.start()
    written = await one.add(A)
    with pytest.raises(OutOfOrderSequenceNumber):
        await asyncio.wait_for(one.sender.sender_task, SOON_S)
    with pytest.raises(OutOfOrderSequenceNumber):
        await written
    with pytest.raises(OutOfOrderSequenceNumber):
        await one.add(B)


async def test_what_is_under_way_is_waited_for_at_the_end():
    one = Producing(Brokers({A: 1}))
    await one.sender.start()
    written = await one.add(A)
    _, _, future = await one.request()
    closing = asyncio.ensure_future(one.sender.close())
    await some_turns()
    assert not closing.done()
    future.set_result(stored(0))
    await asyncio.wait_for(closing, SOON_S)
    assert (await written).offset == 3
