"""A Faust app with this project's plug points and the settings that they need."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, MutableMapping
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, cast

import faust
import mode
from aiokafka import AIOKafkaProducer
from faust.assignor import partition_assignor
from faust.assignor.client_assignment import CopartitionedAssignment
from faust.assignor.copartitioned_assignor import CopartitionedAssignor
from faust.sensors.monitor import Monitor
from faust.types import TP

from clipper_agents.kafka import aiokafka_patches
from clipper_agents.kafka.broker_tasks import FetchPace
from clipper_agents.kafka.reader import LogReader
from clipper_agents.kafka.retry import WORKERS
from clipper_agents.kafka.topic_ids import CREATE, TopicIds
from clipper_agents.streaming.consumer import BulkConsumer, BulkTransport
from clipper_agents.streaming.consumer_thread import InlineConsumerThread, OwnershipLease
from clipper_agents.streaming.outbox import MAX_BATCH_BYTES, Outbox, StrictProducer
from clipper_agents.streaming.reachability import watch_brokers
from clipper_agents.streaming.recovery import BulkRecovery, BulkTableManager, Restore, StateLock
from clipper_agents.streaming.storage import not_started
from clipper_agents.streaming.stream import ChunkStream
from clipper_agents.streaming.table import TransactionalTable
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)


COMMIT_INTERVAL_S = 0.25
"""Length of a redelivery after a crash."""
LEAVE_S = 5.0
SESSION_S = 10.0
REQUEST_TIMEOUT_S = 12.0
"""Of the group's consumer. A join waits for the others, up to 10 s, so it is longer than that; and a frozen coordinator
holds up a heartbeat for so long, so it is not much longer: the next coordinator waits 10 s for a sign."""


class TaskRunner(Protocol):
    """Runs work beside the agents: a `ClipperApp`, which crashes when such work fails."""

    def watched(self, work: Coroutine[Any, Any, None], /) -> asyncio.Task[None]: ...
    def watch(self, task: "asyncio.Future[Any]", /) -> None: ...


class ClipperApp(faust.App):  # type: ignore[misc]
    """A Faust app that restores its state in bulk and sends in prepared batches.

    Attributes:
        log_reader: Reads ranges of topics, for recovery.
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
        topic_ids: The topics that it refers to; the app crashes when one of them is made anew.
        pace: How long fetches wait while the process is busy.
        lease: Whether the partitions are still this process's own.
    """

    log_reader: LogReader
    restore_state: Restore | None = None
    state_positions: Callable[[], Awaitable[dict[TP, int]]] | None = None
    state_lock: StateLock
    inputs_flow: asyncio.Event
    topic_ids: TopicIds
    pace: FetchPace
    lease: OwnershipLease
    generation: int = -1
    inputs: frozenset[int] = frozenset()
    outgrown: bool = False
    rebalances: int = 0
    _generations: int = 0

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

    @property
    def kafka_producer(self) -> AIOKafkaProducer:
        """The app's own producer, which the app starts and stops."""
        return cast("StrictProducer", self.producer).kafka_producer

    def owned_partitions(self, topic: str) -> list[int]:
        """The partitions of a topic that this process reads now."""
        return sorted(tp.partition for tp in self.consumer.assignment() if tp.topic == topic)

    def watched(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run a coroutine beside the agents; when it fails, the app crashes and the process ends."""
        task = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(self.watch)
        return task

    def watch(self, task: "asyncio.Future[Any]") -> None:
        """Crash with the task's error, if it has one."""
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

    def raw_topic(self, name: str) -> Any:
        """A topic whose keys and values are bytes."""
        return self.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


class SilentMonitor(Monitor):  # type: ignore[misc]
    """Faust's monitor without its work per message: this project's metrics are counted per batch."""

    def on_message_in(self, tp: Any, offset: Any, message: Any) -> None:
        """Count nothing."""

    def on_message_out(self, tp: Any, offset: Any, message: Any) -> None:
        """Count nothing."""


class StickyAssignor(CopartitionedAssignor):  # type: ignore[misc]  # Faust is untyped
    """Shares differ by one partition at most; when a member joins or leaves, none moves between two that stay.

    Faust's assignor cuts every member down to the smallest share and deals out what is left over, so that a third
    member also made the other two swap partitions: each of those stalls until its state is restored elsewhere. For
    apps without standby replicas (`table_standby_replicas=0`).
    """

    def get_assignment(self) -> MutableMapping[str, CopartitionedAssignment]:
        """Return the partitions of each member, from those that it had before."""
        self._unassign_overassigned(active=True)
        shares: MutableMapping[str, CopartitionedAssignment] = self._client_assignments
        members = sorted(shares.items(), key=lambda member: (-len(member[1].actives), member[0]))
        smallest, larger_ones = divmod(self.num_partitions, len(members))
        for place, (_, member) in enumerate(members):
            member.unassign_extras(smallest + (place < larger_ones), replicas=0)
        for partition in self._get_unassigned(active=True):
            _, least = min(members, key=lambda member: (len(member[1].actives), member[0]))
            least.assign_partition(partition, active=True)
        return shares


_LIBRARY = logging.getLogger("faust.services")
"""Where Faust's own log lines go: under `faust`, where they are filtered like those of any library. mode would name
them after our modules, and the start and stop of every service would stand among the few lines of this project."""
for _service in (
    *(ClipperApp, SilentMonitor, ChunkStream, TransactionalTable, BulkTableManager, BulkRecovery),
    *(BulkTransport, BulkConsumer, InlineConsumerThread, StrictProducer),
):
    _service.logger = _LIBRARY


def _credentials(kafka: KafkaConnection) -> Any:
    settings = kafka.aiokafka()
    context = settings.get("ssl_context")
    if "sasl_mechanism" in settings:
        return faust.SASLCredentials(
            username=settings["sasl_plain_username"],
            password=settings["sasl_plain_password"],
            mechanism=settings["sasl_mechanism"],
            ssl_context=context,
        )
    return faust.SSLCredentials(context=context) if context is not None else None


def make_app(name: str, kafka: KafkaConnection, data_dir: Path, instance: str) -> ClipperApp:
    """A Faust app for one worker process.

    Its name is the Faust app id and the consumer group. The directory is this process's own, and made if it is missing.
    With its `instance`, its stable name in the group (KIP-345), a process that is back within the session timeout takes
    its partitions back without a rebalance.

    Raises:
        StorageRefused, StorageFailed: the directory cannot be made.
    """
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise not_started(data_dir, error) from error
    aiokafka_patches.install()
    partition_assignor.CopartitionedAssignor = StickyAssignor  # pyright: ignore[reportPrivateImportUsage]
    app = ClipperApp(
        name,
        broker=[f"kafka://{address.strip()}" for address in kafka.bootstrap.split(",")],
        broker_credentials=_credentials(kafka),
        store="memory://",
        datadir=str(data_dir),
        Stream=ChunkStream,
        TableManager=BulkTableManager,
        Monitor=SilentMonitor,
        web_enabled=False,
        topic_disable_leader=True,
        topic_allow_declare=False,
        consumer_auto_offset_reset="none",
        consumer_group_instance_id=instance,
        consumer_metadata_max_age_ms=10_000,
        producer_metadata_max_age_ms=10_000,
        broker_commit_every=10**9,
        broker_commit_interval=COMMIT_INTERVAL_S,
        broker_session_timeout=SESSION_S,
        broker_heartbeat_interval=0.5,
        broker_rebalance_timeout=10.0,
        broker_request_timeout=REQUEST_TIMEOUT_S,
        producer_request_timeout=10.0,
        producer_linger=0,
        producer_max_batch_size=MAX_BATCH_BYTES,
        producer_max_request_size=8 << 20,
        stream_wait_empty=False,
        agent_supervisor=mode.CrashingSupervisor,  # our own bug ends the process; redelivery follows
        stream_recovery_delay=0.0,
        table_standby_replicas=0,
        recovery_consistency_check=False,
    )
    app.transport = BulkTransport(app.conf.broker_consumer, app)
    app.log_reader = LogReader(kafka, isolation_level="read_committed", policy=WORKERS)
    app.state_lock = StateLock()
    app.inputs_flow = asyncio.Event()
    app.topic_ids = TopicIds()
    app.pace = FetchPace()
    app.lease = OwnershipLease(SESSION_S)
    return app
