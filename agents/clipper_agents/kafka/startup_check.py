"""Waits before a worker starts until Kafka is there and lets it in.

check --let in--> start          told to end (SIGTERM, SIGINT) --> end
  | nobody answers: say so, wait, check again
  '-- refused: AccessRefused, exit 3. No wait changes a password, and a supervisor does not try again.
"""

import asyncio
import signal
from collections.abc import Awaitable, Callable

from clipper_agents.kafka.retry import RESTART_WAIT_S, retry
from clipper_agents.observability.probes import ProcessHealth
from clipper_stream.client.access import check_access
from clipper_stream.client.errors import BrokerUnavailable
from clipper_topics.connection import KafkaConnection

Check = Callable[[KafkaConnection], Awaitable[None]]


async def wait_for_access(kafka: KafkaConnection, health: ProcessHealth, check: Check = check_access) -> bool:
    """Check the access until Kafka answers; say so now and then, the first time at once, and also to probes.

    Returns:
        False when SIGTERM or SIGINT came first.

    Raises:
        AccessRefused: Kafka answers, but refuses the credentials, or its certificate is not trusted.
    """
    loop, answered = asyncio.get_running_loop(), asyncio.ensure_future(check_until_answered(kafka, health, check))
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, answered.cancel)
    await asyncio.wait({answered})
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.remove_signal_handler(number)
    if answered.cancelled():
        return False
    answered.result()
    return True


async def check_until_answered(kafka: KafkaConnection, health: ProcessHealth, check: Check = check_access) -> None:
    """Do as `wait_for_access`, for a caller that looks for signals itself; errors as there."""

    def is_away(error: Exception) -> bool:
        health.is_broker_reachable = not isinstance(error, BrokerUnavailable)
        return not health.is_broker_reachable

    await retry("waiting for kafka", lambda: check(kafka), wait_s=RESTART_WAIT_S, passes=is_away)
    health.is_broker_reachable = True
