"""aiokafka's fetcher and sender with few tasks and few wake-ups, which are most of what a lone record costs.

aiokafka begins a task for each request. Two further ones wait for all of them, are woken by each answer, and again when
its records were taken, and look at each partition each time.

Rules of this file:
- The task that fetches from a broker goes on by itself, as long as fetching is all there is to do. Whatever else may be
  to do (positions to be found, other leaders, nothing to fetch) ends it, and is aiokafka's.
- A request to store records begins when they are queued. Those of one turn of the event loop go in one.
- A busy process waits a little between fetches that brought records.
- A producer with a transactional id has aiokafka's own sender.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from aiokafka.consumer import consumer, fetcher
from aiokafka.errors import KafkaError, OutOfOrderSequenceNumber, ProducerFenced, TransactionalIdAuthorizationFailed
from aiokafka.producer import producer, sender
from aiokafka.util import create_task

from clipper_agents.kafka.fetch_sessions import FetchSession, PackedProduceRequest, SessionFetchRequest, Wanted

logger = logging.getLogger(__name__)

MOST_PAUSE_S = 0.008
"""Waits of 2 ms changed nothing where a round costs as much; 16 ms were no better than 8."""
OBJECTIVE_SHARE = 0.1
"""Of the tightest latency objective, or of a model's target, which a wait is at most."""
BUSY_SHARE = 0.5
"""Of a processor that the process has or waits for, from which on fetches wait."""
FULL_SHARE = 0.7
"""From which on they wait the longest."""
WINDOW_S = 0.1
"""Over which the use of the processor is measured."""
SCHEDULED = Path("/proc/self/schedstat")
"""Of the main thread, which has the event loop: nanoseconds on a processor, nanoseconds ready and without one."""


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
        """Wait until records were taken, or the time is up."""
        taken = self._loop.create_future()
        self._until_taken.add(taken)
        try:
            await self._within(timeout_s, taken)
        finally:
            self._until_taken.discard(taken)

    async def _within(self, timeout_s: float, future: asyncio.Future[None]) -> None:
        """Wait for a future, and end it when the time is up."""
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


class EagerSender(sender.Sender):  # type: ignore[misc]
    """aiokafka's sender, which begins a request as soon as there are records for a broker that has none under way."""

    async def _sender_routine(self) -> None:
        if self._txn_manager is not None and self._txn_manager.transactional_id is not None:
            await super()._sender_routine()
            return
        await self._maybe_wait_for_pid()
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._requests: set[asyncio.Task[None]] = set()
        self._queued = self._message_accumulator.waiter()
        self._looks_for_leader = False
        self._start_requests()
        try:
            await self._failed
        except asyncio.CancelledError:
            for request in [*self._requests]:
                await request
        except (ProducerFenced, OutOfOrderSequenceNumber, TransactionalIdAuthorizationFailed):
            raise
        except Exception as error:
            logger.exception("unexpected error while sending")
            raise KafkaError("Unexpected error during batch delivery") from error

    def _start_requests(self, _: Any = None) -> None:
        """Begin a request to each broker that has none under way and for which records are queued."""
        if self._failed.done():
            return
        queue = self._message_accumulator
        self._queued.remove_done_callback(self._start_requests)  # taking records ends this wait as well
        batches, is_leader_unknown = queue.drain_by_nodes(self._in_flight, self._muted_partitions)
        self._queued = queue.waiter()
        self._queued.add_done_callback(self._start_requests)
        for node_id, node_batches in batches.items():
            self._in_flight.add(node_id)
            self._muted_partitions.update(node_batches)
            request = create_task(self._send_produce_req(node_id, node_batches))
            self._requests.add(request)
            request.add_done_callback(self._ended)
        if is_leader_unknown and not self._looks_for_leader:
            self._looks_for_leader = True
            self.client.force_metadata_update().add_done_callback(self._leader_looked_for)

    def _leader_looked_for(self, _: Any) -> None:
        """Send what has a leader now, and look again only after a while: a broker that is away is found out at once."""
        self._start_requests()
        asyncio.get_running_loop().call_later(self._retry_backoff, self._look_again)

    def _look_again(self) -> None:
        self._looks_for_leader = False
        self._start_requests()

    def _ended(self, request: asyncio.Task[None]) -> None:
        self._requests.discard(request)
        if self._failed.done() or request.cancelled():
            return
        if (error := request.exception()) is not None:
            self._failed.set_exception(error)
        else:
            self._start_requests()


def processor_wanted_s() -> float:
    """For how long the event loop had a processor or was waiting for one, which others had, in seconds.

    Systems other than Linux tell only how long this process had one.
    """
    try:
        had_ns, waited_ns, _ = map(int, SCHEDULED.read_text().split())
    except (OSError, ValueError):
        return time.process_time()
    return (had_ns + waited_ns) / 1e9


class FetchPace:
    """Says how long a fetch waits until it is worth its price, which is the same however many records it brings.

    A process that is idle fetches at once. From half of a processor on it waits a little, so that the price of a record
    falls as the load rises, and a busy process does not tip over.

    Args:
        clock: Monotonic seconds.
        wanted: As `processor_wanted_s`.
    """

    def __init__(
        self, clock: Callable[[], float] = time.monotonic, wanted: Callable[[], float] = processor_wanted_s
    ) -> None:
        self._most_s, self._clock, self._wanted = MOST_PAUSE_S, clock, wanted
        self._since_s, self._wanted_s = clock(), wanted()
        self._share = 0.0

    def keep(self, objectives_s: Iterable[float | None]) -> None:
        """Keep waits within a share of these objectives or targets of latency, in seconds; None: there is none."""
        bounds_s = [objective_s * OBJECTIVE_SHARE for objective_s in objectives_s if objective_s is not None]
        self._most_s = min([MOST_PAUSE_S, *bounds_s])

    def pause_s(self) -> float:
        """How long the next fetch waits, in seconds."""
        passed_s = self._clock() - self._since_s
        if passed_s >= WINDOW_S:
            wanted_s = self._wanted()
            self._share = (wanted_s - self._wanted_s) / passed_s
            self._since_s, self._wanted_s = self._since_s + passed_s, wanted_s
        return self._most_s * min(1.0, max(0.0, (self._share - BUSY_SHARE) / (FULL_SHARE - BUSY_SHARE)))


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def install_tasks() -> None:
    """Have all clients of this process work so; a second call changes nothing."""
    consumer.Fetcher, fetcher.FetchRequest = BrokerFetcher, SessionFetchRequest
    producer.Sender, sender.ProduceRequest = EagerSender, PackedProduceRequest
