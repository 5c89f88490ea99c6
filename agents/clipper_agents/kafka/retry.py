"""The one retry: how long an answer is waited for, which errors pass by themselves, and how often that is said.

aiokafka's clients try again by themselves until their request timeout, and then raise; what they raise then says that
nobody answered, not that anything is wrong with the question.
"""

import asyncio
import logging
import math
import time
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, TypeVar

from aiokafka.errors import KafkaError, KafkaTimeoutError

from clipper_stream.errors import ClipperError

logger = logging.getLogger(__name__)

T = TypeVar("T")

RETRY_WAIT_S = 0.5
RESTART_WAIT_S = 1.0
"""Between two attempts that connect anew. Machines that boot together are ready within seconds of each other."""
POLL_S = 0.05
"""Between two looks at what a broker, which has no events, is about to do."""
SAY_EVERY_S = 30.0
"""In an outage everything that a process sends and asks waits, hundreds at a time: a line each would be a flood."""
TIMEOUT_S = 30.0
"""For everything that an operator waits for: a broker that is starting has the time to come up."""
_said_s: dict[str, float] = {}


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


def is_transient(error: Exception) -> bool:
    """Whether an error of aiokafka's says that nobody answered, or that leaders are moving."""
    return isinstance(error, (OSError, KafkaTimeoutError)) or bool(getattr(error, "retriable", False))


async def retry(
    what: str,
    attempt: Callable[[], Awaitable[T]],
    within_s: float = math.inf,
    *,
    wait_s: float = RETRY_WAIT_S,
    passes: Callable[[Exception], bool] = is_transient,
) -> T:
    """The outcome of an attempt, made again after an error that passes by itself; cancel it to give up.

    No attempt begins after `within_s`: the last error is raised then, and one that does not pass at once. Without a
    bound it is logged that attempts fail, at once and every `SAY_EVERY_S`, however many wait for the same.
    """
    end_s = time.monotonic() + within_s
    while True:
        try:
            outcome = await attempt()
            _said_s.pop(what, None)
            return outcome
        except Exception as error:
            now_s = time.monotonic()
            if not passes(error) or now_s >= end_s:
                raise
            if math.isinf(within_s) and now_s - _said_s.get(what, -math.inf) >= SAY_EVERY_S:
                _said_s[what] = now_s
                logger.warning("%s: %s, trying again", what, error if isinstance(error, ClipperError) else repr(error))
        await asyncio.sleep(wait_s)


def is_outage(error: Exception) -> bool:
    """Whether an error is of Kafka or the network, a missing right too: for work that goes on as soon as it can."""
    return isinstance(error, (KafkaError, OSError))


async def reached_in(running: "asyncio.Future[Any]", reached: asyncio.Event) -> None:
    """Wait until the event is set, or raise the error with which the task that sets it ends before."""
    waiting: asyncio.Future[Any] = asyncio.ensure_future(reached.wait())
    await asyncio.wait([waiting, running], return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if running.done():
        running.result()
