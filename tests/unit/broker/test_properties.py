"""What is a node of the embedded Kafka configured with?"""

import socket
from pathlib import Path

import pytest

from clipper_agents.broker.properties import PORTS, Node, free_port, server_properties


def parsed(text: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in text.splitlines())


def node(number: int) -> Node:
    return Node(node_id=number, port=20_000 + number, controller_port=21_000 + number)


def test_one_node_is_broker_and_controller_on_the_loopback_interface_only():
    found = parsed(server_properties(node(1), [node(1)], Path("/d")))
    assert found["listeners"] == "PLAINTEXT://127.0.0.1:20001,CONTROLLER://127.0.0.1:21001"
    assert found["controller.quorum.voters"] == "1@127.0.0.1:21001"
    assert found["log.dirs"] == "/d"
    assert found["offsets.topic.replication.factor"] == found["default.replication.factor"] == "1"


def test_three_nodes_keep_three_copies_of_which_two_must_be_written():
    nodes = [node(number) for number in (1, 2, 3)]
    found = parsed(server_properties(nodes[1], nodes, Path("/d")))
    assert found["node.id"] == "2"
    assert found["controller.quorum.voters"] == "1@127.0.0.1:21001,2@127.0.0.1:21002,3@127.0.0.1:21003"
    assert (found["default.replication.factor"], found["min.insync.replicas"]) == ("3", "2")


def test_topics_are_never_created_on_demand():
    assert parsed(server_properties(node(1), [node(1)], Path("/d")))["auto.create.topics.enable"] == "false"


def test_extra_settings_win():
    found = parsed(server_properties(node(1), [node(1)], Path("/d"), {"log.retention.ms": 5, "log.dirs": "/e"}))
    assert (found["log.retention.ms"], found["log.dirs"]) == ("5", "/e")


def test_a_free_port_can_be_listened_on_and_is_none_that_an_outgoing_connection_gets():
    port = free_port()
    assert port in PORTS
    socket.create_server(("127.0.0.1", port)).close()


@pytest.mark.parametrize(("nodes", "copies", "least"), [(1, 1, 1), (3, 3, 2)])
def test_transactions_are_kept_by_as_many_brokers_as_there_are(nodes, copies, least):
    voters = [node(number) for number in range(nodes)]
    found = parsed(server_properties(voters[0], voters, Path("/d")))
    assert found["transaction.state.log.replication.factor"] == str(copies)
    assert found["transaction.state.log.min.isr"] == str(least)
