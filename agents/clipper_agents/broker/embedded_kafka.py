"""Apache Kafka on the loopback interface: nodes that are brokers and controllers, several or one."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from clipper_agents.broker.data_dir import DataDir
from clipper_agents.broker.errors import BrokerNotStarted, PortTaken
from clipper_agents.broker.node import START_S, KafkaNode, Making, new_cluster_id
from clipper_agents.broker.properties import LOOPBACK, Node, free_port, is_free
from clipper_agents.broker.readiness import all_in_sync, wait_until
from clipper_agents.broker.runtime import KafkaRuntime, find_runtime
from clipper_stream.errors import UnknownName
from clipper_topics.connection import KafkaConnection

ATTEMPTS = 5
"""Starts with new free ports, each of which somebody else can take first."""
CLUSTER_HEAP_MIB = 256
"""A node: three of them do not get in each other's way on a laptop."""


class EmbeddedCluster:
    """A Kafka of several nodes, with three copies of each partition of which two must be there to write.

    A context manager; nothing of it outlives the process that made it.

        with EmbeddedCluster() as cluster:
            ...  # clients connect to cluster.bootstrap
            cluster.node(1).stop(kill=True)

    Args:
        nodes: How many; their ids are 1 and on.
        data_dir: Keeps the records, the cluster id and the ports from one start to the next, of several nodes in a
            folder each; absent: temporary folders, removed by `stop()`.
        port: The first node listens here; absent or 0: on the port of the last start in this data_dir, else a free one.
        heap_mib: Largest Java heap of a node, in MiB.
        extra_properties: Broker settings by their Kafka names, on top of ours, for every node.
        for_long: Compile as a production broker does: after a minute of work it takes half the processor time a
            request, and until then more.
        runtime: Finds the Java and the jars.
        ports: Gives a free port at each call.
    """

    def __init__(
        self,
        nodes: int = 3,
        data_dir: Path | str | None = None,
        port: int | None = None,
        heap_mib: int = CLUSTER_HEAP_MIB,
        extra_properties: Mapping[str, object] | None = None,
        *,
        for_long: bool = False,
        runtime: Callable[[], KafkaRuntime] = find_runtime,
        ports: Callable[[], int] = free_port,
    ) -> None:
        self.node_ids = tuple(range(1, nodes + 1))
        self._given_dir = Path(data_dir).absolute() if data_dir is not None else None
        self._given_port = port or None
        self._making = Making(
            heap_mib=heap_mib,
            extra_properties=dict(extra_properties or {}),
            for_long=for_long,
            temporary=data_dir is None,
        )
        self._runtime, self._ports = runtime, ports
        self._folders: dict[int, DataDir] = {}
        self._nodes: dict[int, KafkaNode] = {}

    @property
    def bootstrap(self) -> str:
        """`host:port` of every node, once started; the same after nodes were stopped and started again."""
        return ",".join(self.node(number).connection.bootstrap for number in self.node_ids)

    @property
    def connection(self) -> KafkaConnection:
        """How clients connect to it."""
        return KafkaConnection(self.bootstrap)

    def node(self, node_id: int) -> KafkaNode:
        """One node, to be stopped, killed, frozen, or started again.

        Raises:
            UnknownName: there is no such node.
        """
        if node_id not in self._nodes:
            known = ", ".join(map(str, self._nodes)) or "none: start the cluster first"
            raise UnknownName(f"node {node_id}: there is {known}")
        return self._nodes[node_id]

    def start(self) -> Self:
        """Start all nodes and wait until each answers and knows all others; nothing happens when it runs already.

        Raises:
            BrokerNotStarted: no Java, no jars, a busy port, or a node ended; one line says which.
        """
        if any(node.pid is not None for node in self._nodes.values()):
            return self
        runtime = self._runtime()
        if self._given_port is not None and not is_free(self._given_port):
            raise PortTaken(f"port {self._given_port} of {LOOPBACK} is taken: give another one, or none")
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._launch(runtime)
                break
            except BaseException as error:
                self._stop_nodes(kill=True)
                if not isinstance(error, PortTaken) or attempt == ATTEMPTS:
                    raise
        return self

    def stop(self, kill: bool = False) -> None:
        """End all nodes; nothing happens when none runs.

        Args:
            kill: A power cut: no shutdown work, and even temporary data stays for another `start()`.
        """
        self._stop_nodes(kill)
        if not kill:
            self._forget()

    def wait_until_in_sync(self) -> None:
        """Wait until each partition is on every node that should have it; a node that has just started lags a moment.

        Raises:
            BrokerNotStarted: not within two minutes.
        """
        if not wait_until(all_in_sync, self.connection, START_S):
            raise BrokerNotStarted(f"partitions are not in sync after {START_S:.0f} s: look at the nodes' logs")

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self._stop_nodes(kill=self._given_dir is None)
        self._forget()

    def _launch(self, runtime: KafkaRuntime) -> None:
        """Launch all nodes together: none answers before a majority is there."""
        folders = {number: self._folder(number) for number in self.node_ids}
        voters = self._places(folders)
        known = [found for folder in folders.values() if (found := folder.cluster_id())]
        if len(set(known)) > 1:
            raise BrokerNotStarted(f"{self._given_dir}: folders of several clusters ({', '.join(known)}): remove them")
        cluster_id = known[0] if known else new_cluster_id()
        self._nodes = {
            place.node_id: KafkaNode(folders[place.node_id], place, voters, self._making, runtime, cluster_id)
            for place in voters
        }
        for node in self._nodes.values():
            node.launch()
        for node in self._nodes.values():
            node.wait(brokers=len(self._nodes))

    def _folder(self, node_id: int) -> DataDir:
        if node_id not in self._folders:
            path = self._given_dir or Path(tempfile.mkdtemp(prefix="clipper-kafka-"))
            several = self._given_dir is not None and len(self.node_ids) > 1
            self._folders[node_id] = DataDir(path / str(node_id) if several else path)
        return self._folders[node_id]

    def _places(self, folders: Mapping[int, DataDir]) -> list[Node]:
        taken: set[int] = set()

        def fresh(wanted: int | None = None) -> int:
            port = wanted if wanted and is_free(wanted) else self._ports()
            while port in taken:
                port = self._ports()
            taken.add(port)
            return port

        wanted = {number: folder.remembered_port() for number, folder in folders.items()}
        wanted[1] = self._given_port or wanted[1]
        return [Node(node_id=number, port=fresh(port), controller_port=fresh()) for number, port in wanted.items()]

    def _stop_nodes(self, kill: bool) -> None:
        """Stop the nodes in turn; one without a majority cannot leave in order, and would be killed after a while."""
        for node in self._nodes.values():
            running = sum(each.pid is not None for each in self._nodes.values())
            node.stop(kill or running <= len(self._nodes) // 2)

    def _forget(self) -> None:
        """Remove what is temporary."""
        if self._given_dir is None:
            for folder in self._folders.values():
                shutil.rmtree(folder.path, ignore_errors=True)
        self._folders = {}


class EmbeddedBroker(EmbeddedCluster):
    """A real Kafka of one node, without Docker; arguments as of `EmbeddedCluster`.

    with EmbeddedBroker() as broker:
        ...  # clients connect to broker.bootstrap
    """

    def __init__(
        self, data_dir: Path | str | None = None, port: int | None = None, heap_mib: int = 512, **options: Any
    ) -> None:
        super().__init__(1, data_dir, port, heap_mib, **options)

    @property
    def pid(self) -> int | None:
        """Process id of the broker, None when it does not run."""
        return self._nodes[1].pid if self._nodes else None

    @property
    def log_file(self) -> Path:
        """Log file of the broker: warnings and errors."""
        return self.node(1).log_file
