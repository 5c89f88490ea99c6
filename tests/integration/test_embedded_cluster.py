import asyncio

import pytest
from builders.placed_topics import lead_from_afar
from builders.router_deployment import MODELS, Deployment, app, total
from confluent_kafka.admin import AdminClient
from embedded_cluster import EmbeddedCluster

from clipper_agents.kafka.topics import ensure_topics
from clipper_topics.catalogue import Catalogue, TopicCreation
from clipper_topics.connection import KafkaConnection

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with EmbeddedCluster() as running:
        yield running


def address_of(cluster, node):
    return cluster.node(node).connection.bootstrap


def test_topics_that_were_just_created_are_known_to_every_node(cluster):
    for number in range(3):
        catalogue = Catalogue(prefix=f"fresh{number}")
        asyncio.run(ensure_topics(KafkaConnection(cluster.bootstrap), catalogue, [], creation=TopicCreation(3)))
        for node in cluster.node_ids:
            known = AdminClient({"bootstrap.servers": address_of(cluster, node)}).list_topics(timeout=30).topics
            assert {spec.name for spec in catalogue.fixed_topics()} <= known.keys()


async def test_a_partition_without_a_leader_and_dead_letters_without_one_hold_up_no_other(cluster, tmp_path):
    """Node `away` leads one partition of the predictions, and the dead letters; it is killed."""
    catalogue = Catalogue(prefix="apart", partitions=2)
    away = lead_from_afar(cluster, catalogue, catalogue.requests_topic("m", "1", 1))
    at = Deployment(KafkaConnection(cluster.bootstrap), catalogue, tmp_path)
    well = [{"query_id": f"well {number}", "input": [number, 1]} for number in range(20)]
    await at.declare(app(models=["m:1"]), MODELS[0])
    async with at.router(), at.host({"m:1": total}):
        await at.ask(*well[:10], partition=1)
        await at.predictions("well 9")
        cluster.node(away).stop(kill=True)
        await at.ask(*well[10:], b"{", partition=0)
        await at.ask(b"{", {"query_id": "after a bad one", "input": [1, 1]}, partition=1)
        found, _ = await at.predictions("after a bad one", numbers=[1])
        assert not found["after a bad one"].default
        cluster.node(away).start()
        found, counts = await at.predictions("well 9", "well 19", "after a bad one")
        await at.read(catalogue.dead_letters, lambda records: len(records) == 2)
        assert {query_id: count for query_id, count in counts.items() if count != 1} == {}
