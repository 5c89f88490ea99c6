"""Do the tests find a Docker where there is one, and lose no time where there is none?"""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from kafka_fixture import IMAGE, container_environment, docker_answers, provided_kafka

from clipper_agents.broker import KAFKA_VERSION
from clipper_agents.broker.properties import Node, server_properties
from clipper_topics.connection import VARIABLES, KafkaConnection


@contextmanager
def daemon(path: Path, answer: bytes) -> Iterator[None]:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen()

        def serve() -> None:
            client, _ = server.accept()
            with client:
                assert client.recv(1024).startswith(b"GET /_ping ")
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


@pytest.mark.parametrize(("status", "expected"), [("200 OK", True), ("500 Internal Server Error", False)])
def test_docker_is_there_when_its_socket_answers_a_ping(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: str, expected: bool
):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/s")
    with daemon(tmp_path / "s", f"HTTP/1.1 {status}\r\n\r\nOK".encode()):
        assert docker_answers() is expected


def test_no_docker_is_no_delay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    started_s = time.monotonic()
    for host in (f"unix://{tmp_path}/nothing", "tcp://127.0.0.1:1", "ssh://somewhere"):
        monkeypatch.setenv("DOCKER_HOST", host)
        assert not docker_answers()
    assert time.monotonic() - started_s < 1.5


def test_a_broker_that_the_environment_names_is_used_where_docker_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nothing")
    for name in VARIABLES.values():
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "named:1")
    with provided_kafka("auto") as connection:
        assert connection == KafkaConnection("named:1")


def test_the_container_is_the_embedded_broker_in_another_wrapping():
    node = Node(node_id=1, port=20_001, controller_port=9093)
    embedded = dict(line.split("=", 1) for line in server_properties(node, [node], Path("/d")).splitlines())
    inside = {
        name.removeprefix("KAFKA_").lower().replace("_", "."): value
        for name, value in container_environment("localhost", 20_001).items()
    }
    of_its_own = {"listeners", "advertised.listeners", "controller.quorum.voters"}
    assert f"apache/kafka:{KAFKA_VERSION}" == IMAGE
    assert {name: embedded[name] for name in inside if name not in of_its_own} == {
        name: value for name, value in inside.items() if name not in of_its_own
    }
    assert inside["advertised.listeners"] == "PLAINTEXT://localhost:20001"
