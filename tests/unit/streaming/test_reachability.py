"""Does the operator hear of a silent Kafka once, again now and then, and of its return?"""

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka.errors import KafkaError, NodeNotReadyError, UnknownMemberIdError, for_code
from builders.kafka import settle

from clipper_agents.kafka.aiokafka_patches import install
from clipper_agents.kafka.topic_ids import TopicIds
from clipper_agents.streaming import reachability
from clipper_agents.streaming.reachability import run_until_one_ends, watch_brokers

SILENCE = "no broker answers seconds=0: records wait in this process, nothing is lost"


@pytest.mark.parametrize(
    ("silent_after_s", "told", "lines"),
    [
        (60.0, [True, True, True, True, True], []),
        (0.0, [True, False, False, True, False], [SILENCE, "a broker answers again seconds=0", SILENCE]),
    ],
    ids=["a pause is nothing", "a silence is said once, and so is its end"],
)
async def test_a_silence_of_all_brokers_is_told(
    silent_after_s: float, told: list[bool], lines: list[str], monkeypatch: Any, caplog: Any
) -> None:
    monkeypatch.setattr(reachability, "SILENT_AFTER_S", silent_after_s)
    monkeypatch.setattr(reachability, "ASK_EVERY_S", 0.0)
    answers = iter([True, False, False, True, False])
    found: list[bool] = []

    async def send(*_: Any, **__: Any) -> Any:
        if not next(answers):
            raise NodeNotReadyError
        return SimpleNamespace(topics=[])

    def note(reachable: bool) -> None:
        found.append(reachable)
        if len(found) == len(told):
            raise EOFError

    client = SimpleNamespace(cluster=SimpleNamespace(brokers=lambda: [SimpleNamespace(nodeId=1)]), send=send)
    with pytest.raises(EOFError):
        await watch_brokers(client, note, TopicIds())
    assert (found, [one.message for one in caplog.records if one.name == reachability.__name__]) == (told, lines)


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


async def test_works_end_together_by_the_error_of_the_first_and_from_outside() -> None:
    ended: list[str] = []

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("endless")

    async def fails() -> None:
        raise KafkaError("no leader")

    with pytest.raises(KafkaError, match="no leader"):
        await run_until_one_ends(endless(), fails())
    await run_until_one_ends(endless(), asyncio.sleep(0))
    running = asyncio.ensure_future(run_until_one_ends(endless(), endless()))
    await settle()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert ended == ["endless"] * 4
