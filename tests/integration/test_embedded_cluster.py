"""Do three nodes make a cluster that goes on without one of them, and is nothing left of it afterwards?"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from builders.greetings import consume, create, is_gone, produce, state_of
from confluent_kafka.admin import AdminClient
from e2e.programs import until

from clipper_agents.broker import EmbeddedCluster
from clipper_agents.kafka.topics import ensure_topics
from clipper_stream.errors import UnknownName
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def cluster() -> Iterator[EmbeddedCluster]:
    with EmbeddedCluster() as running:
        create(running.bootstrap, 3)
        produce(running.bootstrap, b"first")
        yield running


def address_of(cluster: EmbeddedCluster, node: int) -> str:
    return cluster.node(node).connection.bootstrap


@pytest.mark.parametrize("kill", [False, True], ids=["in order", "by force"])
def test_a_record_is_written_and_read_without_one_node_and_the_node_comes_back(cluster: EmbeddedCluster, kill: bool):
    address, others = address_of(cluster, 1), ",".join(address_of(cluster, number) for number in (2, 3))
    cluster.wait_until_in_sync()
    cluster.node(1).stop(kill=kill)
    assert cluster.node(1).pid is None
    produce(others, b"second")
    cluster.node(1).start()
    assert address_of(cluster, 1) == address
    assert consume(address)[:2] == [b"first", b"second"]


def test_a_frozen_node_is_alive_and_ends_in_order_when_it_is_stopped(cluster: EmbeddedCluster):
    pid = cluster.node(3).pid
    cluster.node(3).freeze()
    until("the node is frozen", lambda: state_of(pid) == "T")
    began_s = time.monotonic()
    cluster.node(3).stop()
    assert time.monotonic() - began_s < 25, "it was asked, and not killed after half a minute"
    cluster.node(3).start()
    assert cluster.node(3).pid not in (None, pid)


def test_a_node_that_there_is_not_is_an_error_that_names_those_that_there_are(cluster: EmbeddedCluster):
    with pytest.raises(UnknownName, match="node 4: there is 1, 2, 3"):
        cluster.node(4).stop()


@pytest.mark.long
def test_a_data_dir_keeps_records_and_addresses_and_nothing_temporary_is_left(tmp_path: Path):
    with EmbeddedCluster(data_dir=tmp_path) as first:
        bootstrap, pids = first.bootstrap, [first.node(number).pid for number in first.node_ids]
        create(bootstrap, 3)
        produce(bootstrap, b"kept")
        began_s = time.monotonic()
    assert time.monotonic() - began_s < 25, "the last node does not wait for a majority that is not there any more"
    assert all(is_gone(pid) for pid in pids)
    with EmbeddedCluster(data_dir=tmp_path) as second:
        assert second.bootstrap == bootstrap
        assert consume(bootstrap) == [b"kept"]


def test_nothing_outlives_a_parent_that_is_killed_not_even_a_frozen_node():
    code = """
import sys
from confluent_kafka.admin import AdminClient

from clipper_agents.kafka.topics import ensure_topics
from clipper_agents.broker import EmbeddedCluster
cluster = EmbeddedCluster().start()
cluster.node(2).freeze()
for node in cluster.node_ids:
    print(cluster.node(node).pid, cluster.node(node).log_file.parent, flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    started = [parent.stdout.readline().split() for _ in range(3)]
    parent.kill()
    parent.communicate()
    for pid, folder in started:
        until("it is gone", lambda pid=pid, folder=folder: is_gone(int(pid)) and not Path(folder).exists())


def test_topics_that_were_just_created_are_known_to_every_node(cluster: EmbeddedCluster):
    for number in range(3):
        catalogue = Catalogue(prefix=f"fresh{number}")
        asyncio.run(ensure_topics(KafkaConnection(cluster.bootstrap), catalogue, [], replication_factor=3))
        for node in cluster.node_ids:
            known = AdminClient({"bootstrap.servers": address_of(cluster, node)}).list_topics(timeout=30).topics
            assert {spec.name for spec in catalogue.fixed_topics()} <= known.keys()
