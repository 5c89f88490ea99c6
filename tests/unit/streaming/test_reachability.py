"""Does the operator hear of a silent Kafka once, again now and then, and of its return?"""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import NodeNotReadyError, UnknownMemberIdError, for_code

from clipper_agents.kafka.aiokafka_patches import install
from clipper_agents.kafka.topic_ids import TopicIds
from clipper_agents.streaming.reachability import SAY_AGAIN_S, SILENT_AFTER_S, OutageTimer, watch_brokers


def test_a_pause_is_nothing_and_a_long_silence_is_said_once_in_a_while() -> None:
    silence = OutageTimer(now_s=0.0)
    said = [(now_s, silence.observe(answered=False, now_s=now_s)) for now_s in range(1, 120)]
    assert [now_s for now_s, words in said if words] == [SILENT_AFTER_S + number * SAY_AGAIN_S for number in range(4)]
    assert "no broker answers seconds=5" in str(said[4][1])


def test_a_return_is_said_when_the_silence_was() -> None:
    silence = OutageTimer(now_s=0.0)
    assert silence.observe(answered=False, now_s=4.0) is None
    assert silence.observe(answered=True, now_s=4.5) is None
    silence.observe(answered=False, now_s=20.0)
    assert not silence.reachable
    assert silence.observe(answered=True, now_s=21.0) == "a broker answers again seconds=16"
    assert silence.reachable


@pytest.mark.parametrize("refusing", [{1}, {1, 2}], ids=["one broker that answers is enough", "no silence yet"])
async def test_brokers_are_asked_until_one_answers_and_a_refusal_ends_nothing(refusing: set[int]) -> None:
    asked: list[int] = []
    told: asyncio.Queue[bool] = asyncio.Queue()

    async def send(node: int, *_: Any, **__: Any) -> Any:
        asked.append(node)
        if node in refusing:
            raise NodeNotReadyError
        return await asyncio.sleep(0, SimpleNamespace(topics=[]))

    brokers = [SimpleNamespace(nodeId=1), SimpleNamespace(nodeId=2)]
    client = SimpleNamespace(cluster=SimpleNamespace(brokers=lambda: brokers), send=send)
    watching = asyncio.create_task(watch_brokers(client, told.put_nowait, TopicIds()))
    assert await asyncio.wait_for(told.get(), 10)
    assert asked == [1, 2]
    watching.cancel()


def test_a_member_whose_name_another_process_has_is_unknown_to_its_group() -> None:
    """It joins again, and waits there; aiokafka has no class for the error and would end the process."""
    install()
    assert for_code(82) is UnknownMemberIdError
