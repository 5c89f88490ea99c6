"""Whose an id is: no query takes the answer of another, and no feedback is about another's decision."""

import asyncio
import shutil
import signal
from collections import Counter

import pytest
from builders.live_traffic import served, settled
from builders.router_deployment import decoded

from clipper_agents.replay.log_ranges import KafkaLogs
from clipper_agents.replay.verify import verify
from clipper_topics.dead_letter import read_dead_letter
from clipper_topics.query_ids import offset_id

pytestmark = [pytest.mark.integration, pytest.mark.faults, pytest.mark.timeout(300)]


APPLICATIONS = ("app", "other")


@pytest.fixture
async def at(at):
    async with served(at):
        yield at


async def verified(at):
    return await verify(KafkaLogs(at.kafka, at.catalogue), at.catalogue, 3600.0)


async def test_a_client_that_claims_the_next_id_of_a_router_is_not_in_the_way(at):
    claimed = offset_id(1, 1)
    async with at.router() as router:
        await at.ask({"query_id": claimed, "input": [20, 2]}, {"input": [2, 1]}, partition=1)
        records = await at.read(at.catalogue.predictions, lambda found: len(found) >= 2)
        assert await router.ended(signal.SIGTERM) == 0, router.log
    refused, answered = sorted(map(decoded, records), key=lambda one: one.query_offset)
    assert (refused.query_id, refused.default, refused.reason) == (offset_id(1, 0), True, "invalid_input")
    assert "choose another id" in refused.explanation
    assert (answered.query_id, answered.output, answered.default) == (claimed, 3, False)


async def test_feedback_about_an_own_id_that_begins_with_a_partition_stays_and_counts(at):
    await at.ask({"query_id": "1-1001", "input": [1, 2]}, partition=0)
    await at.send(at.catalogue.feedback, {"query_id": "1-1001", "label": 3}, partition=0)
    async with at.router() as router:
        table = await settled(at)
        assert await router.ended(signal.SIGTERM) == 0, router.log
    assert [one.partition for one in await at.read(at.catalogue.feedback)] == [0]
    assert {key: row.applied for key, row in table.items() if key[0]} == {("app", None, 0): 1}


async def test_one_id_of_two_applications_has_two_answers_and_takes_two_feedbacks(at):
    queries = [
        {"query_id": "q", "application": name, "input": [2 * number, 2]} for number, name in enumerate(APPLICATIONS)
    ]
    told = [{"query_id": "q", "application": name, "label": 3} for name in reversed(APPLICATIONS)]
    rows = {}
    for runs in range(1, 4):
        async with at.router() as router:
            await at.ask(*queries, key=b"key")
            records = await at.read(at.catalogue.predictions, lambda found, runs=runs: len(found) >= 2 * runs)
            await at.send(at.catalogue.feedback, *told, {"query_id": "q", "label": 9}, key=b"key")
            table = await settled(at)
            assert await router.ended(signal.SIGTERM) == 0, router.log
        answers = Counter((decoded(one).application, one.value) for one in records)
        assert sorted(answers.values()) == [runs, runs], "a repeated query gets the same answer"
        found = {key: (row.applied, row.totals) for key, row in table.items() if key[0]}
        assert {key: applied for key, (applied, _) in found.items()} == {(name, None, 0): 1 for name in APPLICATIONS}
        assert found == (rows := rows or found)
        assert (await verified(at)).equal
        if runs == 2:
            await asyncio.to_thread(shutil.rmtree, at.folder / "data")


async def test_a_feedback_that_counts_for_nobody_is_a_dead_letter(at):
    await at.ask({"query_id": "q", "application": "app", "input": [1, 2]})
    await at.send(at.catalogue.feedback, {"query_id": "q", "application": "other", "label": 3})
    async with at.router() as router:
        (letter,) = await at.read(at.catalogue.dead_letters, lambda found: len(found) >= 1)
        table = await settled(at)
        assert await router.ended(signal.SIGTERM) == 0, router.log
    message = read_dead_letter(letter.headers.items()).message
    assert "no decision about query 'q' of application 'other' in partition 0" in message
    assert not any(key[0] for key in table)
    assert (await verified(at)).equal
