"""Apache Kafka on the loopback interface, on a port that is free."""

import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Self

from clipper_agents.broker.data_dir import BrokerNotStarted, DataDir, PortTaken
from clipper_agents.broker.node import KafkaNode, NodeOptions
from clipper_agents.broker.properties import LOOPBACK, NodePorts, free_port, is_free
from clipper_agents.broker.runtime import find_runtime
from clipper_topics.connection import KafkaConnection

ATTEMPTS = 5
"""Starts with new free ports, each of which somebody else can take first."""


class EmbeddedBroker:
    """A real Kafka of one node; as a context manager it leaves nothing behind, however this process ends.

        with EmbeddedBroker() as broker:
            ...  # clients connect to broker.bootstrap

    Args:
        data_dir: Keeps the records, the cluster id and the port from one start to the next; absent: a temporary folder,
            removed by `stop()`.
        port: Port on 127.0.0.1; absent or 0: that of the last start in this data_dir, else a free one.
        heap_mib: Largest Java heap, in MiB.
        extra_properties: Broker settings by their Kafka names, on top of ours.
        for_long: Compile as a production broker does: after a minute of work it takes half the processor time a
            request, and until then more.
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
        ports: Callable[[], int] = free_port,
    ) -> None:
        self._options = NodeOptions(
            heap_mib=heap_mib,
            extra_properties=dict(extra_properties or {}),
            for_long=for_long,
            temporary=data_dir is None,
        )
        self._given_dir, self._given_port, self._ports = data_dir, port or None, ports
        self._folder: DataDir | None = None
        self._node: KafkaNode | None = None

    @property
    def node(self) -> KafkaNode:
        if self._node is None:
            raise BrokerNotStarted("the broker has no address yet: start it first")
        return self._node

    @property
    def connection(self) -> KafkaConnection:
        """How clients connect to it, once started; the same after `stop` and `start`."""
        return self.node.connection

    @property
    def bootstrap(self) -> str:
        return self.connection.bootstrap

    @property
    def pid(self) -> int | None:
        return self._node.pid if self._node else None

    @property
    def log_file(self) -> Path:
        return self.node.log_file

    def start(self) -> Self:
        """Start it and wait until it answers; nothing happens when it runs already.

        Raises:
            BrokerNotStarted: no Java, no jars, a busy port, or it ended; one line says which.
        """
        if self.pid is not None:
            return self
        if self._given_port is not None and not is_free(self._given_port):
            raise PortTaken(f"port {self._given_port} of {LOOPBACK} is taken: give another one, or none")
        runtime = find_runtime()
        if self._folder is None:
            self._folder = DataDir(Path(self._given_dir or tempfile.mkdtemp(prefix="clipper-kafka-")).absolute())
        for attempt in range(1, ATTEMPTS + 1):
            wanted = self._given_port or self._folder.remembered_port()
            port = wanted if wanted and is_free(wanted) else self._ports()
            self._node = KafkaNode(self._folder, NodePorts(port, self._ports()), self._options, runtime)
            try:
                self._node.start()
                break
            except BaseException as error:
                self._node.stop(kill=True)
                if not isinstance(error, PortTaken) or attempt == ATTEMPTS:
                    raise
        return self

    def stop(self, kill: bool = False) -> None:
        """End it. `kill` is a power cut, without shutdown work: even temporary data stays for another `start`."""
        if self._node is not None:
            self._node.stop(kill)
        if not kill:
            self._remove_temporary()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        if self._node is not None:
            self._node.stop(kill=self._given_dir is None)
        self._remove_temporary()

    def _remove_temporary(self) -> None:
        if self._given_dir is None and self._folder is not None:
            shutil.rmtree(self._folder.path, ignore_errors=True)
            self._folder = None
