"""Faust's consumer thread without a thread: the group's member, on the app's own event loop.

Rules of this file:
- Beside a committed offset stands the topic's id: what was committed for an earlier topic of the name does not count.
- Only committed records are read.
- What is written needs an answer of the group to a heartbeat of the last half of a session; else it waits for one, or
  for the end of the generation, and with that is dropped. So a process that stood still or was cut off answers nothing
  that another one may have answered meanwhile.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any

from aiokafka.errors import ConsumerStoppedError, InvalidSessionTimeoutError, KafkaError
from aiokafka.protocol.group import JoinGroupRequest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from clipper_agents.kafka.aiokafka_patches import LeanKeys
from clipper_agents.kafka.consumer_groups import member_instances
from clipper_agents.kafka.errors import SESSION_REFUSED, BrokerLimit

logger = logging.getLogger(__name__)

STAND_BY_S = 1.0
"""How often a process that another one of its name has thrown out looks whether that one is gone."""
FETCH_MAX_WAIT_MS = 100
"""At most so long a newly resumed partition waits for a fetch that is under way without it."""
PREFETCH_BACKOFF_S = 0.005
"""aiokafka holds back fetches from a broker while it has undrained records of it; its default is 0.1 s."""


class OwnershipLease:
    """Knows whether the group counts on this process, so that nobody else has its partitions.

    The answer to a heartbeat holds for half a session from when that was sent: the group waits for a whole one, and
    what is written until then has the other half to reach the broker.

    Args:
        session_s: After so long without a sign of a member, its group gives its partitions to others.
        clock: Monotonic seconds, which pass while the process stands still.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._holds_s, self._clock = session_s / 2, clock
        self._until_s, self._has_ended = -math.inf, False
        self._heard = asyncio.Event()

    @property
    def is_confirmed(self) -> bool:
        """Whether the last answer of the group still holds."""
        return self._clock() < self._until_s

    def answered(self, sent_s: float) -> None:
        """The group knows this member, by the answer to a heartbeat that was sent at this time of the clock."""
        self._until_s, self._has_ended = sent_s + self._holds_s, False
        if self.is_confirmed:
            self._heard.set()

    def ended(self) -> None:
        """The generation has ended: what waited for an answer of the group is not written any more."""
        self._has_ended = True
        self._heard.set()

    async def confirmed(self) -> None:
        """Wait until the partitions are this process's own for certain, or its generation has ended."""
        if not self.is_confirmed and not self._has_ended:
            self._heard.clear()
            await self._heard.wait()


class InlineConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread without the thread: aiokafka's consumer runs on the app's own event loop.

    There is no hand-over of the interpreter lock then, and a call returns what is true now.
    """

    def __init__(self, *args: Any, loop: asyncio.AbstractEventLoop | None = None, **kwargs: Any) -> None:
        own = loop or asyncio.get_event_loop()
        super().__init__(*args, loop=own, thread_loop=own, **kwargs)
        self._was_member = self._stands_by = False

    async def start(self) -> None:
        """Start on this loop."""
        self._thread_started.set()
        await self._default_start()
        await self.on_thread_started()

    async def stop(self) -> None:
        """Stop on this loop."""
        if not self._stopped.is_set():
            self._stopped.set()
            await self.on_thread_stop()
            self.set_shutdown()
            await self._default_stop_futures()

    async def call_thread(self, fun: Any, *args: Any, **kwargs: Any) -> Any:
        """Call the function on this loop and return its result."""
        result = fun(*args, **kwargs)
        return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result

    async def getmany(self, active_partitions: Any, timeout: float) -> dict[Any, list[Any]]:
        """Return the records of these partitions that were fetched, after a time without any at the latest."""
        consumer = self._ensure_consumer()
        fetcher, most = consumer._fetcher, consumer._max_poll_records
        found: dict[Any, list[Any]] = {}
        with fetcher._subscriptions.fetch_context():
            for wait_s in (timeout, 0):
                if not self.consumer.flow_active:
                    return {}
                if consumer._closed or fetcher._closed:
                    raise ConsumerStoppedError
                found = await fetcher.fetched_records(active_partitions, 0, most)
                if found or not wait_s:
                    break
                await fetcher.wait_for_records(wait_s)
        return found

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        consumer._fetch_max_wait_ms = FETCH_MAX_WAIT_MS
        consumer._isolation_level = "read_committed"
        consumer._key_deserializer = LeanKeys(self.consumer.empty)
        consumer.commit = partial(self._commit_with_ids, consumer.commit)
        return consumer

    async def _commit_with_ids(self, commit: Any, offsets: Mapping[Any, tuple[int, str]]) -> None:
        ids = self.consumer.app.topic_ids.known
        await commit({tp: (offset, ids[tp.topic].hex()) for tp, (offset, _) in offsets.items()})

    async def seek_to_committed(self) -> dict[Any, int]:
        """Return the committed offsets of the partitions of this process, of the topics that are there now."""
        return await self.committed_offsets(self._ensure_consumer().assignment())

    async def committed_offsets(self, partitions: Collection[Any]) -> dict[Any, int]:
        """Return what the group has committed of partitions, of the topics that are there now."""
        consumer, ids = self._ensure_consumer(), self.consumer.app.topic_ids
        await ids.learn(consumer._client, {tp.topic for tp in partitions})
        found: dict[Any, int] = {}
        for tp, (offset, topic_id) in (await consumer._coordinator.fetch_committed_offsets(partitions)).items():
            if topic_id in ("", ids.known[tp.topic].hex()):
                found[tp] = offset
            else:
                logger.warning(
                    "committed for an earlier topic of this name topic=%s partition=%d offset=%d", *tp, offset
                )
        return found

    async def on_start(self) -> None:
        """Start the consumer."""
        await super().on_start()
        consumer = self._ensure_consumer()
        consumer._fetcher._prefetch_backoff = PREFETCH_BACKOFF_S
        consumer._fetcher.pause_s = self.consumer.app.pace.pause_s
        coordinator = consumer._coordinator
        coordinator._do_rejoin_group = partial(self._join, coordinator, coordinator._do_rejoin_group)
        coordinator._do_heartbeat = partial(self._beat, coordinator._do_heartbeat)

    async def _beat(self, beat: Callable[[], Awaitable[bool]]) -> bool:
        sent_s = time.monotonic()
        if is_member := await beat():
            self.consumer.app.lease.answered(sent_s)
        return is_member

    async def _join(self, coordinator: Any, join: Any, subscription: Any) -> bool:
        """Join the group, but not while another process has the instance name that this one had.

        Kafka takes a process of the same name for the same one, started again. So two would throw each other out for
        ever, and neither would serve if a takeover lasts longer than that.
        """
        instance, group = self.consumer.app.conf.consumer_group_instance_id, coordinator.group_id
        lost = self._was_member and coordinator.member_id == JoinGroupRequest.UNKNOWN_MEMBER_ID
        taken: bool | None = None
        with contextlib.suppress(KafkaError):  # an outage, in which the coordinator is looked for again
            taken = lost and instance in await member_instances(coordinator._send_req, group)
        if taken and not self._stands_by:
            logger.error(
                "another process runs as instance=%s group=%s: this one waits until it has ended; "
                "give each its own --instance", instance, group,
            )  # fmt: skip
        self._stands_by = bool(taken)
        if taken is not False:
            await asyncio.sleep(STAND_BY_S)
            return False
        sent_s = time.monotonic()
        try:
            joined = bool(await join(subscription))
        except InvalidSessionTimeoutError:  # aiokafka would end its task, and nothing else
            await self.consumer.crash(BrokerLimit(SESSION_REFUSED))
            return False
        if joined:
            self._was_member = True
            self.consumer.app.lease.answered(sent_s)
        return joined

    def hold(self, partitions: Iterable[TP]) -> None:
        """Pause partitions for good: changelogs, which a `LogReader` reads in bulk."""
        self._ensure_consumer().pause(*(driver.ensure_aiokafka_TP(tp) for tp in partitions))
