"""A Faust app with this project's plug points and the settings that they need."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import faust
import mode
from aiokafka import AIOKafkaProducer
from faust.app.base import BootStrategy
from faust.types import TP

from clipper_agents.kafka import aiokafka_patches
from clipper_agents.kafka.broker_tasks import FetchPace
from clipper_agents.kafka.reader import LogReader
from clipper_agents.kafka.retry import WORKERS, retry
from clipper_agents.kafka.topic_ids import CREATE, TopicIds
from clipper_agents.streaming.consumer import METADATA_MAX_AGE_S, GroupConsumer
from clipper_agents.streaming.membership import SESSION_S, OwnershipLease
from clipper_agents.streaming.outbox import Outbox, make_batch_producer
from clipper_agents.streaming.reachability import watch_brokers
from clipper_agents.streaming.storage import not_started
from clipper_agents.streaming.stream import ChunkStream
from clipper_agents.streaming.table import TransactionalTable
from clipper_stream.client.kafka import stop
from clipper_topics.catalogue import LARGEST_RECORD_BYTES
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)


LEAVE_S = 5.0
Restore = Callable[[set[int]], Awaitable[None]]
"""Called with the partitions that this process owns now, while no input is delivered."""


class TaskRunner(Protocol):
    """Runs work beside the agents: a `ClipperApp`, which crashes when such work fails."""

    def watched(self, work: Coroutine[Any, Any, None], /) -> asyncio.Task[None]: ...
    def watch(self, task: "asyncio.Future[Any]", /) -> None: ...


class StateLock:
    """Held while state changes: of one partition for a step, of all for recovery; no step waits for another's."""

    def __init__(self) -> None:
        self._partitions: dict[int, asyncio.Lock] = {}
        self._recovery = asyncio.Lock()

    @asynccontextmanager
    async def of(self, partition: int) -> AsyncIterator[None]:
        if partition not in self._partitions:
            async with self._recovery:  # so that none is new while all are held
                self._partitions.setdefault(partition, asyncio.Lock())
        async with self._partitions[partition]:
            yield

    @asynccontextmanager
    async def of_all(self) -> AsyncIterator[None]:
        async with self._recovery, AsyncExitStack() as held:
            for lock in self._partitions.values():
                await held.enter_async_context(lock)
            yield


class _Boot(BootStrategy):  # type: ignore[misc]
    """Faust's agents, with this project's member of the group in place of its consumer, producer and recovery."""

    enable_kafka = False

    def kafka_consumer(self) -> Iterable[Any]:
        return [self.app.consumer]


async def _no_positions() -> dict[TP, int]:
    return {}


class ClipperApp(faust.App):  # type: ignore[misc]
    """A Faust app whose agents are fed by a `GroupConsumer`, once its state is restored.

    Its name is the Faust app id and the consumer group. The directory is this process's own, and made if it is missing.
    With its `instance`, its stable name in the group (KIP-345), a process that is back within the session timeout takes
    its partitions back without a rebalance.

    Attributes:
        restore_state: Called with the owned partitions before inputs flow, after tables are restored.
        state_positions: Start offsets of inputs whose position is stored with the state.
        state_lock: Held while state changes: by recovery, and by an agent for one step of a partition.
        inputs_flow: Set when the first recovery has ended.
        generation: Counts the times that partitions were given to this process; -1 from the moment that they are taken
            away until the state of the next ones is restored. Kafka's own generation is not enough: a static member
            that joins again may get the same one, and it is there before the state is.
        inputs: Numbers of the partitions that this process reads, or is about to read, once their state is restored.
        outgrown: Whether the process drains because it has too much memory: it ends as a failure.
        rebalances: Counts both the beginnings and the ends of rebalances.

    Raises:
        StorageRefused, StorageFailed: the directory cannot be made.
    """

    BootStrategy = _Boot
    consumer: GroupConsumer
    restore_state: Restore | None = None
    state_positions: Callable[[], Awaitable[dict[TP, int]]] = staticmethod(_no_positions)
    generation: int = -1
    inputs: frozenset[int] = frozenset()
    outgrown: bool = False
    rebalances: int = 0
    _generations: int = 0

    def __init__(self, name: str, kafka: KafkaConnection, data_dir: Path, instance: str) -> None:
        try:
            data_dir.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise not_started(data_dir, error) from error
        aiokafka_patches.install()
        super().__init__(
            name,
            store="memory://",
            datadir=str(data_dir),
            Stream=ChunkStream,
            web_enabled=False,
            topic_disable_leader=True,
            agent_supervisor=mode.CrashingSupervisor,  # our own bug ends the process; redelivery follows
        )
        self.kafka, self.consumer = kafka, GroupConsumer(self, kafka, instance)
        self.log_reader = LogReader(kafka, policy=WORKERS)
        self.state_lock, self.inputs_flow = StateLock(), asyncio.Event()
        self.topic_ids, self.pace, self.lease = TopicIds(), FetchPace(), OwnershipLease(SESSION_S)

    def begin_generation(self) -> None:
        """The state of the owned partitions is restored, and records are delivered from now on."""
        self.generation = self._generations
        self._generations += 1

    def end_generation(self) -> None:
        """Partitions are revoked, and what is under way no longer counts."""
        self.rebalances += 1
        self.generation = -1
        self.lease.ended()

    def unready(self) -> list[str]:
        """Say in sentences why no inputs flow, empty when they do; any thread may ask."""
        if missing := sorted(self.topic_ids.missing):
            return [f"topic {', '.join(missing)} is missing: {CREATE}"]
        if self.generation < 0:
            found = [f"partition {number} is not recovered yet" for number in sorted(self.inputs)]
            return found or ["no partition is assigned yet"]
        if not self.lease.is_confirmed:
            return ["the coordinator of its group does not answer: is a broker away, or cut off?"]
        return [] if self.inputs else ["no partition is assigned: there are more such processes than partitions"]

    @cached_property
    def outbox(self) -> Outbox:
        """Sends prepared batches through the app's producer; it may be built with before the app has started."""
        return Outbox(self.kafka_producer)

    @cached_property
    def kafka_producer(self) -> AIOKafkaProducer:
        """The one producer of the process, here before it is started, so that whatever sends can be built with it."""
        age_ms = int(METADATA_MAX_AGE_S * 1000)
        return make_batch_producer(self.kafka, metadata_max_age_ms=age_ms, max_request_size=LARGEST_RECORD_BYTES)

    async def maybe_start_producer(self) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Connect the producer, as soon as Kafka is there: it may go away between the first look at it and now."""
        if self.kafka_producer._sender.sender_task is None:
            await retry("start of the producer", self.kafka_producer.start)

    async def restore(self, partitions: set[int]) -> None:
        """Restore the state of the owned partitions: tables first, then the app's own."""
        began = time.monotonic()
        for table in self.tables.values():
            if count := await table.restore(self.log_reader, partitions):
                logger.info("restored table=%s partitions=%d records=%d", table.name, len(partitions), count)
        if self.restore_state is not None:
            await self.restore_state(partitions)
        if partitions:
            logger.info("recovery done partitions=%d seconds=%.2f", len(partitions), time.monotonic() - began)

    async def _wait_for_table_recovery_completed(self) -> bool:
        return bool(await self.wait_for_stopped(self.inputs_flow))

    async def _stop_consumer(self) -> None:
        """Leave it to the consumer itself, which stops after the agents."""

    async def on_shutdown(self) -> None:
        """Disconnect the producer, after all that uses it."""
        await super().on_shutdown()
        await stop(self.kafka_producer)

    def owned_partitions(self, topic: str) -> list[int]:
        return sorted(tp.partition for tp in self.consumer.assignment() if tp.topic == topic)

    def watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside the agents; when it fails, the app crashes and the process ends."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self.watch)
        return task

    def watch(self, task: "asyncio.Future[Any]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._crashing = asyncio.get_running_loop().create_task(self.crash(error))

    async def leave(self) -> None:
        """Stop the app, and wait `LEAVE_S` at most for the last commit: what is not committed is read again."""
        stopping = asyncio.ensure_future(self.stop())
        await asyncio.wait([stopping], timeout=LEAVE_S)
        if stopping.done():
            stopping.result()
        else:
            logger.warning("left without a last commit seconds=%.0f", LEAVE_S)

    def watch_brokers(self, reachable: Callable[[bool], None]) -> "asyncio.Task[None]":
        """Watch whether Kafka answers, and call `reachable` after each attempt; needs a started producer."""
        return self.watched(watch_brokers(self.kafka_producer.client, reachable, self.topic_ids))


_LIBRARY = logging.getLogger("faust.services")
"""Where Faust's own log lines go: under `faust`, where they are filtered like those of any library. mode would name
them after our modules, and the start and stop of every service would stand among the few lines of this project."""
for _service in (ClipperApp, ChunkStream, TransactionalTable, GroupConsumer):
    _service.logger = _LIBRARY
