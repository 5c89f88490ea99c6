"""Logged traffic is sent again: every query is answered, feedback counts once, and nothing else is sent."""

import asyncio
import json
import signal
import uuid
from dataclasses import replace

import pytest
from builders.router_deployment import Deployment
from e2e.any_client import AnyClient
from e2e.programs import Program, environment_of, run, until

from clipper_agents.control.selection_states import read_rows
from clipper_agents.kafka.topics import delete_topics, ensure_topics, existing_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec
from clipper_topics.restore import RESTORE

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MODELS = [ModelManifest(name=name, uri="x:y", input=InputSpec(shape=[2])) for name in ("m", "n")]
APP = ApplicationManifest(
    name="app", models=["m:1", "n:1"], input=InputSpec(shape=[2]), policy=PolicySpec(name="exp4"), objective_ms=60_000
)
HOSTS = {"m:1": lambda row: int(row.sum()), "n:1": lambda row: int(row.sum()) + 1}
QUERIES = 20


@pytest.fixture
def target(kafka, catalogue):
    """Topics of another deployment, with as many partitions."""
    own = replace(catalogue, prefix=f"t{uuid.uuid4().hex[:6]}")
    asyncio.run(ensure_topics(kafka, own))
    yield own
    asyncio.run(_removed(kafka, own))


async def _removed(kafka, own):
    await delete_topics(kafka, list(await existing_topics(kafka, own.prefix)))


def log_traffic(kafka, catalogue):
    """Queries, half of them without an id, and feedback about each; the old ids."""
    with AnyClient(kafka.bootstrap) as client:
        ids = []
        for number in range(QUERIES):
            key = f"key-{number}".encode()
            named = {"query_id": f"order {number}"} if number % 2 else {}
            asked = {"application": "app", "input": [number, 1], **named}
            stored = client.send_json(catalogue.queries, asked, key=key, headers={"trace": key})
            ids.append(named.get("query_id") or f"{stored.partition}@{stored.offset}")
            client.send_json(catalogue.feedback, {"query_id": ids[-1], "label": number + 1}, key=key)
        client.send(catalogue.feedback, b"marker", headers={RESTORE: b"r-0123456789abcdef"}, partition=0)
        client.send_json(catalogue.feedback, {"query_id": "long ago", "label": 1}, key=b"key-1")
    return ids


def rerun(kafka, catalogue, folder, *arguments):
    environ = environment_of(kafka, catalogue)
    return run("replay", "produce", "--json", *arguments, folder=folder, environ=environ)


def learned(kafka, catalogue):
    """How many feedbacks count for one model in all partitions."""
    rows = asyncio.run(read_rows(kafka, catalogue, "app"))
    return sum(row.totals["m:1"][0] for row in rows if "m:1" in row.totals)


def test_a_second_deployment_answers_a_range_and_equal_ids_count_once(kafka, catalogue, target, tmp_path):
    ids = log_traffic(kafka, catalogue)

    def sent(*arguments):
        done = rerun(kafka, catalogue, tmp_path, "--since", "1h", "--to", target.prefix, *arguments)
        assert done.code == 0, done
        return json.loads(done.out)

    async def scenario():
        at = Deployment(kafka, target, tmp_path)
        await at.declare(APP, *MODELS)
        async with at.router(), at.host(HOSTS):
            fast = await asyncio.to_thread(sent, "--speed", "max")
            new = [f"{query_id}~{fast['run']}" for query_id in ids]
            found, counts = await at.predictions(*new)
            await asyncio.to_thread(until, "all learned", lambda: learned(kafka, target) == QUERIES)
            tenfold = await asyncio.to_thread(sent, "--speed", "10")
            again = [f"{query_id}~{tenfold['run']}" for query_id in ids]
            await at.predictions(*again)
            await asyncio.to_thread(until, "both learned", lambda: learned(kafka, target) == 2 * QUERIES)
            for _ in range(2):
                await asyncio.to_thread(sent, "--speed", "max", "--ids", "same")
            same, _ = await at.predictions(*(f"{one}~" if "@" in one else one for one in ids))
            await at.ask({"query_id": "last", "input": [1, 1]})
            await at.send(target.feedback, {"query_id": "last", "label": 2})
            await asyncio.to_thread(until, "all counted once", lambda: learned(kafka, target) == 3 * QUERIES + 1)
        return fast, tenfold, found, counts, same

    fast, tenfold, found, counts, same = asyncio.run(asyncio.wait_for(scenario(), 280))
    for summary in (fast, tenfold):
        assert summary["sent"] == {target.queries: QUERIES, target.feedback: QUERIES}
        assert summary["left_out"] == {"restore_marker": 1, "no_query": 1}
        assert summary["failed"] == 0
    assert (fast["late"], tenfold["pace"]["speed"] <= 10.01) == (None, True)
    assert tenfold["late"]["p50_ms"] >= 0.0
    assert {found[f"{query_id}~{fast['run']}"].output for query_id in ids} <= set(range(1, QUERIES + 2))
    assert not any(one.default for one in [*found.values(), *same.values()])
    assert set(counts.values()) == {1}
    with AnyClient(kafka.bootstrap) as client:
        old, copies = client.read(catalogue.queries), client.read(target.queries)
    assert {(one.partition, one.key) for one in old} == {(one.partition, one.key) for one in copies} - {(0, None)}
    first = next(one for one in copies if one.headers.get("clipper-replayed-from"))
    place = first.headers["clipper-replayed-from"].decode().split("/")
    assert place == [catalogue.queries, str(first.partition), "0"]
    assert first.headers["trace"] == first.key


def test_a_dry_run_sends_nothing_offsets_choose_and_the_same_place_asks_first(kafka, catalogue, target, tmp_path):
    log_traffic(kafka, catalogue)
    dry = json.loads(rerun(kafka, catalogue, tmp_path, "--since", "1h", "--to", target.prefix, "--dry-run").out)
    assert dry["sent"] == {target.queries: QUERIES, target.feedback: QUERIES}
    asked = rerun(kafka, catalogue, tmp_path, "--since", "1h", "--ids", "same")
    assert asked.code != 0
    by_offset = ["--offsets", "queries/0=1:3", "--offsets", "feedback/0=0:100", "--to", target.prefix]
    some = json.loads(rerun(kafka, catalogue, tmp_path, *by_offset, "--speed", "max").out)
    assert some["sent"] == {target.queries: 2, target.feedback: 2}
    nowhere = rerun(kafka, catalogue, tmp_path, "--since", "1h", "--to", "nowhere")
    assert (nowhere.code, len(nowhere.err)) == (3, 1)
    assert "topic nowhere.queries does not exist" in nowhere.err[0]
    beyond = rerun(kafka, catalogue, tmp_path, "--offsets", "queries/9=1:3", "--to", target.prefix)
    assert (beyond.code, "partitions are 0 to 1" in beyond.err[0]) == (3, True), beyond
    with AnyClient(kafka.bootstrap) as client:
        assert [len(client.read(topic)) for topic in (catalogue.queries, target.queries)] == [QUERIES, 2]


def test_other_partition_counts_send_by_key(kafka, catalogue, tmp_path):
    log_traffic(kafka, catalogue)
    wide = Catalogue(prefix=f"t{uuid.uuid4().hex[:6]}", partitions=3)
    asyncio.run(ensure_topics(kafka, wide))
    try:
        summary = json.loads(
            rerun(kafka, catalogue, tmp_path, "--since", "1h", "--to", wide.prefix, "--speed", "max").out
        )
        with AnyClient(kafka.bootstrap) as client:
            copies = client.read(wide.queries)
            by_key = {one.key: one.partition for one in copies}
            check = {key: client.send(wide.outputs, b"x", key=key).partition for key in by_key}
            assert all(by_key[one.key] == one.partition for one in client.read(wide.feedback))
    finally:
        asyncio.run(_removed(kafka, wide))
    assert summary["sent"] == {wide.queries: QUERIES, wide.feedback: QUERIES}
    assert by_key == check


def test_an_interrupted_run_says_what_it_sent(kafka, catalogue, target, tmp_path):
    log_traffic(kafka, catalogue)
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
