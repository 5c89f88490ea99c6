"""A router process: every query answered once, every feedback counted once, however it starts and ends."""

import asyncio
import shutil
import signal
import time
from collections import Counter

import msgspec
import oracle
import pytest
from builders.router_deployment import WITHIN_S, Deployment

from clipper_topics import codec
from clipper_topics.dead_letter import read_dead_letter
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec, Trial

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MODELS = [ModelManifest(name=name, uri="x:y", input=InputSpec(shape=[2])) for name in ("m", "n")]


SESSION_S = 10.0
"""Of the routers' group: after so long without a heartbeat the partitions of a member are given to others."""


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


def on_kafka(test):
    """Run a test's coroutine with a deployment of its own."""

    def run(kafka, catalogue, tmp_path):
        asyncio.run(asyncio.wait_for(test(Deployment(kafka, catalogue, tmp_path)), 280))

    run.__name__, run.__doc__ = test.__name__, test.__doc__
    return run


@on_kafka
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
        (offset,) = await at.ask({"application": "hasty", "input": [1, 2]}, partition=1)
        found |= (await at.predictions(f"1-{offset}"))[0]
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
        f"1-{offset}": "late",
    }
    assert found[f"1-{offset}"].output == -1
    assert set(counts.values()) == {1}


@on_kafka
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


@on_kafka
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


@on_kafka
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


@on_kafka
async def test_queries_in_flight_are_answered_before_a_router_ends(at):
    await at.declare(app(objective_ms=1500), *MODELS)
    async with at.router() as router, at.host({"m:1": None, "n:1": None}):
        await at.ask(*({"query_id": f"q{number}", "input": [number, 1]} for number in range(50)))
        await at.read(at.catalogue.requests("m", "1"), lambda records: len(records) > 0)
        assert await router.ended(signal.SIGTERM) == 0, router.log
    found, counts = await at.predictions(*(f"q{number}" for number in range(50)))
    assert {one.reason for one in found.values()} <= {"late", "arrived_late"}
    assert set(counts.values()) == {1}


class Traffic:
    """Asks in both partitions, and gives feedback for what is answered, until it is told to stop."""

    def __init__(self, at):
        self.at, self.asked, self.done = at, [], asyncio.Event()
        self._progress = asyncio.Condition()

    async def ask(self):
        async with self.at.producer() as producer:
            while not self.done.is_set():
                number = len(self.asked)
                value = {"query_id": f"q{number}", "application": "app", "input": [number % 50, 1]}
                if number % 7 == 0:
                    value["context"] = f"c{number % 3}"
                self.asked.append(f"q{number}")
                topic, partition = self.at.catalogue.queries, number % 2
                await producer.send_and_wait(topic, msgspec.json.encode(value), partition=partition)
                if number % 3 == 0:  # feedback before, after and without its prediction; some of it twice
                    truth = msgspec.json.encode({"query_id": f"q{number}", "label": number % 4})
                    for _ in range(1 + number % 2):
                        await producer.send_and_wait(self.at.catalogue.feedback, truth, partition=partition)
                async with self._progress:
                    self._progress.notify_all()

    async def reaches(self, count):
        """So many more queries were asked."""
        goal = len(self.asked) + count
        async with self._progress, asyncio.timeout(WITHIN_S):
            await self._progress.wait_for(lambda: len(self.asked) >= goal)


async def check_logs_and_table(at, asked, *, zombies=False):
    """Every query is answered, no two answers differ, and the table is the serial fold of the logs, bit for bit.

    A process that does not know yet that it has lost a partition may answer a query a second time, and otherwise: of
    several predictions the first counts.
    """
    await at.predictions(*asked)
    predictions = await at.read(at.catalogue.predictions)
    answers = {}
    for one in predictions:
        answers.setdefault(one.content["query_id"], set()).add(one.value)
    assert answers.keys() == set(asked)
    assert zombies or all(len(values) == 1 for values in answers.values())
    feedback = await at.read(at.catalogue.feedback)
    ends = {one.partition: one.offset for one in feedback}
    changelog = await at.read(
        at.catalogue.selection_changelog, lambda records: oracle.positions(oracle.table(records)) == ends
    )
    audits = await at.read(at.catalogue.audits, lambda found: not oracle.unaudited(predictions, found))
    expected = oracle.fold(predictions, feedback, {"app": {}}, audits)
    table = oracle.table(changelog)
    assert {key: row.bits for key, row in table.items()} == {key: row.bits for key, row in expected.items()}
    assert sum(row.applied for row in table.values()) > len(asked) / 5
    return len(predictions) - len(asked)


@pytest.mark.long
@on_kafka
async def test_a_router_that_is_killed_loses_nothing_with_its_data_and_without(at):
    await at.declare(app(objective_ms=120_000), *MODELS)
    traffic = Traffic(at)
    async with at.host(HOSTS):
        asking = asyncio.create_task(traffic.ask())
        for wiped in (False, True, False, True):
            async with at.router() as router:
                await traffic.reaches(100)
                await router.ended(signal.SIGKILL)
            if wiped:
                shutil.rmtree(at.folder / "data", ignore_errors=True)
        async with at.router() as router:
            await traffic.reaches(50)
            traffic.done.set()
            await asking
            await check_logs_and_table(at, traffic.asked)
            assert await router.ended(signal.SIGTERM) == 0, router.log


@pytest.mark.long
@on_kafka
async def test_routers_that_come_and_go_share_the_partitions(at):
    await at.declare(app(objective_ms=120_000), *MODELS)
    traffic = Traffic(at)
    async with at.host(HOSTS), at.router("router-0") as first:
        asking = asyncio.create_task(traffic.ask())
        await traffic.reaches(100)
        async with at.router("router-1") as second, at.router("router-2") as idle:
            await traffic.reaches(300)
            assert await idle.ended(signal.SIGTERM) == 0, idle.log  # there are two partitions
            assert await second.ended(signal.SIGTERM) == 0, second.log
        await traffic.reaches(300)
        traffic.done.set()
        await asking
        await check_logs_and_table(at, traffic.asked)
        assert await first.ended(signal.SIGTERM) == 0, first.log


@on_kafka
async def test_a_router_that_was_frozen_longer_than_its_session_spoils_no_weight(at):
    """It wakes up and goes on as if the partition were its own: first predictions and audits, and newest rows count."""
    tried = app(objective_ms=120_000, models=["m:1"], trials=[Trial(model="n:1", share=0.5)])
    await at.declare(tried, *MODELS)
    traffic = Traffic(at)
    async with at.host(HOSTS), at.router("router-0") as first, at.router("router-1") as second:
        asking = asyncio.create_task(traffic.ask())
        await traffic.reaches(100)
        first.process.send_signal(signal.SIGSTOP)
        both = {0, 1}
        known = len(await at.read(at.catalogue.predictions))
        frozen_s = time.monotonic()
        await at.read(
            at.catalogue.predictions,
            lambda found: len(found) > known and {one.partition for one in found[known:]} == both
            and time.monotonic() > frozen_s + SESSION_S,
        )  # fmt: skip
        first.process.send_signal(signal.SIGCONT)
        await traffic.reaches(300)
        traffic.done.set()
        await asking
        await check_logs_and_table(at, traffic.asked, zombies=True)
        assert await second.ended(signal.SIGTERM) == 0, second.log
