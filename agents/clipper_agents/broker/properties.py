"""The configuration of one Kafka node in KRaft mode (KIP-500): a broker that is its own controller."""

import random
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

LOOPBACK = "127.0.0.1"
PORTS = range(20_000, 30_000)
"""Below Linux's ephemeral ports (32768 and up): a client that retries a port from that range while the broker is down
can connect to itself, and then the broker's own port is taken."""

LOGGING = """\
status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = %d %p %c: %m%n
rootLogger.level = warn
rootLogger.appenderRef.console.ref = console
"""
"""log4j 2 properties: warnings and errors to standard output, which is the broker's log file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """One node of a cluster: its id and its two ports on the loopback interface."""

    node_id: int
    port: int
    controller_port: int

    @property
    def voter(self) -> str:
        """The node in `controller.quorum.voters`."""
        return f"{self.node_id}@{LOOPBACK}:{self.controller_port}"


def free_port() -> int:
    """A port on which nobody listens now; it can be taken before it is used, so a failed bind is tried again."""
    for port in random.SystemRandom().sample(PORTS, 100):
        if is_free(port):
            return port
    with socket.create_server((LOOPBACK, 0)) as any_port:
        return int(any_port.getsockname()[1])


def is_free(port: int) -> bool:
    """Whether a broker could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker does: TIME_WAIT is no obstacle
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def server_properties(
    node: Node, voters: Sequence[Node], log_dir: Path, extra: Mapping[str, object] | None = None
) -> str:
    """The text of `server.properties`, of a node among the `voters` of its cluster, this one included.

    Source: Apache Kafka documentation, broker configs. Times are short and internal topics small because everything
    happens on one machine; topics are only ever created on purpose.
    """
    replication = min(3, len(voters))
    properties: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": node.node_id,
        "controller.quorum.voters": ",".join(voter.voter for voter in voters),
        "listeners": f"PLAINTEXT://{LOOPBACK}:{node.port},CONTROLLER://{LOOPBACK}:{node.controller_port}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{node.port}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": log_dir,
        "auto.create.topics.enable": "false",
        "default.replication.factor": replication,
        "min.insync.replicas": max(1, replication - 1),
        "offsets.topic.replication.factor": replication,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": replication,
        "transaction.state.log.min.isr": max(1, replication - 1),
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": replication,
        "share.coordinator.state.topic.min.isr": max(1, replication - 1),
        "share.coordinator.state.topic.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # a broker that was killed comes back when its old registration has expired, after 9 s by default; much shorter,
        # and a machine that stalls for a moment leaves every partition without a leader
        "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 500,
        "log.cleaner.dedupe.buffer.size": 16 << 20,
        **(extra or {}),
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())
