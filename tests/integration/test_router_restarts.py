import asyncio
import json
import random
import shutil
import signal
from collections import Counter
from itertools import count

import oracle
import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from builders.router_deployment import MODELS, WITHIN_S, app, decoded, total
from integration.live_traffic import learned

from clipper_agents.status.collect import read_status
from clipper_topics import codec
from clipper_topics.manifests import InputSpec, ModelManifest, PolicySpec
from clipper_topics.prediction import PolicyRef, Prediction

HOSTS = {"m:1": total, "n:1": total}


async def until_logged(router, text):
    async with asyncio.timeout(WITHIN_S):
        while text not in router.log:
            await asyncio.sleep(0.05)


async def test_queries_in_flight_are_answered_before_a_router_ends(at):
    await at.declare(app(objective_ms=1_500), *MODELS)
    ids = [f"q{number}" for number in range(50)]
    async with at.router(), at.host(dict.fromkeys(HOSTS)):
        await at.ask(*({"query_id": one, "input": [number, 1]} for number, one in enumerate(ids)))
        await at.read(at.catalogue.requests("m", "1"), lambda records: len(records) > 0)
    found, counts = await at.predictions(*ids)
    assert ({one.default for one in found.values()}, counts) == ({True}, dict.fromkeys(ids, 1))


async def test_a_router_behind_the_end_of_a_log_reads_nothing_twice(at):
    await at.declare(app(), *MODELS)
    queries, group = TopicPartition(at.catalogue.queries, 0), at.catalogue.router_group
    async with AIOKafkaConsumer(**at.kafka.aiokafka(), group_id=group, enable_auto_commit=False) as consumer:
        consumer.assign([queries])
        await consumer.commit({queries: 2})
    await at.ask({"query_id": "before", "input": [1, 2]})
    async with at.router() as router, at.host(HOSTS):
        await until_logged(router, "offset=2: the log ends at 1")
        await at.ask({"query_id": "between", "input": [1, 2]}, {"query_id": "behind", "input": [1, 2]})
        assert (await at.predictions("behind"))[1] == {"behind": 1}


async def test_a_transaction_for_each_query_gives_neither_warnings_nor_lag(at):
    await at.declare(app(), *MODELS)
    ids = [f"q{number}" for number in range(60)]
    async with at.router() as router, at.host(HOSTS):
        async with at.producer(transactional_id=f"{at.catalogue.prefix}-application") as producer:
            for number, query_id in enumerate(ids):
                value = json.dumps({"query_id": query_id, "application": "app", "input": [number, 1]}).encode()
                async with producer.transaction():
                    await producer.send(at.catalogue.queries, value, partition=0)
        assert (await at.predictions(*ids))[1] == dict.fromkeys(ids, 1)
        await at.tell({"query_id": "nobody", "label": 1}, {"query_id": "q1", "label": 2})
        await learned(at, 1)
        async with asyncio.timeout(WITHIN_S):
            while sum((await read_status(at.kafka, at.catalogue)).cluster.groups[0].lag.values()):
                await asyncio.sleep(0.1)
    assert "warning" not in router.log.lower()


async def test_the_newest_queries_come_first_and_the_others_are_answered_once(at):
    """The router is frozen while a backlog comes, of queries that are too late at once; and killed in the middle."""
    place, new = {"partition": 1, "key": b"key"}, count()
    late = [f"late {number}" for number in range(LATE)]

    async def answers(holds):
        """Ask one new query after the other until the predictions are as wanted; these, in the order of their log."""
        while True:
            await at.ask({"query_id": f"new {next(new)}", "input": [1, 1]}, **place)
            found = [decoded(one) for one in await at.read(at.catalogue.predictions, numbers=[1])]
            if holds(found):
                return found

    def is_new(prediction):
        return prediction.query_id.startswith("new")

    await at.declare(app(models=["m:1"], policy=PolicySpec(name="single")), *MODELS)
    async with at.host(HOSTS):
        async with at.router() as router:
            await at.ask({"query_id": "first", "input": [1, 1]}, **place)
            await at.predictions("first", numbers=[1])
            router.signal(signal.SIGSTOP)
            await at.ask(*({"query_id": one, "input": [1, 1], "deadline_ms": 1} for one in late), **place)
            router.signal(signal.SIGCONT)
            await answers(lambda found: any(map(is_new, found)))
            await router.ended(signal.SIGKILL)
        async with at.router():
            found = await answers(lambda found: {*late} <= {one.query_id for one in found})
    assert next(number for number, one in enumerate(found) if is_new(one)) < LATE, "it came behind all of them"
    assert {one.reason for one in found if not is_new(one)} == {None, "arrived_late"}
    times = Counter(one.query_id for one in found)
    assert {query_id: many for query_id, many in times.items() if many != 1} == {}


LATE = 20_000
"""More than the two fetches after which a router leaves the others for later."""


# --- by the time of the log, and not of the router or of what it still has ------------------------------------------
HORIZON_S = 2.0
COUNT = 1_200
"""More than two learning steps: while the first of them is made, decisions of the time after the outage come in."""


async def let_the_log_pass(at, seconds):
    """Ask until the broker's clock is so much later."""
    async with at.producer() as producer:
        first = last = None
        while first is None or last < first + seconds * 1000:
            value = b'{"application": "app", "input": [0, 0]}'
            last = (await producer.send_and_wait(at.catalogue.queries, value, partition=0)).timestamp
            first = first or last
            await asyncio.sleep(0.05)


async def test_feedback_in_time_counts_once_however_long_routers_were_down_and_whatever_they_lost(at):
    """With the router's clock, all of it was refused: 48 s down, a horizon of 20 s, 1,000 of 1,500."""
    await at.declare(app(models=["m:1"], policy=PolicySpec(name="exp3")), *MODELS)
    early, *others = queries = [{"query_id": f"q{number}", "input": [number, 0]} for number in range(COUNT)]
    told = [{"query_id": one["query_id"], "label": number} for number, one in enumerate(queries)]
    async with at.router(horizon_s=HORIZON_S), at.host(HOSTS):
        await at.tell(told[0])
        await at.ask(early)
        await learned(at, 1)
        await at.ask(*others)
        await at.predictions(*(one["query_id"] for one in others))
    shutil.rmtree(at.folder / "data")
    await at.tell(*told)
    await let_the_log_pass(at, 2 * HORIZON_S)
    other = Prediction(query_id="other", application="app", output=1, policy=PolicyRef(name="exp3"), query_offset=-1)
    await at.send(at.catalogue.predictions, codec.predictions.encode(other))
    async with at.router(horizon_s=HORIZON_S), at.host(HOSTS):
        await learned(at, COUNT)
        await at.ask({"query_id": "after", "input": [1, 1]})
        await at.predictions("after")
        await at.tell({"query_id": "after", "label": 2})
        await learned(at, COUNT + 1)
    table = oracle.table(await at.read(at.catalogue.selection_changelog))
    assert table["app", None, 0].applied == COUNT + 1
    assert await at.read(at.catalogue.dead_letters) == []


# --- a router that chooses by a query's features --------------------------------------------------------------------
async def test_each_model_is_asked_where_it_is_right_also_after_a_kill(at):
    """test_random_schedule of tests/faults compares what such a policy has learned with the oracle."""
    world = random.Random(5)
    models = [ModelManifest(name=name, uri="x:y", input=InputSpec(shape=[1])) for name in ("low", "high")]
    lin_ucb = PolicySpec(name="lin_ucb", parameters={"exploration": 0.2})
    settings = dict(models=["low:1", "high:1"], input=InputSpec(shape=[1]), policy=lin_ucb)
    await at.declare(app("given", **settings), app("of-input", input_features=1, **settings), *models)

    async def ask_and_tell(name, values, first):
        """Say which answer was right; the predictions, and what they should have been."""
        queries = {f"{name}-{number}": value for number, value in enumerate(values, first)}
        right = {one: "high" if value > 0.5 else "low" for one, value in queries.items()}
        asked = [{"application": name, "query_id": one, "input": [value]} for one, value in queries.items()]
        await at.ask(*(one | ({"features": one["input"]} if name == "given" else {}) for one in asked))
        found, counts = await at.predictions(*queries)
        await at.tell(*({"query_id": one, "label": label} for one, label in right.items()))
        await at.read(
            at.catalogue.selection,
            lambda records: oracle.table(records).get((name, None, 0), oracle.Row()).applied >= first + len(values),
        )
        assert {counts[one] for one in queries} == {1}
        return [(found[one], right[one]) for one in queries]

    values, names = [world.random() for _ in range(60)], ("given", "of-input")
    async with at.host({"low:1": lambda row: "low", "high:1": lambda row: "high"}):
        async with at.router() as router:
            for name in names:
                before, _ = zip(*await ask_and_tell(name, values, 0), strict=True)
                # the features are in the log, to the last bit that the model got: an input of float32 has fewer
                assert [one.features[0] for one in before] == pytest.approx(values, rel=1e-7)
                assert {len(one.models) for one in before} == {1}
            await router.ended(signal.SIGKILL)
        async with at.router():
            for name in names:
                # all of what was learned before: a line through two steps is wrong near the middle alone
                after = [pair for pair in await ask_and_tell(name, values, 60) if pair[0].models[0].propensity > 0.5]
                assert sum(one.output == right for one, right in after) / len(after) > 0.8
