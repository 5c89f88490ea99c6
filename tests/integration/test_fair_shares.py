"""An application whose models hang, a partition without a leader and dead letters without one hold up nobody else."""

from collections import Counter

import pytest
from builders.placed_topics import lead_from_afar
from builders.router_deployment import Deployment

from clipper_agents.broker import EmbeddedCluster
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest, InputSpec, ModelManifest, PolicySpec

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

MODELS = [ModelManifest(name=name, uri="x:y", input=InputSpec(shape=[2])) for name in ("hangs", "well")]
MOST = 100


def app(name, objective_ms):
    return ApplicationManifest(
        name=name, models=[f"{name}:1"], input=InputSpec(shape=[2]), policy=PolicySpec(name="single"),
        objective_ms=objective_ms,
    )  # fmt: skip


def asked(name, count, first=0):
    numbers = range(first, first + count)
    return [{"query_id": f"{name} {number}", "application": name, "input": [number, 1]} for number in numbers]


def total(row):
    return int(row.sum())


@pytest.mark.parametrize("objective_ms", [3_600_000, None], ids=["an hour", "no objective"])
async def test_an_application_whose_model_hangs_leaves_the_others_their_share(at, objective_ms):
    hung, well = asked("hangs", 4 * MOST), asked("well", 2 * MOST)
    await at.declare(app("hangs", objective_ms), app("well", 20_000), *MODELS)
    async with at.router(max_in_flight=MOST) as router:
        async with at.host({"hangs:1": None, "well:1": total}):
            await at.ask(*hung)
            for first in range(0, len(well), 40):
                some = well[first : first + 40]
                await at.ask(*some)
                found, _ = await at.predictions(*(one["query_id"] for one in some))
            assert {found[one["query_id"]].reason for one in well} == {None}
            refused = Counter(one.reason for query_id, one in found.items() if query_id.startswith("hangs"))
        assert refused == {}, "they are read again once there is room"
        async with at.host({"hangs:1": total}):
            found, counts = await at.predictions(*(one["query_id"] for one in hung))
        assert {one.reason for one in found.values()} == {None}
        assert set(counts.values()) == {1}
        assert router.process.returncode is None, router.log


@pytest.fixture(scope="module")
def cluster():
    with EmbeddedCluster() as running:
        yield running


async def test_a_partition_without_a_leader_and_dead_letters_without_one_hold_up_no_other(cluster, tmp_path):
    """Node `away` leads one partition of the predictions, and the dead letters; it is killed."""
    catalogue = Catalogue(prefix="apart", partitions=2)
    away = lead_from_afar(cluster, catalogue, catalogue.requests_topic("well", "1", 1))
    at = Deployment(KafkaConnection(bootstrap=cluster.bootstrap), catalogue, tmp_path)
    await at.declare(app("well", 20_000), MODELS[1])
    async with at.router() as router, at.host({"well:1": total}):
        await at.ask(*asked("well", 10), partition=1)
        await at.predictions("well 9")
        cluster.node(away).stop(kill=True)
        await at.ask(*asked("well", 10, 10), b"{", partition=0)
        await at.ask(b"{", {"query_id": "after a bad one", "application": "well", "input": [1, 1]}, partition=1)
        found, _ = await at.predictions("after a bad one", numbers=[1])
        assert not found["after a bad one"].default
        cluster.node(away).start()
        found, counts = await at.predictions("well 9", "well 19", "after a bad one")
        await at.read(catalogue.dead_letters, lambda records: len(records) == 2)
        assert {query_id: count for query_id, count in counts.items() if count != 1} == {}
        assert router.process.returncode is None, router.log
