"""The configuration of one Kafka node in KRaft mode (KIP-500): a broker that is its own controller."""

import random
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

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
logger.server.name = kafka.server.KafkaRaftServer
logger.server.level = info
"""
"""log4j 2 properties: warnings, errors and the end of the start to standard output, which is the broker's log file."""


class NodePorts(NamedTuple):
    """The two ports of a node on the loopback interface."""

    broker: int
    controller: int


def free_port() -> int:
    """A port on which nobody listens now; it can be taken before it is used, so a failed bind is tried again."""
    return next(filter(is_free, random.SystemRandom().sample(PORTS, len(PORTS))))


def is_free(port: int) -> bool:
    """Whether a broker could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the broker does: TIME_WAIT is no obstacle
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def server_properties(ports: NodePorts, log_dir: Path, extra: Mapping[str, object]) -> str:
    """The text of `server.properties` of a cluster of one node; `extra` wins.

    Source: Apache Kafka documentation, broker configs. Times are short and internal topics small because everything
    happens on one machine; topics are only ever created on purpose.
    """
    properties: dict[str, object] = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.voters": f"1@{LOOPBACK}:{ports.controller}",
        "listeners": f"PLAINTEXT://{LOOPBACK}:{ports.broker},CONTROLLER://{LOOPBACK}:{ports.controller}",
        "advertised.listeners": f"PLAINTEXT://{LOOPBACK}:{ports.broker}",
        "controller.listener.names": "CONTROLLER",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": log_dir,
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "offsets.topic.num.partitions": 4,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "transaction.state.log.num.partitions": 4,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "share.coordinator.state.topic.num.partitions": 4,
        "group.initial.rebalance.delay.ms": 0,
        "group.min.session.timeout.ms": 1000,
        # a broker that was killed comes back when its old registration has expired, after 9 s by default; much shorter,
        # and a machine that stalls for a moment leaves every partition without a leader
        "broker.session.timeout.ms": 6000,
        "broker.heartbeat.interval.ms": 500,
        "log.cleaner.dedupe.buffer.size": 16 << 20,
        **extra,
    }
    return "".join(f"{key}={value}\n" for key, value in properties.items())
