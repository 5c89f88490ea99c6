"""aiokafka's fetcher with few tasks and few wake-ups, which are most of what a lone record costs.

aiokafka begins a task for each request. A further one waits for all of them, is woken by each answer, and again when
its records were taken, and looks at each partition each time.

Rules of this file:
- The task that fetches from a broker goes on by itself, as long as fetching is all there is to do. Whatever else may be
  to do (positions to be found, other leaders, nothing to fetch) ends it, and is aiokafka's.
- Brokers that know no leader of a partition are asked again only after a while.
- After a fetch that brought many records the next one waits a little.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from aiokafka import errors
from aiokafka.consumer import consumer, fetcher
from aiokafka.producer import producer, sender
from aiokafka.util import create_task

from clipper_agents.kafka.fetch_sessions import FetchSession, PackedProduceRequest, SessionFetchRequest, Wanted

logger = logging.getLogger(__name__)

MOST_PAUSE_S = 0.008
"""Waits of 16 ms were no better."""
OBJECTIVE_SHARE = 0.1
"""Of the tightest latency objective, which a wait is at most."""
PAUSE_A_RECORD_S = 20e-6
"""Of the round before, but its first: about what a router needs for a query."""


class BrokerFetcher(fetcher.Fetcher):  # type: ignore[misc]  # aiokafka is untyped
    """aiokafka's fetcher, with a session and a task for each broker.

    Attributes:
        pause_s: Says how long a broker is asked for nothing after it gave records, in seconds.
        sleep: Waits so long; tests give another one.
    """

    pause_s: Callable[[], float] = staticmethod(lambda: 0.0)
    sleep: Callable[[float], Awaitable[None]] = staticmethod(asyncio.sleep)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._sessions: dict[int, FetchSession] = {}
        self._leaders: set[int | None] = set()
        """Brokers that lead a partition of this consumer."""
        self._serving: set[int] = set()
        """Those that have a task which goes on by itself."""
        self._until_taken: set[asyncio.Future[None]] = set()
        super().__init__(*args, **kwargs)

    async def wait_for_records(self, timeout_s: float) -> None:
        """Wait until records were fetched, or the time is up.

        Raises:
            KafkaError: this consumer may not read.
        """
        await self._within(timeout_s, self._create_fetch_waiter())

    async def _proc_fetch_request(self, assignment: Any, node_id: int, request: Any) -> bool:
        """Fetch from a broker until there is something else to do."""
        request.session = self._sessions.setdefault(node_id, FetchSession())
        metadata = self._client.cluster._partitions
        leaders = {tp: self._select_read_replica(tp) for tp in assignment.tps}
        self._leaders = {*leaders.values()}
        partitions = [(tp, assignment.state_value(tp)) for tp, leader in leaders.items() if leader == node_id]
        this: Any = asyncio.current_task()
        self._serving.add(node_id)
        try:
            while True:
                if await super()._proc_fetch_request(assignment, node_id, request):
                    for waiter in self._fetch_waiters:
                        self._notify(waiter)
                    if pause_s := self.pause_s():
                        await self.sleep(pause_s)
                is_same = self._client.cluster._partitions is metadata and not self._preferred_read_replica
                if not is_same or not assignment.active or this.cancelling():
                    return False
                wanted = await self._next_wanted(partitions)
                if not wanted:
                    return False
                request = SessionFetchRequest.of(request, wanted)
        except asyncio.CancelledError:  # the partitions are taken away, or the consumer is closed
            return False
        finally:
            self._serving.discard(node_id)

    async def _next_wanted(self, partitions: list[tuple[Any, Any]]) -> Wanted:
        """Return what to fetch next of a broker's partitions, once the records of the last fetch were taken."""
        while True:
            wanted: Wanted = {}
            backoff_s = 0.0
            for tp, state in partitions:
                if tp in self._records:
                    backoff_s = max(backoff_s, self._records[tp].calculate_backoff())
                elif state._position is None:
                    return {}
                elif not state._paused:
                    wanted[tp] = state._position, self._max_partition_fetch_bytes
            if not backoff_s:
                return wanted
            await self._records_taken(backoff_s)

    async def _records_taken(self, timeout_s: float) -> None:
        taken = self._loop.create_future()
        self._until_taken.add(taken)
        try:
            await self._within(timeout_s, taken)
        finally:
            self._until_taken.discard(taken)

    async def _within(self, timeout_s: float, future: asyncio.Future[None]) -> None:
        timer = self._loop.call_later(timeout_s, _end, future)
        try:
            await future
        finally:
            timer.cancel()

    def _notify(self, future: Any) -> None:
        """Wake who waits for a future of aiokafka's; its own task only where a broker has none that goes on."""
        if future is not None and future is self._wait_consume_future:
            for taken in self._until_taken:
                _end(taken)
            if self._serving >= self._leaders:
                return
        super()._notify(future)


class PacedSender(sender.Sender):  # type: ignore[misc]  # aiokafka is untyped
    """aiokafka's sender, but brokers that know no leader are asked again only after a while.

    A broker that is away is found out at once: aiokafka would try to connect 3,000 times a second. And a connection
    that ends while a coordinator is looked up is no end of the producer.
    """

    def __init__(self, client: Any, *args: Any, **kwargs: Any) -> None:
        super().__init__(client, *args, **kwargs)
        self._looking: asyncio.Task[None] | None = None
        self._update_metadata, self.client = client.force_metadata_update, _Paced(client, self._look)

    def _look(self) -> asyncio.Task[None]:
        if self._looking is None or self._looking.done():
            self._looking = create_task(self._look_once())
        return self._looking

    async def _look_once(self) -> None:
        await self._update_metadata()
        await asyncio.sleep(self._retry_backoff)


class _Paced:
    def __init__(self, client: Any, look: Callable[[], asyncio.Task[None]]) -> None:
        self._client, self.force_metadata_update = client, look

    async def coordinator_lookup(self, kind: Any, key: str) -> Any:
        try:
            return await self._client.coordinator_lookup(kind, key)
        except errors.KafkaConnectionError as error:
            raise errors.NodeNotReadyError from error  # which is tried again

    def __getattr__(self, name: str) -> Any:
        return getattr(self._client, name)


class FetchPace:
    """Says how long the next fetch waits, which costs the same however few records it brings.

    Where records come one by one, each is fetched at once. Where a round brought many, the next one waits about as long
    as the work for them takes: so rounds grow with the load, and what a record costs falls before the process is full.

    Attributes:
        records: How many the last round brought.
    """

    def __init__(self) -> None:
        self.records, self._most_s = 0, MOST_PAUSE_S

    def keep(self, objectives_s: Iterable[float | None]) -> None:
        """Keep waits within a share of these latency objectives, in seconds; None: there is none."""
        bounds_s = [objective_s * OBJECTIVE_SHARE for objective_s in objectives_s if objective_s is not None]
        self._most_s = min([MOST_PAUSE_S, *bounds_s])

    def pause_s(self) -> float:
        return min(self._most_s, PAUSE_A_RECORD_S * max(0, self.records - 1))


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def install_tasks() -> None:
    """Have all clients of this process work so; a second call changes nothing."""
    consumer.Fetcher, fetcher.FetchRequest = BrokerFetcher, SessionFetchRequest
    producer.Sender, sender.ProduceRequest = PacedSender, PackedProduceRequest
