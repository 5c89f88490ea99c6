"""Does the operator hear of a silent Kafka once, again now and then, and of its return?"""

import asyncio
from types import SimpleNamespace
from typing import Any

from aiokafka.errors import NodeNotReadyError, UnknownMemberIdError, for_code

from clipper_agents.kafka.aiokafka_patches import install
from clipper_agents.kafka.topic_ids import TopicIds
from clipper_agents.streaming.reachability import SAY_AGAIN_S, SILENT_AFTER_S, Silence, watch_brokers


def test_a_pause_is_nothing_and_a_long_silence_is_said_once_in_a_while() -> None:
    silence = Silence(now_s=0.0)
    said = [(now_s, silence.observe(answered=False, now_s=now_s)) for now_s in range(1, 120)]
    assert [now_s for now_s, words in said if words] == [SILENT_AFTER_S + number * SAY_AGAIN_S for number in range(4)]
    assert "no broker answers seconds=5" in str(said[4][1])


def test_a_return_is_said_when_the_silence_was() -> None:
    silence = Silence(now_s=0.0)
    assert silence.observe(answered=False, now_s=4.0) is None
    assert silence.observe(answered=True, now_s=4.5) is None
    silence.observe(answered=False, now_s=20.0)
    assert not silence.reachable
    assert silence.observe(answered=True, now_s=21.0) == "a broker answers again seconds=16"
    assert silence.reachable


def watched(send: Any) -> list[bool]:
    """What is told of two brokers until the first attempt has ended."""
    brokers = [SimpleNamespace(nodeId=1), SimpleNamespace(nodeId=2)]
    client = SimpleNamespace(cluster=SimpleNamespace(brokers=lambda: brokers), send=send)
    told: list[bool] = []

    async def until_told() -> None:
        heard = asyncio.Event()
        watching = watch_brokers(client, lambda reachable: (told.append(reachable), heard.set()), TopicIds())
        task = asyncio.create_task(watching)
        await asyncio.wait_for(heard.wait(), 10)
        task.cancel()

    asyncio.run(until_told())
    return told


def test_one_broker_that_answers_is_enough() -> None:
    async def send(node: int, *_: Any, **__: Any) -> Any:
        if node == 1:
            raise NodeNotReadyError
        await asyncio.sleep(0)
        return SimpleNamespace(topics=[])

    assert watched(send) == [True]


def test_a_broker_that_refuses_is_no_reason_to_end() -> None:
    async def send(*_: Any, **__: Any) -> None:
        raise NodeNotReadyError

    assert watched(send) == [True], "one attempt is not a silence yet"


def test_a_member_whose_name_another_process_has_is_unknown_to_its_group() -> None:
    """It joins again, and waits there; aiokafka has no class for the error and would end the process."""
    install()
    assert for_code(82) is UnknownMemberIdError
