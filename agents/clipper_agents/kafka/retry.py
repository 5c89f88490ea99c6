"""Asking Kafka until it answers: an outage is waited for, and a worker does not end because of it.

aiokafka's clients try again by themselves until their request timeout, and then raise; what they raise then says that
nobody answered, not that anything is wrong with the question.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka.errors import KafkaError, KafkaTimeoutError

logger = logging.getLogger(__name__)

T = TypeVar("T")

AGAIN_S = 0.5
REQUEST_TIMEOUT_MS = 10_000
"""Of plain consumers: a frozen broker holds up a request for so long, also when another one leads the partition
meanwhile. aiokafka's own default is 40 s."""


async def patiently(what: str, ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, however long Kafka is away; cancel it to give up.

    Args:
        what: What is asked, for the log.
        ask: Asks once; asked again after an error that passes by itself.

    Raises:
        KafkaError: an error that does not pass, for example a missing right.
    """
    attempts = 0
    while True:
        try:
            return await ask()
        except (KafkaError, TimeoutError) as error:
            if not passes(error):
                raise
            attempts += 1
            if attempts & (attempts - 1) == 0:  # 1, 2, 4, 8, ...: an outage is not a flood
                logger.warning("%s: %r, asking again attempts=%d", what, error, attempts)
        await asyncio.sleep(AGAIN_S)


def passes(error: Exception) -> bool:
    """Whether an error of aiokafka's says that nobody answered, or that leaders are moving."""
    return isinstance(error, (TimeoutError, KafkaTimeoutError)) or bool(getattr(error, "retriable", False))
