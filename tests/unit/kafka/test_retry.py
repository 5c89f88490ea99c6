"""Is an outage waited for, and any other error raised?"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaError,
    KafkaTimeoutError,
    NodeNotReadyError,
    NotLeaderForPartitionError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
)

from clipper_agents.kafka.retry import retry


def failing(*errors: Exception) -> Callable[[], Awaitable[str]]:
    """Raises these, one a call, then answers."""
    left = list(errors)

    async def ask() -> str:
        await asyncio.sleep(0)
        if left:
            raise left.pop(0)
        return "answer"

    return ask


@pytest.mark.parametrize(
    "error",
    [
        KafkaConnectionError("Unable to bootstrap"),
        KafkaTimeoutError("Failed to get offsets by times in 10000 ms"),
        NodeNotReadyError("node 1"),
        NotLeaderForPartitionError(),
        RequestTimedOutError(),
        TimeoutError(),
        OSError("no route"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_an_outage_causes_is_asked_again(error: Exception) -> None:
    assert asyncio.run(retry("ends", failing(error, error))) == "answer"


@pytest.mark.parametrize("error", [TopicAuthorizationFailedError(), KafkaError("broken"), ValueError("ours")])
def test_what_does_not_pass_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        asyncio.run(retry("ends", failing(error)))


def test_after_the_time_that_was_given_the_last_error_is_raised() -> None:
    with pytest.raises(KafkaConnectionError, match="second"):
        asyncio.run(retry("ends", failing(KafkaConnectionError("second")), within_s=0.0))


def test_within_the_time_that_was_given_it_is_asked_again() -> None:
    assert asyncio.run(retry("ends", failing(KafkaConnectionError("first")), within_s=60.0)) == "answer"
