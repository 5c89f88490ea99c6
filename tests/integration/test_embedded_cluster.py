import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from builders.greetings import consume, create, produce
from builders.placed_topics import lead_from_afar
from builders.router_deployment import MODELS, Deployment, app, total
from confluent_kafka.admin import AdminClient
from e2e.programs import is_gone, stat_of, until
from embedded_cluster import EmbeddedCluster

from clipper_agents.kafka.topics import ensure_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def cluster():
    with EmbeddedCluster() as running:
        create(running.bootstrap, 3)
        produce(running.bootstrap, b"first")
        yield running


def address_of(cluster, node):
    return cluster.node(node).connection.bootstrap


def test_a_record_is_written_and_read_without_one_node_and_the_node_comes_back(cluster):
    address, others = address_of(cluster, 1), ",".join(address_of(cluster, number) for number in (2, 3))
    for kill, value in ((False, b"stopped"), (True, b"killed")):
        cluster.wait_until_in_sync()
        cluster.node(1).stop(kill=kill)
        assert cluster.node(1).pid is None
        produce(others, value)
        cluster.node(1).start()
        assert address_of(cluster, 1) == address
    # a client may have sent a record twice
    assert [*dict.fromkeys(consume(address))] == [b"first", b"stopped", b"killed"]


def stopped_in_order(folder):
    return [path.parent for path in folder.rglob(".kafka_cleanshutdown")]


def test_a_frozen_node_is_alive_and_ends_in_order_when_it_is_stopped(cluster):
    pid = cluster.node(3).pid
    cluster.node(3).send(signal.SIGSTOP)
    until("the node is frozen", lambda: stat_of(pid)[0] == "T")
    cluster.node(3).stop()
    assert is_gone(pid)
    assert len(stopped_in_order(cluster.node(3).log_file.parent)) == 1, "it was asked, and not killed"
    cluster.node(3).start()
    assert cluster.node(3).pid not in (None, pid)


@pytest.mark.long
def test_a_data_dir_keeps_records_and_addresses_and_nothing_temporary_is_left(tmp_path):
    with EmbeddedCluster(data_dir=tmp_path) as first:
        bootstrap, pids = first.bootstrap, [first.node(number).pid for number in first.node_ids]
        create(bootstrap, 3)
        produce(bootstrap, b"kept")
    assert all(is_gone(pid) for pid in pids)
    assert len(stopped_in_order(tmp_path)) == 2, "the last node is killed: it would wait for a majority that has gone"
    with EmbeddedCluster(data_dir=tmp_path) as second:
        assert second.bootstrap == bootstrap
        assert consume(bootstrap) == [b"kept"]


def test_nothing_outlives_a_parent_that_is_killed_not_even_a_frozen_node():
    code = """
import signal, sys
from embedded_cluster import EmbeddedCluster
cluster = EmbeddedCluster().start()
cluster.node(2).send(signal.SIGSTOP)
for node in cluster.node_ids:
    print(cluster.node(node).pid, cluster.node(node).log_file.parent, flush=True)
sys.stdin.read()
"""
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    parent = subprocess.Popen(command, env=environ, text=True, stdin=pipe, stdout=pipe)
    started = [parent.stdout.readline().split() for _ in range(3)]
    parent.kill()
    parent.communicate()
    for pid, folder in started:
        until("it is gone", lambda pid=pid, folder=folder: is_gone(int(pid)) and not Path(folder).exists())


def test_topics_that_were_just_created_are_known_to_every_node(cluster):
    for number in range(3):
        catalogue = Catalogue(prefix=f"fresh{number}")
        asyncio.run(ensure_topics(KafkaConnection(cluster.bootstrap), catalogue, [], replication_factor=3))
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
