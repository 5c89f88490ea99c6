"""Asking Kafka again: how long an answer is waited for, and which errors pass by themselves.

aiokafka's clients try again by themselves until their request timeout, and then raise; what they raise then says that
nobody answered, not that anything is wrong with the question.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from aiokafka.errors import KafkaError, KafkaTimeoutError

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_WAIT_S = 0.5
REFUSED_WAIT_S = 5.0
"""Between two attempts at what an operator has forbidden meanwhile."""
TIMEOUT_S = 30.0
"""For everything that an operator waits for: a broker that is starting has the time to come up."""


class RetryPolicy(NamedTuple):
    """How patient a process is with Kafka."""

    request_s: float
    """For one request. A frozen broker holds it up for so long, also when another one leads the partition meanwhile."""
    within_s: float
    """How long a question that nobody answered is asked again."""

    @property
    def silence_s(self) -> float | None:
        """How long a read may bring nothing; None: it waits."""
        return None if math.isinf(self.within_s) else max(TIMEOUT_S, self.within_s)


WORKERS = RetryPolicy(request_s=10.0, within_s=math.inf)
"""A worker waits for an outage to end."""
COMMANDS = RetryPolicy(request_s=TIMEOUT_S, within_s=0.0)
"""A command gives up, and says why."""
STATUS = RetryPolicy(request_s=3.0, within_s=20.0)
"""Somebody who looks for a fault asks the next broker soon: one that is frozen must not hide the others."""


async def retry(what: str, ask: Callable[[], Awaitable[T]], within_s: float = math.inf) -> T:
    """The answer, asked for again while Kafka is away; cancel it to give up.

    Args:
        what: What is asked, for the log of a retry without a bound.
        ask: Asks once; called again after an error that passes by itself.
        within_s: No more attempts begin after so long, in seconds.

    Raises:
        KafkaError: an error that does not pass, for example a missing right, or the last one in time.
        TimeoutError: the last attempt got no answer.
    """
    end_s = time.monotonic() + within_s
    attempts = 0
    while True:
        try:
            return await ask()
        except (KafkaError, OSError) as error:
            if not is_transient(error) or time.monotonic() >= end_s:
                raise
            attempts += 1
            if math.isinf(within_s) and attempts & (attempts - 1) == 0:  # 1, 2, 4, 8, ...: an outage is not a flood
                logger.warning("%s: %r, asking again attempts=%d", what, error, attempts)
        await asyncio.sleep(RETRY_WAIT_S)


def is_transient(error: Exception) -> bool:
    """Whether an error of aiokafka's says that nobody answered, or that leaders are moving."""
    return isinstance(error, (OSError, KafkaTimeoutError)) or bool(getattr(error, "retriable", False))
