import asyncio
import math
from typing import Any

import pytest
from aiokafka import errors

from clipper_agents.kafka import retry as retrying

UNREACHABLE, LATE = errors.KafkaConnectionError("Unable to bootstrap"), errors.KafkaTimeoutError("not in 10000 ms")
PASSES = [
    UNREACHABLE, LATE, errors.NodeNotReadyError("node 1"), errors.NotLeaderForPartitionError(),
    errors.RequestTimedOutError(), TimeoutError(), OSError("no route"),
]  # fmt: skip


def asked(*failures: Exception, within_s: float = math.inf) -> str:
    """What is answered to a question that fails so often first."""
    left = list(failures)

    async def ask() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    return asyncio.run(retrying.retry("ends", ask, within_s))


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(retrying.retry.__kwdefaults__, "wait_s", 0.001)
    retrying._said_s.clear()


def test_what_an_outage_causes_is_asked_again(caplog: Any) -> None:
    assert asked(UNREACHABLE, *PASSES) == asked(UNREACHABLE, within_s=60.0) == "answer"
    assert caplog.messages == [f"ends: {UNREACHABLE!r}, trying again"], "it is no flood of lines"


@pytest.mark.parametrize("error", [errors.TopicAuthorizationFailedError(), errors.KafkaError("x"), ValueError("ours")])
def test_what_does_not_pass_is_raised(error: Exception) -> None:
    with pytest.raises(type(error)):
        asked(error)


def test_after_the_time_that_was_given_the_last_error_is_raised() -> None:
    with pytest.raises(errors.KafkaTimeoutError):
        asked(LATE, within_s=0.0)
