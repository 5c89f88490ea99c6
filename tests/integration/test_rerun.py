"""Logged traffic is sent again: every query is answered, feedback counts once, and nothing else is sent."""

import asyncio
import json
import signal

import pytest
from builders.router_deployment import MODELS, Deployment, app, total
from e2e.any_client import AnyClient
from e2e.programs import Program, environment_of, run
from integration.live_traffic import rows_of
from kafka_fixture import temporary_topics

from clipper_agents import exits
from clipper_topics.restore import RESTORE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

QUERIES = 20


@pytest.fixture(scope="module")
def catalogue(kafka):
    """A log with queries, half of them without an id, feedback about each, and what is not sent again."""
    with temporary_topics(kafka) as own:
        with AnyClient(kafka.bootstrap) as client:
            for number in range(QUERIES):
                key = f"key-{number}".encode()
                named = {"query_id": f"order {number}"} if number % 2 else {}
                asked = {"application": "app", "input": [number, 1], **named}
                stored = client.send_json(own.queries, asked, key=key, headers={"trace": key})
                query_id = named.get("query_id") or f"{stored.partition}@{stored.offset}"
                client.send_json(own.feedback, {"query_id": query_id, "label": number + 1}, key=key)
            client.send(own.feedback, b"marker", headers={RESTORE: b"r-0123456789abcdef"}, partition=0)
            client.send_json(own.feedback, {"query_id": "long ago", "label": 1}, key=b"key-1")
        yield own


@pytest.fixture
def target(kafka):
    """Topics of another deployment, with as many partitions."""
    with temporary_topics(kafka) as own:
        yield own


@pytest.fixture
def rerun(shell):
    """Sends the log again; the summary."""

    def produce(*arguments):
        return json.loads("\n".join(shell("replay", "produce", "--json", "--speed", "max", *arguments)))

    return produce


async def test_a_second_deployment_answers_a_range_and_equal_ids_count_once(kafka, catalogue, target, tmp_path):
    at, environ = Deployment(kafka, target, tmp_path), environment_of(kafka, catalogue)
    with AnyClient(kafka.bootstrap) as client:
        old = client.read(catalogue.queries)
    ids = [one.content.get("query_id") or f"{one.partition}@{one.offset}" for one in old]

    async def sent(*arguments):
        words = ("replay", "produce", "--json", "--since", "1h", "--to", target.prefix, *arguments)
        done = await asyncio.to_thread(run, *words, folder=tmp_path, environ=environ)
        assert done.code == exits.OK, done
        return json.loads(done.out)

    async def learned(count):
        async with asyncio.timeout(90):
            while sum(row.totals["m:1"][0] for row in await rows_of(at) if "m:1" in row.totals) != count:
                await asyncio.sleep(0.1)

    await at.declare(app(), *MODELS)
    async with at.router(), at.host({"m:1": total, "n:1": lambda row: total(row) + 1}):
        runs = []
        for speed in ("max", "10"):
            runs.append(await sent("--speed", speed))
            found, counts = await at.predictions(*(f"{query_id}~{runs[-1]['run']}" for query_id in ids))
            await learned(len(runs) * QUERIES)
        for _ in range(2):
            await sent("--speed", "max", "--ids", "same")
        same, _ = await at.predictions(*(f"{one}~" if "@" in one else one for one in ids))
        await at.ask({"query_id": "last", "input": [1, 1]})
        await at.tell({"query_id": "last", "label": 2})
        await learned(3 * QUERIES + 1)

    fast, tenfold = runs
    for summary in runs:
        assert summary["sent"] == {target.queries: QUERIES, target.feedback: QUERIES}
        assert summary["left_out"] == {"restore_marker": 1, "no_query": 1}
        assert summary["failed"] == 0
    assert (fast["late"], tenfold["pace"]["speed"] <= 10.01) == (None, True)
    assert tenfold["late"]["p50_ms"] >= 0.0
    assert {found[f"{query_id}~{fast['run']}"].output for query_id in ids} <= set(range(1, QUERIES + 2))
    assert not any(one.default for one in [*found.values(), *same.values()])
    assert set(counts.values()) == {1}
    with AnyClient(kafka.bootstrap) as client:
        copies = client.read(target.queries)
    assert {(one.partition, one.key) for one in old} == {(one.partition, one.key) for one in copies} - {(0, None)}
    first = next(one for one in copies if one.headers.get("clipper-replayed-from"))
    place = first.headers["clipper-replayed-from"].decode().split("/")
    assert place == [catalogue.queries, str(first.partition), "0"]
    assert first.headers["trace"] == first.key


def test_a_dry_run_sends_nothing_offsets_choose_and_the_same_place_asks_first(kafka, catalogue, target, rerun, shell):
    to = ("--to", target.prefix)
    assert rerun("--since", "1h", *to, "--dry-run")["sent"] == {target.queries: QUERIES, target.feedback: QUERIES}
    by_offset = ("--offsets", "queries/0=1:3", "--offsets", "feedback/0=0:100")
    assert rerun(*by_offset, *to)["sent"] == {target.queries: 2, target.feedback: 2}
    asked = shell.run("replay", "produce", "--since", "1h", "--ids", "same")
    assert asked.code == exits.FAILURE
    for arguments, said in (
        (("--since", "1h", "--to", "nowhere"), "topic nowhere.queries does not exist"),
        (("--offsets", "queries/9=1:3", *to), "partitions are 0 to 1"),
    ):
        assert shell("replay", "produce", *arguments, code=exits.SETUP, said=said) == []
    with AnyClient(kafka.bootstrap) as client:
        assert [len(client.read(topic)) for topic in (catalogue.queries, target.queries)] == [QUERIES, 2]


def test_other_partition_counts_send_by_key(kafka, catalogue, rerun):
    with temporary_topics(kafka, partitions=3) as wide, AnyClient(kafka.bootstrap) as client:
        summary = rerun("--since", "1h", "--to", wide.prefix)
        assert summary["sent"] == {wide.queries: QUERIES, wide.feedback: QUERIES}
        by_key = {one.key: one.partition for one in client.read(wide.queries)}
        assert by_key == {key: client.send(wide.outputs, b"x", key=key).partition for key in by_key}
        assert all(by_key[one.key] == one.partition for one in client.read(wide.feedback))


def test_an_interrupted_run_says_what_it_sent(kafka, catalogue, target, tmp_path):
    environ = environment_of(kafka, catalogue)
    slowly = ("--since", "1h", "--to", target.prefix, "--speed", "0.000001", "--json")
    with AnyClient(kafka.bootstrap) as client, client.reading(target.queries) as reading:
        with Program("replay", "produce", *slowly, folder=tmp_path, environ=environ) as program:
            reading.until("a query", lambda records: records)
            program.signal(signal.SIGINT)
            assert program.ended() == 130
            summary = json.loads("\n".join(program.lines))
        assert summary["interrupted"]
        assert summary["sent"] == {target.queries: len(reading.to_the_end())}
