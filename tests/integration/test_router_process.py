"""A router process: every query answered once, every feedback counted once, however it starts and ends."""

import signal
from collections import Counter

import msgspec
import oracle
import pytest

from clipper_topics import codec
from clipper_topics.dead_letter import read_dead_letter
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MODELS = [ModelManifest(name=name, uri="x:y", input=InputSpec(shape=[2])) for name in ("m", "n")]


def app(name="app", **changes):
    settings = dict(
        models=["m:1", "n:1"], input=InputSpec(shape=[2]), policy=PolicySpec(name="exp4"), objective_ms=20_000
    )
    return ApplicationManifest(name=name, **(settings | changes))


def total(row):
    return int(row.sum())


def total_or_fail(row):
    if row[0] == 13:
        raise ValueError("thirteen")
    return int(row.sum())


HOSTS = {"m:1": total, "n:1": total_or_fail}


async def test_queries_are_answered_by_models_or_with_the_reason_why_not(at):
    await at.declare(app(), app("hasty", objective_ms=300, models=["m:1"], default_output=-1), *MODELS[:1], *MODELS[1:])
    async with at.router() as router:
        async with at.host(HOSTS):
            await at.ask(
                {"query_id": "one", "input": [1, 2]},
                {"query_id": "rows", "inputs": [[1, 2], [3, 4]]},
                {"query_id": "a row fails", "inputs": [[13, 0], [3, 4]]},
                {"query_id": "named", "input": [1, 2], "models": ["n"]},
                {"query_id": "wrong", "input": "text"},
                {"query_id": "neither"},
                {"query_id": "unknown model", "input": [1, 2], "models": ["z"]},
                {"query_id": "unknown application", "input": [1, 2], "application": "z"},
                key=b"key",
            )
            packed = msgspec.msgpack.encode({"query_id": "packed", "application": "app", "input": [1, 2]})
            await at.ask(packed, partition=1, headers=codec.MSGPACK_HEADERS)
            found, counts = await at.predictions("one", "packed", "unknown application")
        (offset,) = await at.ask({"application": "hasty", "input": [5, 6]}, partition=1)  # no row that may be cached
        found |= (await at.predictions(f"1@{offset}"))[0]
        assert await router.ended(signal.SIGTERM) == 0, router.log
    assert (found["one"].output, found["one"].confidence, found["one"].default) == (3, 1.0, False)
    assert {f"{use.model}:{use.version}" for use in found["one"].models} == {"m:1", "n:1"}
    assert found["rows"].outputs == [3, 7]
    assert (found["a row fails"].outputs, found["a row fails"].confidence) == ([13, 7], 0.5)
    (partly,) = [use for use in found["a row fails"].models if use.model == "n"]
    assert (partly.outputs, [(one.row, one.explanation) for one in partly.missing_rows]) == (
        [None, 7],
        [(0, "thirteen")],
    )
    assert [use.model for use in found["named"].models] == ["n"]
    assert found["packed"].output == 3
    reasons = {query_id: one.reason for query_id, one in found.items() if one.default}
    assert reasons == {
        "wrong": "invalid_input",
        "neither": "invalid_input",
        "unknown model": "unknown_model",
        "unknown application": "unknown_application",
        f"1@{offset}": "late",
    }
    assert found[f"1@{offset}"].output == -1
    assert set(counts.values()) == {1}


async def test_what_cannot_be_read_is_kept_as_a_dead_letter_and_holds_up_nobody(at):
    await at.declare(app(), *MODELS)
    async with at.router() as router, at.host(HOSTS):
        await at.ask(b"{", b"\xff" * 900_000, {"query_id": "q", "input": [1, 2]})
        await at.send(at.catalogue.outputs, b"\x01junk", b"")
        await at.predictions("q")
        await at.send(at.catalogue.feedback, b"{", {"query_id": "nobody", "label": 1}, {"query_id": "q", "label": 3})
        letters = await at.read(at.catalogue.dead_letters, lambda found: len(found) >= 6)
        assert await router.ended(signal.SIGTERM) == 0, router.log
    where = Counter(read_dead_letter(one.headers.items()).topic for one in letters)
    assert where == {at.catalogue.queries: 2, at.catalogue.outputs: 2, at.catalogue.feedback: 2}
    assert max(len(one.value or b"") for one in letters) == 900_000
    assert any("no decision about query 'nobody'" in read_dead_letter(one.headers.items()).message for one in letters)


async def test_feedback_moves_the_weights_and_reaches_the_other_routers(at):
    await at.declare(app(), *MODELS)
    async with at.router() as router, at.host({"m:1": total, "n:1": lambda row: -1}):
        ids = [f"q{number}" for number in range(20)]
        await at.ask(*({"query_id": one, "input": [place, 1]} for place, one in enumerate(ids)))
        found, _ = await at.predictions(*ids)
        await at.send(at.catalogue.feedback, *({"query_id": one, "label": place + 1} for place, one in enumerate(ids)))
        await at.read(
            at.catalogue.selection,
            lambda records: any(oracle.table([one])["app", None, 0].applied == 20 for one in records),
        )
        await at.ask({"query_id": "after", "input": [100, 1]})
        after = (await at.predictions("after"))[0]["after"]
        assert await router.ended(signal.SIGTERM) == 0, router.log
    assert found["q0"].output in (1, -1)
    assert after.output == 101
    table = oracle.table(await at.read(at.catalogue.selection_changelog))
    assert {model: sums[:2] for model, sums in table["app", None, 0].totals.items()} == {
        "m:1": [20, 0],
        "n:1": [20, 20],
    }


async def test_a_log_that_ends_with_a_transaction_marker_holds_up_no_feedback(at):
    await at.declare(app(), *MODELS)
    async with at.router() as router, at.host(HOSTS):
        async with at.producer(transactional_id=f"{at.catalogue.prefix}-application") as producer:
            for number in range(3):
                async with producer.transaction():
                    value = msgspec.json.encode({"query_id": f"q{number}", "application": "app", "input": [number, 1]})
                    await producer.send(at.catalogue.queries, value, partition=0)
        _, counts = await at.predictions("q0", "q1", "q2")
        assert counts == {"q0": 1, "q1": 1, "q2": 1}
        await at.send(at.catalogue.feedback, {"query_id": "nobody", "label": 1}, {"query_id": "q1", "label": 2})
        await at.read(at.catalogue.selection, lambda records: len(records) > 0)
        assert await router.ended(signal.SIGTERM) == 0, router.log


async def test_queries_in_flight_are_answered_before_a_router_ends(at):
    await at.declare(app(objective_ms=1500), *MODELS)
    async with at.router() as router, at.host({"m:1": None, "n:1": None}):
        await at.ask(*({"query_id": f"q{number}", "input": [number, 1]} for number in range(50)))
        await at.read(at.catalogue.requests("m", "1"), lambda records: len(records) > 0)
        assert await router.ended(signal.SIGTERM) == 0, router.log
    found, counts = await at.predictions(*(f"q{number}" for number in range(50)))
    assert {one.reason for one in found.values()} <= {"late", "arrived_late"}
    assert set(counts.values()) == {1}
