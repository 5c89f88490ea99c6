"""The embedded broker: one node of Apache Kafka on the loopback interface."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from clipper_agents.broker.data_dir import DataDir
from clipper_agents.broker.errors import PortTaken
from clipper_agents.broker.node import KafkaNode, Making, new_cluster_id
from clipper_agents.broker.properties import LOOPBACK, Node, free_port, is_free
from clipper_agents.broker.runtime import KafkaRuntime, find_runtime
from clipper_topics.connection import KafkaConnection

ATTEMPTS = 5
"""Starts with new free ports, each of which somebody else can take first."""


class EmbeddedBroker:
    """A real Kafka without Docker; as a context manager it starts and stops. It ends with this object at the latest.

        with EmbeddedBroker() as broker:
            ...  # clients connect to broker.bootstrap

    Args:
        data_dir: Keeps the records, the cluster id and the port from one start to the next; absent: a temporary
            folder, removed by `stop()`.
        port: Listen here; absent or 0: the port of the last start in this data_dir, else a free one.
        heap_mib: Largest Java heap, in MiB.
        extra_properties: Broker settings by their Kafka names, on top of ours.
        for_long: Compile as a production broker does: after a minute of work it takes half the processor time a
            request, and until then more.
        runtime: Finds the Java and the jars.
        ports: Gives a free port at each call.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        port: int | None = None,
        heap_mib: int = 512,
        extra_properties: Mapping[str, object] | None = None,
        *,
        for_long: bool = False,
        runtime: Callable[[], KafkaRuntime] = find_runtime,
        ports: Callable[[], int] = free_port,
    ) -> None:
        self._given_dir = Path(data_dir).absolute() if data_dir is not None else None
        self._given_port = port or None
        self._making = Making(
            heap_mib=heap_mib,
            extra_properties=dict(extra_properties or {}),
            for_long=for_long,
            temporary=data_dir is None,
        )
        self._runtime = runtime
        self._ports = ports
        self._dir = DataDir(self._given_dir) if self._given_dir else None
        self._port: int | None = self._given_port
        self._node: KafkaNode | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` of the broker, once it has started; the same after a stop and another start."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def connection(self) -> KafkaConnection:
        """How clients connect to the broker."""
        return KafkaConnection(self.bootstrap)

    @property
    def pid(self) -> int | None:
        """Process id of the broker, None when it does not run."""
        return self._node.pid if self._node else None

    @property
    def log_file(self) -> Path:
        """Log file of the broker: warnings and errors."""
        return self._folder.log_file

    def start(self) -> Self:
        """Start it and wait until it answers; nothing happens when it runs already.

        Raises:
            BrokerNotStarted: no Java, no jars, a busy port, or the broker ended; one line says which.
        """
        if self.pid is None:
            self._launch_somewhere(self._runtime())
        return self

    def stop(self, kill: bool = False) -> None:
        """End it; nothing happens when it does not run.

        Args:
            kill: A power cut: no shutdown work, and even temporary data stays for another `start()`.
        """
        if self._node is not None:
            self._node.stop(kill)
            self._node = None
        if self._given_dir is None and self._dir is not None and not kill:
            shutil.rmtree(self._dir.path, ignore_errors=True)
            self._dir = None

    def freeze(self) -> None:
        """Give it no more processor time (SIGSTOP): connections are taken, and nobody answers."""
        if self._node is not None:
            self._node.freeze()

    def thaw(self) -> None:
        """Resume the frozen broker (SIGCONT)."""
        if self._node is not None:
            self._node.thaw()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def _folder(self) -> DataDir:
        if self._dir is None:
            self._dir = DataDir(Path(tempfile.mkdtemp(prefix="clipper-kafka-")))
        return self._dir

    def _launch_somewhere(self, runtime: KafkaRuntime) -> None:
        """Launch it until nobody was faster to take one of its ports."""
        for attempt in range(1, ATTEMPTS + 1):
            port = self._next_port()
            try:
                self._launch(runtime, port)
                break
            except PortTaken:
                if attempt == ATTEMPTS:
                    raise

    def _next_port(self) -> int:
        if self._given_port is not None and not is_free(self._given_port):
            raise PortTaken(f"port {self._given_port} of {LOOPBACK} is taken: give another one, or none")
        port = self._given_port or self._port or self._folder.remembered_port()
        return port if port is not None and is_free(port) else self._ports()

    def _launch(self, runtime: KafkaRuntime, port: int) -> None:
        self._port = port
        place = Node(node_id=1, port=port, controller_port=self._ports())
        cluster_id = self._folder.cluster_id() or new_cluster_id()
        node = KafkaNode(self._folder, place, [place], self._making)
        node.launch(runtime, cluster_id)
        node.wait(cluster_id)
        self._node = node
