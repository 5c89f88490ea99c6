"""Several nodes of Apache Kafka on the loopback interface, each a broker and a controller, for what one cannot show."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from clipper_agents.broker.data_dir import DataDir
from clipper_agents.broker.embedded_broker import ATTEMPTS
from clipper_agents.broker.errors import BrokerNotStarted, PortTaken
from clipper_agents.broker.node import START_S, KafkaNode, Making, new_cluster_id
from clipper_agents.broker.properties import Node, free_port, is_free
from clipper_agents.broker.readiness import wait_until_in_sync
from clipper_agents.broker.runtime import KafkaRuntime, find_runtime
from clipper_stream.errors import UnknownName
from clipper_topics.connection import KafkaConnection

HEAP_MIB = 256
"""A node: three of them do not get in each other's way on a laptop."""


class EmbeddedCluster:
    """A Kafka of several nodes, with three copies of each partition of which two must be there to write.

    A context manager; nothing of it outlives the process that made it.

        with EmbeddedCluster() as cluster:
            ...  # clients connect to cluster.bootstrap
            cluster.stop_node(1, kill=True)

    Args:
        nodes: How many; their ids are 1 and on.
        data_dir: Keeps a folder a node from one start to the next; absent: temporary folders, removed by `stop()`.
        heap_mib: Largest Java heap of a node, in MiB.
        extra_properties: Broker settings by their Kafka names, on top of ours, for every node.
        runtime: Finds the Java and the jars.
        ports: Gives a free port at each call.
    """

    def __init__(
        self,
        nodes: int = 3,
        data_dir: Path | str | None = None,
        heap_mib: int = HEAP_MIB,
        extra_properties: Mapping[str, object] | None = None,
        *,
        runtime: Callable[[], KafkaRuntime] = find_runtime,
        ports: Callable[[], int] = free_port,
    ) -> None:
        self._ids = range(1, nodes + 1)
        self._given_dir = Path(data_dir).absolute() if data_dir is not None else None
        self._making = Making(
            heap_mib=heap_mib, extra_properties=dict(extra_properties or {}), temporary=data_dir is None
        )
        self._runtime, self._ports = runtime, ports
        self._folders: dict[int, DataDir] = {}
        self._nodes: dict[int, KafkaNode] = {}
        self._cluster_id = ""

    @property
    def node_ids(self) -> tuple[int, ...]:
        """Ids of all nodes, those that do not run too."""
        return tuple(self._ids)

    @property
    def bootstrap(self) -> str:
        """`host:port` of every node, separated by commas; the same after nodes were stopped and started again."""
        return ",".join(self.address(number) for number in self._ids)

    @property
    def connection(self) -> KafkaConnection:
        """How clients connect to the cluster."""
        return KafkaConnection(self.bootstrap)

    def address(self, node_id: int) -> str:
        """Address of one node, `host:port`."""
        return self._node(node_id).connection.bootstrap

    def pid(self, node_id: int) -> int | None:
        """Process id of a node, None when it does not run."""
        return self._node(node_id).pid

    def log_file(self, node_id: int) -> Path:
        """Log file of a node: warnings and errors."""
        return self._folder(node_id).log_file

    def start(self) -> Self:
        """Start all nodes and wait until each answers and knows all others.

        Raises:
            BrokerNotStarted: no Java, no jars, or a node ended; one line says which.
        """
        runtime = self._runtime()
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._launch_all(runtime)
                break
            except PortTaken:
                self._stop_all(kill=True)
                if attempt == ATTEMPTS:
                    raise
            except BaseException:
                self.stop(kill=True)
                raise
        return self

    def stop(self, kill: bool = False) -> None:
        """End all nodes, and remove what is temporary.

        Args:
            kill: Without any shutdown work.
        """
        self._stop_all(kill)
        self._nodes = {}
        if self._given_dir is None:
            for folder in self._folders.values():
                shutil.rmtree(folder.path, ignore_errors=True)
        self._folders = {}

    def start_node(self, node_id: int) -> None:
        """Start a node again, where and with what it was; returns when it answers.

        Raises:
            BrokerNotStarted: it ended, or somebody else took one of its ports.
        """
        node = self._node(node_id)
        if node.pid is None:
            node.launch(self._runtime(), self._cluster_id)
            node.wait(self._cluster_id)

    def wait_until_in_sync(self) -> None:
        """Wait until each partition is on every node that should have it; a node that has just started lags a moment.

        Raises:
            BrokerNotStarted: not within two minutes.
        """
        if not wait_until_in_sync(self.connection, START_S):
            raise BrokerNotStarted(f"partitions are not in sync after {START_S:.0f} s: look at the nodes' logs")

    def stop_node(self, node_id: int, kill: bool = False) -> None:
        """End one node; what it keeps stays for another `start_node`.

        Args:
            node_id: Which.
            kill: A power cut, without any shutdown work.
        """
        self._node(node_id).stop(kill)

    def freeze_node(self, node_id: int) -> None:
        """Give a node no more processor time (SIGSTOP): it takes connections, and answers nobody."""
        self._node(node_id).freeze()

    def thaw_node(self, node_id: int) -> None:
        """Resume a frozen node (SIGCONT)."""
        self._node(node_id).thaw()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop(kill=self._given_dir is None)

    def _node(self, node_id: int) -> KafkaNode:
        if node_id not in self._nodes:
            known = ", ".join(map(str, self._nodes)) or "none: start the cluster first"
            raise UnknownName(f"node {node_id}: there is {known}")
        return self._nodes[node_id]

    def _folder(self, node_id: int) -> DataDir:
        if node_id not in self._folders:
            path = (
                self._given_dir / str(node_id) if self._given_dir else Path(tempfile.mkdtemp(prefix="clipper-kafka-"))
            )
            self._folders[node_id] = DataDir(path)
        return self._folders[node_id]

    def _launch_all(self, runtime: KafkaRuntime) -> None:
        """Launch them together: none answers before a majority is there."""
        folders = {number: self._folder(number) for number in self._ids}
        voters = self._places(folders)
        known = [found for folder in folders.values() if (found := folder.cluster_id())]
        if len(set(known)) > 1:
            raise BrokerNotStarted(f"{self._given_dir}: folders of several clusters ({', '.join(known)}): remove them")
        self._cluster_id = known[0] if known else new_cluster_id()
        self._nodes = {
            place.node_id: KafkaNode(folders[place.node_id], place, voters, self._making) for place in voters
        }
        for node in self._nodes.values():
            node.launch(runtime, self._cluster_id)
        for node in self._nodes.values():
            node.wait(self._cluster_id, brokers=len(self._nodes))

    def _places(self, folders: Mapping[int, DataDir]) -> list[Node]:
        taken: set[int] = set()

        def fresh(remembered: int | None = None) -> int:
            port = remembered if remembered and is_free(remembered) else self._ports()
            while port in taken:
                port = self._ports()
            taken.add(port)
            return port

        return [
            Node(node_id=number, port=fresh(folder.remembered_port()), controller_port=fresh())
            for number, folder in folders.items()
        ]

    def _stop_all(self, kill: bool) -> None:
        """Stop the nodes in turn; one without a majority cannot leave in order, and is killed after half a minute."""
        for node in self._nodes.values():
            running = sum(each.pid is not None for each in self._nodes.values())
            node.stop(kill or running <= len(self._nodes) // 2)
