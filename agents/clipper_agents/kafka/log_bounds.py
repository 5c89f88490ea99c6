"""What a consumer does whose position lies outside of a log: no consumer goes to another offset unless it is said here.

| position | what happened | decision |
|---|---|---|
| before the first record | retention, or `DeleteRecords` | read on from the first record, and say what was missed |
| behind the end | a deposed broker answers, or the log is another one | stay, and ask again |

Rules of this file:
- Nothing is read twice: a position never moves back.
- A partition that waits does not hold up the others.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from functools import partial
from typing import Protocol

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from clipper_agents.kafka.retry import RETRY_WAIT_S, retry

logger = logging.getLogger(__name__)

BEHIND_S = 20.0
"""How long an end is doubted that lies before what is known. A frozen broker that wakes up says where its log ended
when it was frozen, until it has heard that another one leads: a second or so, and up to nine if it has to be fenced."""
BEHIND_AGAIN_S = 0.5


class PositionKeeper:
    """Decides where one consumer reads on; it is to be built with `auto_offset_reset="none"`.

    Args:
        wait_s: A partition whose log ends before its position is fetched again after so long, in seconds.
    """

    def __init__(self, wait_s: float = RETRY_WAIT_S) -> None:
        self._wait_s = wait_s
        self._said: set[tuple[TopicPartition, int]] = set()

    async def resolve(self, consumer: AIOKafkaConsumer, error: OffsetOutOfRangeError) -> dict[TopicPartition, int]:
        """Decide for the partitions that a fetch has refused.

        Returns:
            The next offset of each partition that reads on elsewhere.
        """
        moved: dict[TopicPartition, int] = {}
        for tp, offset in error.args[0].items():
            bounds = await retry("bounds of a log", partial(_bounds, consumer, tp))
            if not consumer._subscription.is_assigned(tp):
                continue
            first, end = bounds
            if offset < first:
                self._say(tp, offset, f"records up to {first - 1} were deleted before they were read: reading on there")
                consumer.seek(tp, first)
                moved[tp] = first
            elif offset > end:
                self._say(tp, offset, f"the log ends at {end}: waiting for its leader, or was the topic made anew?")
                consumer.pause(tp)
                asyncio.get_running_loop().call_later(self._wait_s, _resume, consumer, tp)
        return moved

    def _say(self, tp: TopicPartition, offset: int, what: str) -> None:
        if (tp, offset) not in self._said:
            self._said.add((tp, offset))
            logger.warning("position out of range topic=%s partition=%d offset=%d: %s", *tp, offset, what)


async def _bounds(consumer: AIOKafkaConsumer, tp: TopicPartition) -> tuple[int, int]:
    firsts, ends = await consumer.beginning_offsets([tp]), await consumer.end_offsets([tp])
    return firsts[tp], ends[tp]


def _resume(consumer: AIOKafkaConsumer, tp: TopicPartition) -> None:
    if consumer._subscription.is_assigned(tp):
        consumer.resume(tp)


class Ends(Protocol):
    """Says where partitions end."""

    behind_s: float

    async def end_offsets(self, partitions: list[TopicPartition], /) -> dict[TopicPartition, int]:
        """One past the last record of each partition, now."""
        ...


async def sure_ends(reader: Ends, known: Mapping[TopicPartition, int]) -> dict[TopicPartition, int]:
    """Ends of partitions, asked for again while one lies before what is known of it.

    One that stays there is that of another log: its topic was deleted and created again.

    Args:
        reader: Asks.
        known: One past the last offset that is known of each partition.
    """
    until_s = time.monotonic() + reader.behind_s
    ends = await reader.end_offsets(list(known))
    while (behind := [tp for tp, offset in known.items() if ends[tp] < offset]) and time.monotonic() < until_s:
        await asyncio.sleep(BEHIND_AGAIN_S)
        ends |= await reader.end_offsets(behind)
    return ends
