"""An Apache Kafka of three nodes: three copies of each partition, of which two must be there to write."""

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from confluent_kafka.admin import AdminClient, ClusterMetadata
from e2e.programs import until

from clipper_agents.broker.data_dir import DataDir, PortTaken
from clipper_agents.broker.node import KafkaNode, NodeOptions, new_cluster_id
from clipper_agents.broker.properties import LOOPBACK, NodePorts, free_port
from clipper_agents.broker.runtime import find_runtime
from clipper_topics.connection import KafkaConnection

ATTEMPTS, HEAP_MIB = 5, 256
COPIES = dict.fromkeys(
    (
        "default.replication.factor",
        "offsets.topic.replication.factor",
        "transaction.state.log.replication.factor",
        "share.coordinator.state.topic.replication.factor",
    ),
    3,
)
LEAST = dict.fromkeys(
    ("min.insync.replicas", "transaction.state.log.min.isr", "share.coordinator.state.topic.min.isr"), 2
)


def cluster_properties(node_ports: Mapping[int, NodePorts], node_id: int) -> dict[str, object]:
    """What one of several nodes is configured with, on top of what a node of its own is."""
    voters = ",".join(f"{number}@{LOOPBACK}:{ports.controller}" for number, ports in node_ports.items())
    return {"node.id": node_id, "controller.quorum.voters": voters, **COPIES, **LEAST}


class EmbeddedCluster:
    """Three nodes with ids from 1 on, in folders of `data_dir`; nothing outlives the process that made them."""

    node_ids = (1, 2, 3)

    def __init__(self, data_dir: Path | None = None) -> None:
        self._is_temporary = data_dir is None
        path = data_dir or Path(tempfile.mkdtemp(prefix="clipper-kafka-"))
        self._folders = {number: DataDir(path / str(number)) for number in self.node_ids}
        self._nodes: dict[int, KafkaNode] = {}

    @property
    def bootstrap(self) -> str:
        return ",".join(self.node(number).connection.bootstrap for number in self.node_ids)

    @property
    def connection(self) -> KafkaConnection:
        return KafkaConnection(self.bootstrap)

    def node(self, node_id: int) -> KafkaNode:
        return self._nodes[node_id]

    def start(self) -> Self:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._launch()
                break
            except BaseException as error:
                self._stop(kill=True)
                if not isinstance(error, PortTaken) or attempt == ATTEMPTS:
                    raise
        return self

    def wait_until_in_sync(self) -> None:
        """Wait until each partition is on every node that should have it; a node that starts lags a moment."""
        until("all replicas are in sync", lambda: _in_sync(_metadata(self.bootstrap)), 120.0)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._stop(kill=self._is_temporary)
        if self._is_temporary:
            for folder in self._folders.values():
                shutil.rmtree(folder.path, ignore_errors=True)

    def _launch(self) -> None:
        """Launch all nodes together: none answers before a majority is there."""
        runtime = find_runtime()
        ports = {
            number: NodePorts(folder.remembered_port() or free_port(), free_port())
            for number, folder in self._folders.items()
        }
        cluster_id = self._folders[1].cluster_id() or new_cluster_id()
        for number, folder in self._folders.items():
            extra = cluster_properties(ports, number)
            options = NodeOptions(heap_mib=HEAP_MIB, extra_properties=extra, temporary=self._is_temporary)
            self._nodes[number] = KafkaNode(folder, ports[number], options, runtime)
        for node in self._nodes.values():
            node.launch(cluster_id)
        for node in self._nodes.values():  # one that ended, as for a port, is missing from what the others know
            node.wait()
        for node in self._nodes.values():
            address = node.connection.bootstrap
            until("it knows all nodes", lambda address=address: len(_metadata(address).brokers) == len(ports), 120.0)

    def _stop(self, kill: bool) -> None:
        """Stop the nodes in turn; one without a majority cannot leave in order, and would be killed after a while."""
        for node in self._nodes.values():
            running = sum(each.pid is not None for each in self._nodes.values())
            node.stop(kill or running <= len(self._nodes) // 2)


def _metadata(bootstrap: str) -> ClusterMetadata:
    return AdminClient({"bootstrap.servers": bootstrap, "log_level": 4}).list_topics(timeout=30)


def _in_sync(cluster: ClusterMetadata) -> bool:
    partitions = [each for topic in cluster.topics.values() for each in topic.partitions.values()]
    return all({*each.isrs} == {*each.replicas} for each in partitions)
