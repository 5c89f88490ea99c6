"""A router that chooses by a query's features: it learns which model is right where, and a kill takes nothing of it."""

import random
import signal

import oracle
import pytest

from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MODELS = [ModelManifest(name=name, uri="x:y", input=InputSpec(shape=[1])) for name in ("low", "high")]
HOSTS = {"low:1": lambda row: "low", "high:1": lambda row: "high"}
POLICY = {"name": "lin_ucb", "parameters": {"exploration": 0.2}}


def app(name, **changes):
    settings = dict(models=["low:1", "high:1"], input=InputSpec(shape=[1]), policy=PolicySpec(**POLICY))
    return ApplicationManifest(name=name, objective_ms=60_000, **(settings | changes))


async def ask_and_tell(at, application, values, first):
    """Ask in both partitions, and say which answer was right; the predictions."""
    queries = {f"{application}-{number}": value for number, value in enumerate(values, first)}
    for partition in (0, 1):
        asked = [
            {"application": application, "query_id": one, "input": [value], **({"features": [value]} if given else {})}
            for place, (one, value) in enumerate(queries.items())
            for given in [application == "given"]
            if place % 2 == partition
        ]
        await at.ask(*asked, partition=partition)
    found, counts = await at.predictions(*queries)
    for partition in (0, 1):
        told = [
            {"query_id": one, "label": "high" if value > 0.5 else "low"}
            for place, (one, value) in enumerate(queries.items())
            if place % 2 == partition
        ]
        await at.send(at.catalogue.feedback, *told, partition=partition)
    await at.read(at.catalogue.selection, lambda records: learned(records, application) >= first + len(values))
    assert {counts[one] for one in queries} == {1}
    return [found[one] for one in queries]


def learned(records, application):
    """Feedbacks that counted, as the routers published."""
    rows = oracle.table(records)
    return sum(rows.get((application, None, partition), oracle.Row()).applied for partition in (0, 1))


def share_right(found, values):
    greedy = [one for one in found if one.models[0].propensity > 0.5]
    right = [one.output == ("high" if value > 0.5 else "low") for one, value in zip(found, values, strict=True)
             if one in greedy]  # fmt: skip
    return sum(right) / len(right)


async def test_each_model_is_asked_where_it_is_right_also_after_a_kill(at):
    world, names = random.Random(5), ("given", "of-input")
    await at.declare(app("given"), app("of-input", input_features=1), *MODELS)
    values = [world.random() for _ in range(60)]
    async with at.host(HOSTS):
        async with at.router() as router:
            for name in names:
                before = await ask_and_tell(at, name, values, 0)
                # the features are in the log, to the last bit that the model got: an input of float32 has fewer
                assert [one.features[0] for one in before] == pytest.approx(values, rel=1e-7)
                assert {len(one.models) for one in before} == {1}
            assert await router.ended(signal.SIGKILL) != 0
        async with at.router() as router:
            for name in names:
                after = await ask_and_tell(at, name, values, 60)
                # all of what was learned before: a line through two steps is wrong near the middle alone
                assert share_right(after, values) > 0.8
            assert await router.ended(signal.SIGTERM) == 0, router.log
    await check_table(at, names)


async def check_table(at, names):
    """Every row is the serial fold of the logs, bit for bit, moments included."""
    table = oracle.table(await at.read(at.catalogue.selection_changelog))
    logs = await at.read(at.catalogue.predictions), await at.read(at.catalogue.feedback)
    expected = oracle.fold(*logs, {name: {"policy": POLICY} for name in names})
    assert {key: row.bits for key, row in table.items()} == {key: row.bits for key, row in expected.items()}
    moments = [sums[4:] for (name, *_), row in table.items() if name for sums in row.totals.values()]
    assert {len(one) for one in moments} == {5}
