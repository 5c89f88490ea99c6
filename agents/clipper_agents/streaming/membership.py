"""A process' membership in its group: how it joins, which partitions it gets, and whether they are still its own.

Rules of this file:
- The same partition numbers of all topics go to one member, and as few as possible move: one that moves between two
  members that stay stalls until its state is restored elsewhere.
- What is written needs an answer of the group to a heartbeat of the last half of a session; else it waits for one, or
  for the end of the generation, and with that is dropped. So a process that stood still or was cut off answers nothing
  that another one may have answered meanwhile.
"""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment, ConsumerProtocolMemberMetadata
from aiokafka.errors import InvalidSessionTimeoutError, KafkaError, NoOffsetForPartitionError
from aiokafka.protocol.group import JoinGroupRequest

from clipper_agents.kafka import aiokafka_patches
from clipper_agents.kafka.clients import make_consumer, started
from clipper_agents.kafka.consumer_groups import member_instances
from clipper_agents.kafka.errors import BrokerLimit, KafkaUnreachable
from clipper_agents.kafka.retry import RESTART_WAIT_S, retry
from clipper_topics.connection import KafkaConnection

logger = logging.getLogger(__name__)

SESSION_S = 10.0
HEARTBEAT_S = 0.5
REQUEST_TIMEOUT_S = 12.0
"""A join waits for the others, up to 10 s, so it is longer than that; and a frozen coordinator holds up a heartbeat for
so long, so it is not much longer: the next coordinator waits 10 s for a sign."""
RECOVERY_S = 1000.0
"""Longest recovery, in which nothing is fetched: aiokafka leaves the group then."""
ASSIGNOR_VERSION = 0
STAND_BY_S = 1.0
"""How often a process looks who is in its group: one that waits for another of its name, or that follows the others."""


def make_member(
    kafka: KafkaConnection, group: str, instance: str, assignor: AbstractPartitionAssignor, **options: Any
) -> AIOKafkaConsumer:
    """A consumer of `make_consumer` with these options, a static member of the group (KIP-345); it is to be started."""
    return make_consumer(
        kafka,
        isolation_level="read_committed",
        group=group,
        request_s=REQUEST_TIMEOUT_S,
        group_instance_id=instance,
        partition_assignment_strategy=[assignor],
        session_timeout_ms=int(SESSION_S * 1000),
        rebalance_timeout_ms=int(SESSION_S * 1000),
        heartbeat_interval_ms=int(HEARTBEAT_S * 1000),
        max_poll_interval_ms=int(RECOVERY_S * 1000),
        **options,
    )


class OwnershipLease:
    """Knows whether the group counts on this process, so that nobody else has its partitions.

    The answer to a heartbeat holds for half a session from when that was sent: the group waits for a whole one, and
    what is written until then has the other half to reach the broker. The clock goes on while the process stands still.
    """

    def __init__(self, session_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._holds_s, self._clock = session_s / 2, clock
        self._until_s, self._has_ended = -math.inf, False
        self._heard = asyncio.Event()
        self._was_member = self._stands_by = False

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

    def watch(self, coordinator: Any, instance: str, crash: Callable[[BaseException], Awaitable[None]]) -> None:
        """Have aiokafka's coordinator join, and tell of its heartbeats, by these rules."""
        join, beat = coordinator._do_rejoin_group, coordinator._do_heartbeat
        coordinator._do_rejoin_group = partial(self._join, coordinator, instance, crash, join)
        coordinator._do_heartbeat = partial(self._beat, beat)

    async def _beat(self, beat: Callable[[], Awaitable[bool]]) -> bool:
        sent_s = self._clock()
        if is_member := await beat():
            self.answered(sent_s)
        return is_member

    async def _join(self, coordinator: Any, instance: str, crash: Any, join: Any, subscription: Any) -> bool:
        """Join the group, but not while another process has the instance name that this one had.

        Kafka takes a process of the same name for the same one, started again. So two would throw each other out for
        ever, and neither would serve if a takeover lasts longer than that.
        """
        group = coordinator.group_id
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
        sent_s = self._clock()
        try:
            joined = bool(await join(subscription))
        except InvalidSessionTimeoutError:  # aiokafka would end its task, and nothing else
            what = "the brokers take no session of 10 s: set group.min.session.timeout.ms to at most 10000, and"
            await crash(BrokerLimit(f"{what} group.max.session.timeout.ms to at least that"))
            return False
        if joined:
            self._was_member = True
            self.answered(sent_s)
        return joined


class StickyAssignor(AbstractPartitionAssignor):  # type: ignore[misc]  # aiokafka is untyped
    """Deals out partition numbers by `sticky_shares`; a member says which it had when it joins again."""

    name = "copartitioned-sticky"  # pyright: ignore[reportAssignmentType]

    def __init__(self) -> None:
        self._owned: set[int] = set()

    def metadata(self, topics: Iterable[str]) -> Any:
        return ConsumerProtocolMemberMetadata(
            ASSIGNOR_VERSION, sorted(topics), ",".join(map(str, sorted(self._owned))).encode()
        )

    def on_assignment(self, assignment: Any) -> None:
        self._owned = {partition for _, partitions in assignment.assignment for partition in partitions}

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        topics = sorted({topic for member in members.values() for topic in member.subscription})
        there = {topic: cluster.partitions_for_topic(topic) or set() for topic in topics}
        before = {name: {*map(int, filter(None, one.user_data.split(b",")))} for name, one in members.items()}
        shares = sticky_shares(before, max(map(len, there.values()), default=0))
        return {
            name: ConsumerProtocolMemberAssignment(
                ASSIGNOR_VERSION, [(topic, [one for one in share if one in there[topic]]) for topic in topics], b""
            )
            for name, share in shares.items()
        }


def sticky_shares(before: Mapping[str, set[int]], partitions: int) -> dict[str, list[int]]:
    """Return the partition numbers of each member, by those that it had.

    Shares differ by one at most. When a member joins or leaves, none moves between two that stay.

    >>> sticky_shares({"a": {0, 1, 2, 3}, "b": set()}, 4)
    {'a': [0, 1], 'b': [2, 3]}
    """
    free, shares = set(range(partitions)), dict[str, list[int]]()
    smallest, larger = divmod(partitions, len(before))
    for place, (name, had) in enumerate(sorted(before.items(), key=lambda member: (-len(member[1]), member[0]))):
        shares[name] = sorted(had & free)[: smallest + (place < larger)]
        free.difference_update(shares[name])
    for partition in sorted(free):
        min(shares.values(), key=len).append(partition)
    return shares


async def follow_members(
    kafka: KafkaConnection, group: str, instance: str, topic: str, on_names: Callable[[list[str]], None]
) -> None:
    """Be a member of a group until cancelled; hand over all members' names, sorted, at first and after each change.

    The group needs a topic that is there, of which nothing is read.

    Raises:
        AccessRefused: this user may not be a member.
    """
    aiokafka_patches.install()
    known: list[str] = []

    async def stay() -> None:
        nonlocal known
        async with started(kafka, make_member(kafka, group, instance, StickyAssignor())) as member:
            OwnershipLease(SESSION_S).watch(member._coordinator, instance, _fail)
            member.subscribe([topic])
            while True:
                with contextlib.suppress(NoOffsetForPartitionError):  # of the topic, which has no position
                    await member.getmany()  # who asks for nothing leaves the group after a while
                names = sorted(await member_instances(member._coordinator._send_req, group))
                if instance in names and names != known:
                    on_names(known := names)
                await asyncio.sleep(STAND_BY_S)

    await retry(
        f"membership of {group}", stay, wait_s=RESTART_WAIT_S, passes=lambda error: isinstance(error, KafkaUnreachable)
    )


async def _fail(error: BaseException) -> None:
    raise error
