"""Where the tests' Kafka comes from: a container, a running broker that the environment names, or an embedded one."""

import asyncio
import os
import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from clipper_agents.broker import KAFKA_VERSION, EmbeddedBroker
from clipper_agents.broker.properties import free_port
from clipper_agents.kafka.topics import delete_topics, ensure_topics, existing_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import VARIABLES, KafkaConnection

Source = Literal["auto", "container", "embedded"]
IMAGE = f"apache/kafka:{KAFKA_VERSION}"
DOCKER_ANSWERS_WITHIN_S = 0.5


@contextmanager
def provided_kafka(source: Source) -> Iterator[KafkaConnection]:
    """A Kafka for the time of the block.

    Args:
        source: `container` (testcontainers) or `embedded`; `auto`: a container where Docker answers, else the
            broker of KAFKA_BOOTSTRAP_SERVERS, else an embedded one.
    """
    if source == "container" or (source == "auto" and docker_answers()):
        with _container() as connection:
            yield connection
    elif source == "auto" and os.environ.get(VARIABLES["bootstrap"]):
        yield KafkaConnection.from_environment(os.environ)
    else:
        with EmbeddedBroker() as broker:
            yield broker.connection


@contextmanager
def own_topics(kafka: KafkaConnection, partitions: int = 2) -> Iterator[Catalogue]:
    """Names of topics that nobody else has; those that there are behind the block are deleted."""
    own = Catalogue(prefix=f"t{uuid.uuid4().hex[:6]}", partitions=partitions)
    try:
        yield own
    finally:
        asyncio.run(delete_topics(kafka, [*asyncio.run(existing_topics(kafka, own.prefix))]))


@contextmanager
def temporary_topics(kafka: KafkaConnection, partitions: int = 2) -> Iterator[Catalogue]:
    """Topics of a deployment's own, created before the block, and deleted behind it with all that joined them."""
    with own_topics(kafka, partitions) as own:
        asyncio.run(ensure_topics(kafka, own))
        yield own


def docker_answers() -> bool:
    """Whether a Docker daemon answers a ping; without one the answer comes at once."""
    host = urlsplit(os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock")
    try:
        with _connected(host.scheme, host.hostname, host.port, host.path) as daemon:
            daemon.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in daemon.recv(64)
    except OSError:
        return False


def _connected(scheme: str, host: str | None, port: int | None, path: str) -> socket.socket:
    if scheme == "tcp" and host:
        return socket.create_connection((host, port or 2375), DOCKER_ANSWERS_WITHIN_S)
    if scheme != "unix" or not Path(path).exists():
        raise FileNotFoundError(path)
    daemon = socket.socket(socket.AF_UNIX)
    daemon.settimeout(DOCKER_ANSWERS_WITHIN_S)
    daemon.connect(path)
    return daemon


@contextmanager
def _container() -> Iterator[KafkaConnection]:
    """The image of the embedded broker's version, with the same settings.

    testcontainers' own KafkaContainer starts Confluent's image only; this is a plain container whose broker advertises
    a port of ours, chosen before the start because the broker must know it.
    """
    from testcontainers.core.container import DockerContainer
    from testcontainers.core.wait_strategies import LogMessageWaitStrategy

    port = free_port()
    container = DockerContainer(IMAGE).with_bind_ports(port, port)
    host = container.get_docker_client().host()
    container.with_envs(**container_environment(host, port))
    container.waiting_for(LogMessageWaitStrategy("Kafka Server started").with_startup_timeout(90))
    with container:
        yield KafkaConnection(f"{host}:{port}")


def container_environment(host: str, port: int) -> dict[str, str]:
    """Broker settings as the image's environment variables: one node, listening and advertised at this port."""
    return {
        "KAFKA_NODE_ID": "1",
        "KAFKA_PROCESS_ROLES": "broker,controller",
        "KAFKA_LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "KAFKA_ADVERTISED_LISTENERS": f"PLAINTEXT://{host}:{port}",
        "KAFKA_CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "KAFKA_LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "KAFKA_CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "KAFKA_AUTO_CREATE_TOPICS_ENABLE": "false",
        "KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR": "1",
        "KAFKA_OFFSETS_TOPIC_NUM_PARTITIONS": "4",
        "KAFKA_TRANSACTION_STATE_LOG_REPLICATION_FACTOR": "1",
        "KAFKA_TRANSACTION_STATE_LOG_MIN_ISR": "1",
        "KAFKA_GROUP_INITIAL_REBALANCE_DELAY_MS": "0",
        "KAFKA_GROUP_MIN_SESSION_TIMEOUT_MS": "1000",
    }
