"""A router process: every query answered once, every feedback counted once. One router serves all tests."""

import json
from collections import Counter

import msgspec
import oracle
import pytest
from builders.router_deployment import MODELS, Deployment, app, decoded, total
from kafka_fixture import temporary_topics

from clipper_agents.replay.verdicts import Verification
from clipper_topics.dead_letter import read_dead_letter


@pytest.fixture(scope="module")
def catalogue(kafka):
    with temporary_topics(kafka) as own:
        yield own


@pytest.fixture(scope="module")
async def at(kafka, catalogue, tmp_path_factory):
    at = Deployment(kafka, catalogue, tmp_path_factory.mktemp("router"))
    await at.declare(app(), app("aborted"), app("own"), *MODELS)
    async with at.router(), at.host({"m:1": total, "n:1": total}):
        yield at


def asked(application, count):
    ids = [f"{application} {number}" for number in range(count)]
    queries = [{"application": application, "query_id": one, "input": [place, 1]} for place, one in enumerate(ids)]
    return ids, queries


def labels(ids, shift=0):
    return [{"query_id": one, "label": place + 1 + shift} for place, one in enumerate(ids)]


async def learned(at, application, count):
    """Wait until so much feedback counted in partition 0 and the routers told each other; sums of each model."""

    def row(records):
        return oracle.table(records).get((application, None, 0), oracle.Row())

    await at.read(at.catalogue.selection, lambda records: row(records).applied >= count)
    found = row(await at.read(at.catalogue.selection_changelog))
    assert found.applied == count
    return {model: sums[:2] for model, sums in found.totals.items()}


async def dead_letters(at, *wanted):
    """Topic and message of the dead letters with these values, which are there once each."""

    def kept(records):
        return [(one.value, read_dead_letter(one.headers.items())) for one in records if one.value in wanted]

    letters = kept(await at.read(at.catalogue.dead_letters, lambda found: len(kept(found)) >= len(wanted)))
    assert Counter(value for value, _ in letters) == Counter(wanted)
    return {value: (letter.topic, letter.message) for value, letter in letters}


async def test_what_cannot_be_read_is_kept_as_a_dead_letter_and_holds_up_nobody(at):
    """test_any_client of tests/e2e has the other queries and feedbacks."""
    own, junk = b'{"query_id": "q", "application": "own", "label": 3}', (b"\x01junk", b"")
    await at.ask(b"{", {"query_id": "q", "input": [1, 2]})
    await at.send(at.catalogue.outputs, *junk)
    await at.predictions("q")
    await at.tell(own, {"query_id": "q", "label": 3})
    letters = await dead_letters(at, b"{", *junk, own)
    topics = {b"{": at.catalogue.queries, own: at.catalogue.feedback} | dict.fromkeys(junk, at.catalogue.outputs)
    assert {value: topic for value, (topic, _) in letters.items()} == topics
    assert "no decision about query 'q' of application 'own' in partition 0" in letters[own][1]


async def test_what_was_aborted_counts_for_nobody_and_once_when_sent_again(at):
    ids, queries = asked("aborted", 100)

    async def send(topic, values, *, commit):
        async with at.producer(transactional_id=f"{at.catalogue.prefix}-application") as producer:
            await producer.begin_transaction()
            for value in values:
                await producer.send(topic, json.dumps(value).encode(), partition=0)
            await producer.flush()
            await (producer.commit_transaction if commit else producer.abort_transaction)()

    await send(at.catalogue.queries, [*queries, {**queries[0], "query_id": "ghost"}], commit=False)
    await send(at.catalogue.queries, queries, commit=True)
    _, counts = await at.predictions(*ids)
    assert {one: counts.get(one) for one in [*ids, "ghost"]} == dict.fromkeys(ids, 1) | {"ghost": None}
    await send(at.catalogue.feedback, labels(ids, -1), commit=False)
    await send(at.catalogue.feedback, labels(ids), commit=True)
    assert await learned(at, "aborted", 100) == {"m:1": [100, 0], "n:1": [100, 0]}


async def test_an_open_transaction_delays_only_what_is_behind_it_in_its_partition(at):
    behind, beside = ({"query_id": one, "input": [1, 2]} for one in ("behind", "beside"))
    value = json.dumps({"application": "app", "query_id": "open", "input": [1, 2]}).encode()
    transactional_id = f"{at.catalogue.prefix}-application"
    async with at.producer(transactional_id=transactional_id) as producer, producer.transaction():
        await producer.send_and_wait(at.catalogue.queries, value, partition=0)
        await at.ask(behind, partition=0)
        await at.ask(beside, partition=1)
        _, counts = await at.predictions("beside")
        assert [counts.get(one) for one in ("beside", "open", "behind")] == [1, None, None]
    _, counts = await at.predictions("open", "behind")
    assert [counts[one] for one in ("beside", "open", "behind")] == [1, 1, 1]


async def test_what_this_router_has_written_is_answered_once_and_verified(at, command):
    times = Counter((one.application, one.query_id) for one in map(decoded, await at.read(at.catalogue.predictions)))
    assert {query: many for query, many in times.items() if many != 1} == {}
    (line,) = await command("replay", "verify", "--json")
    assert msgspec.json.decode(line, type=Verification).equal
