import pytest
from aiokafka.admin import NewPartitions
from builders.router_deployment import MODELS, app, total
from integration.live_traffic import counted, settled

from clipper_agents import exits
from clipper_agents.kafka.clients import administration
from clipper_agents.kafka.topics import delete_topics, ensure_topics
from clipper_topics.dead_letter import read_dead_letter

pytestmark = pytest.mark.faults


@pytest.fixture
async def at(at):
    await at.declare(app(), *MODELS)
    async with at.host({"m:1": total, "n:1": total}):
        yield at


async def make_anew(at, *topics):
    await delete_topics(at.kafka, topics)
    await ensure_topics(at.kafka, at.catalogue, MODELS)


async def ask(at, count, first=0):
    """Queries without an id, whose answers tell them apart."""
    await at.ask(*({"input": [first + number, 0]} for number in range(count)))


async def ends(at, code, *said):
    async with at.router(ready=False) as router:
        assert await router.ended() == code, router.log
    (line,) = [line for line in router.lines if line.startswith("error: ")]
    assert all(text in line for text in said), line


async def is_told_and_renewed(at, command, topic):
    await ends(at, exits.SETUP, anew(topic), "clipper-stream topics renew")
    await command("topics", "renew", "--yes")


async def answers(at, count):
    """The sums that the first `count` queries of partition 0 were answered with, in order."""
    ids = [f"0@{number}" for number in range(count)]
    return [(await at.predictions(*ids))[0][one].output for one in ids]


def anew(topic):
    return f"topic {topic} was deleted and created again"


async def test_a_feedback_topic_made_anew_is_told_and_none_is_skipped(at, command):
    names = [f"q{number}" for number in range(10)]
    queries = [{"query_id": name, "input": [1, 1]} for name in names]
    truths = [{"query_id": name, "label": 2} for name in names]
    async with at.router():
        await at.ask(*queries)
        await at.tell(*truths)
        await settled(at)
    await make_anew(at, at.catalogue.feedback)
    await at.tell(*truths)
    await is_told_and_renewed(at, command, at.catalogue.feedback)
    async with at.router():
        letters = await at.read(at.catalogue.dead_letters, lambda found: len(found) >= len(names))
        assert {read_dead_letter(one.headers.items()).topic for one in letters} == {at.catalogue.feedback}
        await at.ask(*queries)
        assert {(await at.predictions(*names))[0][name].output for name in names} == {2}
        await at.tell(*truths)
        assert counted(await settled(at)) == len(names)


async def test_a_queries_topic_made_anew_is_told_and_every_query_is_answered(at, command):
    async with at.router() as router:
        await ask(at, 40)
        assert await answers(at, 40) == [*range(40)]
        await make_anew(at, at.catalogue.queries)
        await ask(at, 45, first=100)
        assert await router.ended() == exits.CRASHED
        assert anew(at.catalogue.queries) in router.log
    await is_told_and_renewed(at, command, at.catalogue.queries)
    async with at.router():
        assert await answers(at, 45) == [*range(100, 145)]


@pytest.mark.parametrize("topic", ["predictions", pytest.param("audits", marks=pytest.mark.slow)])
async def test_another_log_made_anew_is_told(at, command, topic):
    name = getattr(at.catalogue, topic)
    async with at.router():
        await ask(at, 3)
        await answers(at, 3)
    await make_anew(at, name)
    await is_told_and_renewed(at, command, name)
    await ask(at, 3, first=7)
    async with at.router():
        assert await answers(at, 3) == [7, 8, 9]


async def test_all_topics_made_anew_by_hand_are_a_new_deployment_for_kept_data(at):
    catalogue = at.catalogue
    logs = (catalogue.queries, catalogue.predictions, catalogue.audits, catalogue.feedback)
    for count, first in ((5, 0), (3, 50)):
        await ask(at, count, first)
        await at.tell(*({"query_id": f"0@{number}", "label": first + number} for number in range(count)))
        async with at.router():
            assert await answers(at, count) == [*range(first, first + count)]
            assert [row.applied for key, row in (await settled(at)).items() if key[0]] == [count]
        if first == 0:
            await make_anew(at, *logs, catalogue.selection_changelog, catalogue.selection)


async def test_a_topic_that_alone_gets_more_partitions_is_told_and_no_router_runs(at, command):
    said = f"topic {at.catalogue.queries} has 3 partitions, 2 are configured"
    async with at.router() as router:
        await ask(at, 3)
        await answers(at, 3)
        async with administration(at.kafka) as admin:
            await admin.create_partitions({at.catalogue.queries: NewPartitions(3)})
        assert await router.ended() == exits.SETUP
        assert said in router.log
    await ends(at, exits.SETUP, f"error: {said}")
    assert said in "\n".join(await command("status", code=exits.FAILURE))


async def test_a_router_starts_again_when_the_outputs_topic_is_made_anew(at):
    async with at.router() as router:
        await ask(at, 5)
        assert await answers(at, 5) == [*range(5)]
        await make_anew(at, at.catalogue.outputs)
        assert await router.ended() == exits.CRASHED
        assert anew(at.catalogue.outputs) in router.log
    async with at.router():
        await ask(at, 3, first=60)
        assert await answers(at, 8) == [0, 1, 2, 3, 4, 60, 61, 62]
