"""Do the tests find a Docker where there is one, and is its Kafka the embedded one in another wrapping?"""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kafka_fixture import IMAGE, container_environment, docker_answers, provided_kafka

from clipper_agents.broker import KAFKA_VERSION
from clipper_agents.broker.properties import NodePorts, server_properties
from clipper_topics.connection import VARIABLES, KafkaConnection


@pytest.mark.parametrize(("status", "expected"), [("200 OK", True), ("500 Internal Server Error", False)])
def test_docker_is_there_when_its_socket_answers_a_ping(tmp_path, monkeypatch, status, expected):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    with socket.socket(socket.AF_UNIX) as server, ThreadPoolExecutor() as threads:
        server.bind(f"{tmp_path}/s")
        server.listen()
        answers = threads.submit(docker_answers)
        with server.accept()[0] as client:
            assert client.recv(1024).startswith(b"GET /_ping ")
            client.sendall(f"HTTP/1.1 {status}\r\n\r\nOK".encode())
        assert answers.result() is expected


@pytest.mark.parametrize("host", ["unix:///nothing", "tcp://127.0.0.1:1", "ssh://somewhere"])
def test_a_broker_that_the_environment_names_is_used_where_docker_is_not(monkeypatch, host):
    monkeypatch.setenv("DOCKER_HOST", host)
    for name in VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "named:1")
    with provided_kafka("auto") as connection:
        assert connection == KafkaConnection("named:1")


def test_the_container_is_the_embedded_broker_in_another_wrapping():
    text = server_properties(NodePorts(20_001, 9093), Path("/d"), {})
    embedded = dict(line.split("=", 1) for line in text.splitlines())
    given = container_environment("localhost", 20_001).items()
    inside = {name.removeprefix("KAFKA_").lower().replace("_", "."): value for name, value in given}
    assert f"apache/kafka:{KAFKA_VERSION}" == IMAGE
    assert inside.pop("advertised.listeners") == "PLAINTEXT://localhost:20001"
    of_its_own = {"listeners", "controller.quorum.voters"}
    assert {name: value for name, value in inside.items() if embedded.get(name) != value}.keys() <= of_its_own
