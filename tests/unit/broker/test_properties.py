"""What is a node of the embedded Kafka configured with?"""

import socket
from pathlib import Path

import pytest

from clipper_agents.broker.properties import PORTS, Node, free_port, server_properties

NODES = [Node(node_id=number, port=20_000 + number, controller_port=21_000 + number) for number in (1, 2, 3)]


def properties(nodes, number=1, extra=None):
    text = server_properties(NODES[number - 1], NODES[:nodes], Path("/d"), extra)
    return dict(line.split("=", 1) for line in text.splitlines())


@pytest.mark.parametrize(
    ("nodes", "number", "voters", "copies", "least"),
    [
        (1, 1, "1@127.0.0.1:21001", "1", "1"),
        (3, 2, "1@127.0.0.1:21001,2@127.0.0.1:21002,3@127.0.0.1:21003", "3", "2"),
    ],
)
def test_each_node_is_broker_and_controller_and_all_keep_copies(nodes, number, voters, copies, least):
    """On the loopback interface only; three nodes keep three copies, of which two must be written."""
    found = properties(nodes, number)
    assert found["node.id"] == str(number)
    assert found["listeners"] == f"PLAINTEXT://127.0.0.1:2000{number},CONTROLLER://127.0.0.1:2100{number}"
    assert found["controller.quorum.voters"] == voters
    assert found["log.dirs"] == "/d"
    for name in ("default", "offsets.topic", "transaction.state.log"):
        assert found[f"{name}.replication.factor"] == copies
    assert found["min.insync.replicas"] == found["transaction.state.log.min.isr"] == least
    assert found["auto.create.topics.enable"] == "false", "topics are never created on demand"


def test_extra_settings_win():
    found = properties(1, extra={"log.retention.ms": 5, "log.dirs": "/e"})
    assert (found["log.retention.ms"], found["log.dirs"]) == ("5", "/e")


def test_a_free_port_can_be_listened_on_and_is_none_that_an_outgoing_connection_gets():
    port = free_port()
    assert port in PORTS
    socket.create_server(("127.0.0.1", port)).close()
