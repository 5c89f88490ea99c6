"""What is a node of the embedded Kafka configured with?"""

import socket
from pathlib import Path

from clipper_agents.broker.properties import PORTS, NodePorts, free_port, server_properties

NODES = {number: NodePorts(20_000 + number, 21_000 + number) for number in (1, 2, 3)}


def properties(ports, extra):
    return dict(line.split("=", 1) for line in server_properties(ports, Path("/d"), extra).splitlines())


def test_a_node_is_broker_and_controller_on_the_loopback_interface_only():
    found = properties(NODES[1], {})
    assert found["node.id"] == "1"
    assert found["listeners"] == "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:21001"
    assert found["controller.quorum.voters"] == "1@127.0.0.1:21001"
    assert found["log.dirs"] == "/d"
    assert {value for name, value in found.items() if name.endswith(".replication.factor")} == {"1"}
    assert found["auto.create.topics.enable"] == "false", "topics are never created on demand"


def test_a_free_port_can_be_listened_on_and_is_none_that_an_outgoing_connection_gets():
    port = free_port()
    assert port in PORTS
    socket.create_server(("127.0.0.1", port)).close()
