"""Waits before a worker starts until Kafka is there and lets it in.

check --let in--> start          told to end (SIGTERM, SIGINT) --> end
  | nobody answers: say so, wait `AGAIN_S`, check again
  '-- refused: AccessRefused, exit 3. No wait changes a password, and a supervisor does not try again.
"""

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable
from typing import Any

from clipper_agents.observability.probes import ProcessHealth
from clipper_stream.client.access import check_access
from clipper_stream.client.errors import BrokerUnavailable
from clipper_topics.connection import KafkaConnection

log = logging.getLogger(__name__)

AGAIN_S = 1.0
"""Machines that boot together are ready within seconds of each other."""
SAY_EVERY_S = 5.0


async def wait_for_access(kafka: KafkaConnection, health: ProcessHealth, **options: Any) -> bool:
    """Check the access until Kafka answers; say so now and then, the first time at once, and also to probes.

    Options as of `check_until_answered`.

    Returns:
        False when SIGTERM or SIGINT came first.

    Raises:
        AccessRefused: Kafka answers, but refuses the credentials, or its certificate is not trusted.
    """
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, told.set)
    trying = asyncio.ensure_future(check_until_answered(kafka, health, **options))
    ending = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({trying, ending}, return_when=asyncio.FIRST_COMPLETED)
        if trying.done():
            trying.result()
        return trying.done()
    finally:
        trying.cancel()
        ending.cancel()
        await asyncio.wait({trying, ending})
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


async def check_until_answered(
    kafka: KafkaConnection,
    health: ProcessHealth,
    *,
    again_s: float = AGAIN_S,
    say_every_s: float = SAY_EVERY_S,
    check: Callable[[KafkaConnection], Awaitable[None]] = check_access,
) -> None:
    """Do as `wait_for_access`, for a caller that looks for signals itself; errors as there."""
    since_s, said_s = time.monotonic(), float("-inf")
    while True:
        try:
            await check(kafka)
            health.is_broker_reachable = True
            return
        except BrokerUnavailable as error:
            health.is_broker_reachable = False
            now_s = time.monotonic()
            if now_s - said_s >= say_every_s:
                log.warning("waiting for kafka since %.0f s: %s", now_s - since_s, error)
                said_s = now_s
        await asyncio.sleep(again_s)
