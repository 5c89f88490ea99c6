"""Requests that are asked again, of another broker: one that is frozen must not hide the others."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aiokafka.errors import KafkaError

T = TypeVar("T")

REQUEST_S = 3.0
"""A broker that answers at all answers in milliseconds; on a busy one in a second."""
WITHIN_S = 20.0
"""Everything together, the attempts with other brokers included."""
AGAIN_S = 0.2


async def again(ask: Callable[[], Awaitable[T]]) -> T:
    """The answer, of another broker when one does not give it.

    Raises:
        KafkaError: none gave it in time; what the last one said.
        OSError: the same.
    """
    end_s = time.monotonic() + WITHIN_S
    while True:
        try:
            return await ask()
        except (KafkaError, OSError, TimeoutError):
            if time.monotonic() > end_s:
                raise
            await asyncio.sleep(AGAIN_S)
