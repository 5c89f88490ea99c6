import asyncio
from collections.abc import Callable

import pytest
from aiokafka import TopicPartition
from aiokafka.client import CoordinationType
from aiokafka.cluster import ClusterMetadata
from aiokafka.consumer.subscription_state import SubscriptionState
from aiokafka.errors import KafkaConnectionError, KafkaError, OutOfOrderSequenceNumber
from aiokafka.producer.message_accumulator import MessageAccumulator
from aiokafka.producer.transaction_manager import TransactionManager
from aiokafka.protocol.fetch import FetchResponse_v11
from aiokafka.protocol.metadata import MetadataResponse_v1
from aiokafka.protocol.produce import ProduceResponse_v7
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from builders.kafka import settle

from clipper_agents.kafka.aiokafka_patches import install
from clipper_agents.kafka.broker_tasks import BrokerFetcher, PacedSender

A, B = TopicPartition("queries", 0), TopicPartition("queries", 1)
SOON_S = 10.0


class Brokers:
    """Stands in for aiokafka's client: each request is answered by hand."""

    _metadata_max_age_ms = 60_000

    def __init__(self, leaders):
        install()
        self._loop = asyncio.get_running_loop()
        self.cluster = ClusterMetadata(metadata_max_age_ms=60_000)
        self.lead(leaders)
        self.requests, self.updates = asyncio.Queue(), asyncio.Queue()
        self.coordinators: list[int | KafkaError] = []

    def lead(self, leaders):
        brokers = [(node, "localhost", 9092, None) for node in {*leaders.values()} - {-1}]
        partitions = [(0, tp.partition, node, [node], [node]) for tp, node in leaders.items()]
        self.cluster.update_metadata(MetadataResponse_v1(brokers, 0, [(0, A.topic, False, partitions)]))

    async def send(self, node_id, request):
        answer = self._loop.create_future()
        self.requests.put_nowait((node_id, request, answer))
        return await answer

    def force_metadata_update(self):
        update = self._loop.create_future()
        self.updates.put_nowait(update)
        return update

    async def _maybe_wait_metadata(self):
        pass

    async def coordinator_lookup(self, *_):
        found = self.coordinators.pop()
        if isinstance(found, KafkaError):
            raise found
        return found

    async def ready(self, *_, **__):
        return True


class Rig:
    named_in: Callable

    def __init__(self, leaders):
        self.brokers, self.under_way = Brokers(leaders), {}

    async def asked(self):
        """The next request: of which broker, and for what."""
        node_id, request, self.under_way[node_id] = await asyncio.wait_for(self.brokers.requests.get(), SOON_S)
        return node_id, self.named_in(request)

    async def is_quiet(self):
        await settle()
        return self.brokers.requests.empty()


# --- fetches --------------------------------------------------------------------------------------------------------
class Looking(BrokerFetcher):
    looks = 0

    def _get_actions_per_node(self, assignment):
        self.looks += 1
        return super()._get_actions_per_node(assignment)


class Reading(Rig):
    def __init__(self, leaders, positions, backoff_s=60):
        super().__init__(leaders)
        self.subscriptions = SubscriptionState()
        self.read_at(positions)
        self.fetcher = Looking(self.brokers, self.subscriptions, fetcher_timeout=60, prefetch_backoff=backoff_s)

    async def begun(self):
        await self.asked()
        return self

    def read_at(self, positions):
        self.subscriptions.assign_from_user({*positions})
        for tp, offset in positions.items():
            self.subscriptions.seek(tp, offset)

    def named_in(self, request):
        return {TopicPartition(*tp): offset for tp, (offset, _) in request.wanted.items()}

    def answer(self, found, node_id=1):
        """One record of each of these partitions, at an offset."""
        partitions = []
        for tp, offset in found.items():
            builder = DefaultRecordBatchBuilder(2, 0, 0, -1, -1, -1, 10_000)
            builder.append(0, 1_000, b"key", b"value", [])
            batch = bytearray(builder.build())
            batch[:8] = offset.to_bytes(8, "big")
            partitions.append((tp.partition, 0, offset + 1, offset + 1, 0, [], -1, bytes(batch)))
        self.under_way[node_id].set_result(FetchResponse_v11(0, 0, 5, [(A.topic, partitions)]))

    async def take(self):
        return [one.offset for found in (await self.fetcher.fetched_records([A])).values() for one in found]


async def test_the_task_of_a_broker_goes_on_when_its_records_were_taken():
    one = Reading({A: 1, B: 1}, {A: 5, B: 7})
    for offset in (5, 6, 7):
        assert await one.asked() == (1, {A: offset, B: 7})
        one.answer({A: offset})
        await one.fetcher.wait_for_records(SOON_S)
        assert await one.is_quiet(), "nothing is fetched before the records were taken"
        assert await one.take() == [offset]
    assert one.fetcher.looks == 1


async def test_what_is_not_taken_for_a_while_holds_up_no_other_partition():
    one = await Reading({A: 1, B: 1}, {A: 5, B: 7}, 0.01).begun()
    await one.fetcher.wait_for_records(0.01)
    assert await one.take() == [], "a wait without records ends in time"
    one.answer({A: 5})
    assert await one.asked() == (1, {B: 7})


async def test_a_paused_partition_is_left_out_and_a_resumed_one_fetched_again():
    one = await Reading({A: 1, B: 1}, {A: 5, B: 7}).begun()
    one.subscriptions.pause(B)
    one.answer({})
    assert await one.asked() == (1, {A: 5})
    one.subscriptions.pause(A)
    one.answer({})
    assert await one.is_quiet()
    one.subscriptions.resume(B)
    assert await one.asked() == (1, {B: 7})


async def test_another_position_is_fetched_from_wherever_it_was_set():
    one = Reading({A: 1, B: 2}, {A: 5, B: 7})
    await one.asked(), await one.asked()
    one.subscriptions.pause(B)
    one.answer({}, 2)
    await settle()
    one.fetcher.seek_to(A, 9)
    one.answer({A: 5})
    assert await one.asked() == (1, {A: 9}), "what was fetched for the earlier position is dropped"
    looks = one.fetcher.looks
    one.fetcher.seek_to(B, 3)
    await settle()
    assert one.fetcher.looks > looks, "the broker of this one has no task"
    one.subscriptions.resume(B)
    assert await one.asked() == (2, {B: 3})


async def test_new_leaders_are_asked_as_soon_as_they_are_known():
    one = await Reading({A: 1, B: 1}, {A: 5, B: 7}).begun()
    one.brokers.lead({A: 1, B: 2})
    one.answer({})
    assert dict([await one.asked(), await one.asked()]) == {1: {A: 5}, 2: {B: 7}}


async def test_a_consumer_that_has_other_partitions_fetches_no_more_of_the_earlier_ones():
    one = await Reading({A: 1, B: 1}, {A: 5}).begun()
    one.answer({A: 5})
    await one.fetcher.wait_for_records(SOON_S)
    one.subscriptions.unsubscribe()
    one.read_at({B: 7})
    assert await one.asked() == (1, {B: 7})


async def test_after_a_fetch_that_brought_records_the_next_one_waits():
    one, gate, pauses = Reading({A: 1}, {A: 5}), asyncio.Event(), []

    async def sleep(pause_s):
        pauses.append(pause_s)
        await gate.wait()

    one.fetcher.pause_s, one.fetcher.sleep = lambda: 0.004, sleep
    await one.asked()
    one.answer({})
    await one.asked()
    assert not pauses, "what brought nothing had waited at the broker"
    one.answer({A: 5})
    await one.fetcher.wait_for_records(SOON_S)
    assert await one.take() == [5], "they are served meanwhile"
    assert await one.is_quiet()
    assert pauses == [0.004]
    gate.set()
    assert await one.asked() == (1, {A: 6})


# --- produce --------------------------------------------------------------------------------------------------------
class Producing(Rig):
    def __init__(self, leaders, kind=PacedSender, backoff_ms=1):
        super().__init__(leaders)
        numbers = TransactionManager(None, 60_000)
        numbers.set_pid_and_epoch(7, 0)
        numbers.fatal_error = lambda error: None  # of a transaction, and there is none
        self.queue = MessageAccumulator(self.brokers.cluster, 10_000, 0, 60, txn_manager=numbers)
        self.sender = kind(
            self.brokers, acks=-1, txn_manager=numbers, message_accumulator=self.queue,
            retry_backoff_ms=backoff_ms, request_timeout_ms=1_000,
        )  # fmt: skip

    async def started(self):
        await self.sender.start()
        return self

    async def add(self, tp):
        return await self.queue.add_message(tp, None, b"value", 1.0)

    def named_in(self, request):
        return sorted(partition for topic, found in request._topics for partition, _ in found if topic == A.topic)

    def answer(self, *partitions, node_id=1):
        stored = [(partition, 0, 3, -1, 0) for partition in partitions]
        self.under_way[node_id].set_result(ProduceResponse_v7([(A.topic, stored)], 0))


async def test_records_of_one_turn_go_in_one_request_and_later_ones_follow_it():
    one = await Producing({A: 1, B: 1}).started()
    first = [await one.add(A), await one.add(B)]
    assert await one.asked() == (1, [0, 1])
    later = await one.add(A)
    assert await one.is_quiet(), "one request to a broker at a time"
    one.answer(0, 1)
    assert [(await found).offset for found in first] == [3, 3]
    assert await one.asked() == (1, [0])
    one.answer(0)
    assert (await later).offset == 3


async def test_records_without_a_leader_wait_for_one_and_ask_once():
    one = await Producing({A: -1, B: 1}).started()
    waiting = await one.add(A)
    for _ in range(3):
        written = await one.add(B)
        await one.asked()
        one.answer(1)
        await written
    update = one.brokers.updates.get_nowait()
    assert one.brokers.updates.empty()
    one.brokers.lead({A: 2, B: 1})
    update.set_result(True)
    assert await one.asked() == (2, [0])
    one.answer(0, node_id=2)
    assert (await waiting).offset == 3


@pytest.mark.parametrize(("backoff_ms", "is_asked"), [(3_600_000, False), (0, True)])
async def test_brokers_that_know_no_leader_are_asked_again_after_a_while(backoff_ms, is_asked):
    one = await Producing({A: -1}, backoff_ms=backoff_ms).started()
    await one.add(A)
    (await one.brokers.updates.get()).set_result(False)
    await settle()
    if is_asked:
        await asyncio.wait_for(one.brokers.updates.get(), SOON_S)
    assert one.brokers.updates.empty()
    await one.sender.close()


@pytest.mark.parametrize(
    ("error", "told"), [(OutOfOrderSequenceNumber, OutOfOrderSequenceNumber), (ValueError, KafkaError)]
)
async def test_an_error_that_ends_the_producer_fails_all_that_is_queued(error, told):
    class Failing(PacedSender):
        async def _send_produce_req(self, node_id, batches):
            raise error

    one = await Producing({A: 1, B: 1}, Failing).started()
    written = await one.add(A)
    for failed in (one.sender.sender_task, written, one.add(B)):
        with pytest.raises(told):
            await asyncio.wait_for(failed, SOON_S)


async def test_a_connection_that_ends_while_a_coordinator_is_looked_up_does_not_end_the_producer():
    one = Producing({A: 1})
    one.brokers.coordinators = [1, KafkaConnectionError()]
    known = asyncio.ensure_future(one.sender._find_coordinator(CoordinationType.TRANSACTION, "router-0"))
    (await asyncio.wait_for(one.brokers.updates.get(), SOON_S)).set_result(True)
    assert await asyncio.wait_for(known, SOON_S) == 1


async def test_what_is_under_way_is_waited_for_at_the_end():
    one = await Producing({A: 1}).started()
    written = await one.add(A)
    await one.asked()
    closing = asyncio.ensure_future(one.sender.close())
    await settle()
    assert not closing.done()
    one.answer(0)
    await asyncio.wait_for(closing, SOON_S)
    assert (await written).offset == 3
