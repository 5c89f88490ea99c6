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

QUERIES = 20
PRODUCE = ("replay", "produce", "--json", "--since", "1h")


@pytest.fixture(scope="module")
def catalogue(kafka):
    """A log with queries, half of them without an id, feedback about each, and what is not sent again."""
    with temporary_topics(kafka) as own, AnyClient(kafka.bootstrap) as client:
        for number in range(QUERIES):
            key, named = f"key-{number}".encode(), {"query_id": f"order {number}"} if number % 2 else {}
            asked = {"application": "app", "input": [number, 1], **named}
            stored = client.send_json(own.queries, asked, key=key, headers={"trace": key})
            query_id = named.get("query_id") or f"{stored.partition}@{stored.offset}"
            client.send_json(own.feedback, {"query_id": query_id, "label": number + 1}, key=key)
        client.send(own.feedback, b"marker", headers={RESTORE: b"r-0123456789abcdef"}, partition=0)
        client.send_json(own.feedback, {"query_id": "long ago", "label": 1}, key=b"key-1")
        yield own


@pytest.fixture
def target(kafka):
    with temporary_topics(kafka) as own:
        yield own


async def test_a_second_deployment_answers_and_learns_a_range_as_often_as_it_is_sent(
    kafka, catalogue, target, tmp_path
):
    at = Deployment(kafka, target, tmp_path)
    with AnyClient(kafka.bootstrap) as client:
        old = client.read(catalogue.queries)
    ids = [one.content.get("query_id") or f"{one.partition}@{one.offset}" for one in old]
    await at.declare(app(), *MODELS)
    async with at.router(), at.host({"m:1": total, "n:1": lambda row: total(row) + 1}):
        for times, speed in enumerate(("0", "10"), 1):
            words = (*PRODUCE, "--to", target.prefix, "--speed", speed)
            done = await asyncio.to_thread(run, *words, folder=tmp_path, environ=environment_of(kafka, catalogue))
            summary = json.loads(done.out)
            assert summary["sent"] == {target.queries: QUERIES, target.feedback: QUERIES}
            assert summary["left_out"] == {"restore_marker": 1, "no_query": 1}
            assert (summary["complete"], summary["failed"]) == (True, 0)
            found, counts = await at.predictions(*(f"{query_id}~{summary['run']}" for query_id in ids))
            assert {(one.default, one.output) for one in found.values()} <= {(False, n) for n in range(1, QUERIES + 2)}
            assert set(counts.values()) == {1}
            async with asyncio.timeout(90):
                while sum(row.totals["m:1"][0] for row in await rows_of(at) if "m:1" in row.totals) != times * QUERIES:
                    await asyncio.sleep(0.1)
    with AnyClient(kafka.bootstrap) as client:
        copies = client.read(target.queries)
    assert {(one.partition, one.key) for one in old} == {(one.partition, one.key) for one in copies}
    assert all(one.headers["trace"] == one.key for one in copies)


def test_a_run_sends_what_was_chosen_to_topics_that_are_alike(kafka, catalogue, target, shell):
    with temporary_topics(kafka, partitions=3) as wide, AnyClient(kafka.bootstrap) as client:
        for to, said in (
            ("nowhere", "topic nowhere.queries does not exist"),
            (wide.prefix, f"{wide.queries} has 3 partitions, {catalogue.queries} has 2"),
        ):
            assert shell(*PRODUCE, "--to", to, code=exits.SETUP, said=said) == []
        for chosen in ("--until", "30m"), ("--application", "other"):
            assert shell.json(*PRODUCE, "--to", target.prefix, *chosen)[0]["sent"] == {}
        assert [len(client.read(topic)) for topic in (catalogue.queries, target.queries)] == [QUERIES, 0]


def test_an_interrupted_run_says_what_it_sent(kafka, catalogue, target, tmp_path):
    slowly = (*PRODUCE, "--to", target.prefix, "--speed", "0.000001")
    with AnyClient(kafka.bootstrap) as client, client.reading(target.queries) as reading:
        with Program(*slowly, folder=tmp_path, environ=environment_of(kafka, catalogue)) as program:
            reading.until("a query", lambda records: records)
            program.signal(signal.SIGINT)
            assert program.ended() == exits.INTERRUPTED
            summary = json.loads("\n".join(program.lines))
        assert not summary["complete"]
        assert summary["sent"] == {target.queries: len(reading.to_the_end())}
