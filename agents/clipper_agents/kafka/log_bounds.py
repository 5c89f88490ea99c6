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
from functools import partial

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import OffsetOutOfRangeError

from clipper_agents.kafka.retry import RETRY_WAIT_S, retry

logger = logging.getLogger(__name__)


class PositionKeeper:
    """Decides where one consumer reads on; it is to be built with `auto_offset_reset="none"`."""

    def __init__(self) -> None:
        self._said: set[tuple[TopicPartition, int]] = set()

    async def resolve(self, consumer: AIOKafkaConsumer, error: OffsetOutOfRangeError) -> dict[TopicPartition, int]:
        """Decide for partitions that a fetch has refused; return the next offset of those that read on elsewhere."""
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
                asyncio.get_running_loop().call_later(RETRY_WAIT_S, _resume, consumer, tp)
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
