"""While queries are read too late the newest come first, and what was left is answered once."""

import signal
from collections import Counter
from itertools import count

import pytest
from builders.router_deployment import decoded

from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

LATE = 20_000
MODEL = ModelManifest(name="sums", uri="x:y", input=InputSpec(shape=[2]))
APP = ApplicationManifest(
    name="app", models=["sums:1"], input=InputSpec(shape=[2]), policy=PolicySpec(name="single"), objective_ms=60_000
)
PLACE = {"partition": 1, "key": b"key"}


def query(query_id, **fields):
    return {"query_id": query_id, "input": [1, 1], **fields}


NEW = count()


async def answers(at, holds):
    """Ask one new query after the other until the predictions are as wanted; these, in the order of their log."""
    while True:
        await at.ask(query(f"new {next(NEW)}"), **PLACE)
        found = [decoded(one) for one in await at.read(at.catalogue.predictions, numbers=[1])]
        if holds(found):
            return found


def is_new(prediction):
    return prediction.query_id.startswith("new")


async def test_the_newest_queries_come_first_and_the_others_are_answered_once(at):
    """The router is frozen while a backlog comes, of queries that are too late at once; and killed in the middle."""
    await at.declare(APP, MODEL)
    late = [f"late {number}" for number in range(LATE)]
    async with at.host({"sums:1": lambda row: int(row.sum())}):
        async with at.router() as router:
            await at.ask(query("first"), **PLACE)
            await at.predictions("first", numbers=[1])
            router.process.send_signal(signal.SIGSTOP)
            await at.ask(*(query(one, deadline_ms=1) for one in late), **PLACE)
            router.process.send_signal(signal.SIGCONT)
            found = await answers(at, lambda found: any(map(is_new, found)))
            assert router.process.returncode is None, router.log
        async with at.router():
            found = await answers(at, lambda found: {*late} <= {one.query_id for one in found})
    first_new = next(place for place, one in enumerate(found) if is_new(one))
    assert first_new < LATE / 2, "it came behind all of them"
    assert {one.reason for one in found if not is_new(one)} == {None, "arrived_late"}
    times = Counter(one.query_id for one in found)
    assert {query_id: many for query_id, many in times.items() if many != 1} == {}
