"""Faust's consumer thread without a thread: the group's member, on the app's own event loop.

Rules of this file:
- Beside a committed offset stands the topic's id: what was committed for an earlier topic of the name does not count.
- Only committed records are read.
- A process that stood still for half a session asks before it writes: its group has to answer a heartbeat that was sent
  since, or the generation ends, and with it what was to be written. A coordinator that does not answer is no reason to
  wait by itself: nobody else gets the partitions meanwhile.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from aiokafka.errors import ConsumerStoppedError, InvalidSessionTimeoutError, KafkaError
from aiokafka.protocol.group import JoinGroupRequest
from faust.transport.drivers import aiokafka as driver
from faust.types import TP

from clipper_agents.kafka.aiokafka_patches import LeanKeys
from clipper_agents.kafka.consumer_groups import member_instances
from clipper_agents.kafka.errors import SESSION_REFUSED, BrokerLimit
from clipper_agents.streaming.faust_logs import LIBRARY

logger = logging.getLogger(__name__)

STAND_BY_S = 1.0
"""How often a process that another one of its name has thrown out looks whether that one is gone."""
FETCH_MAX_WAIT_MS = 100
"""At most so long a newly resumed partition waits for a fetch that is under way without it."""
PREFETCH_BACKOFF_S = 0.005
"""aiokafka holds back fetches from a broker while it has undrained records of it; its default is 0.1 s."""
TURN_S = 1.0
"""How often the event loop shows that it runs."""


class Membership:
    """Knows whether this process stood still, and whether its group has answered since.

    Args:
        session_s: After so long without a sign of a member, its group gives its partitions to others.
        clock: Monotonic seconds, which pass while the process stands still.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_s, self._clock = session_s / 2, clock
        self._turned_s = self._woke_s = clock()
        self._confirmed = asyncio.Event()
        self._confirmed.set()

    def watch_loop(self) -> None:
        """Have the running event loop show from now on that it runs."""
        self._look()
        asyncio.get_running_loop().call_later(TURN_S, self.watch_loop)

    def answered(self, sent_s: float) -> None:
        """The group knows this member, by the answer to a heartbeat that was sent at this time of the clock."""
        if sent_s >= self._woke_s:
            self._confirmed.set()

    def ended(self) -> None:
        """The generation has ended: what waited for an answer of the group is not written any more."""
        self._confirmed.set()

    async def confirmed(self) -> None:
        """Wait until the partitions are this process's own for certain, or its generation has ended."""
        self._look()
        await self._confirmed.wait()

    def _look(self) -> None:
        now_s = self._clock()
        if now_s - self._turned_s >= self._longest_s:
            self._woke_s = now_s
            self._confirmed.clear()
        self._turned_s = now_s


class InlineConsumerThread(driver.AIOKafkaConsumerThread):  # type: ignore[misc]
    """Faust's consumer thread without the thread: aiokafka's consumer runs on the app's own event loop.

    There is no hand-over of the interpreter lock then, and a call returns what is true now.
    """

    logger = LIBRARY

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
        consumer, ids = self._ensure_consumer(), self.consumer.app.topic_ids
        partitions = consumer.assignment()
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
        self.consumer.app.membership.watch_loop()

    async def _beat(self, beat: Callable[[], Awaitable[bool]]) -> bool:
        sent_s = time.monotonic()
        if is_member := await beat():
            self.consumer.app.membership.answered(sent_s)
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
        try:
            joined = bool(await join(subscription))
        except InvalidSessionTimeoutError:  # aiokafka would end its task, and nothing else
            await self.consumer.crash(BrokerLimit(SESSION_REFUSED))
            return False
        self._was_member |= joined
        return joined

    def hold(self, partitions: Iterable[TP]) -> None:
        """Pause partitions for good: changelogs, which a `LogReader` reads in bulk."""
        self._ensure_consumer().pause(*(driver.ensure_aiokafka_TP(tp) for tp in partitions))
