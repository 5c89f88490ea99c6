"""Why Kafka does not let us in, in one line with the address, the reason and what to change."""

import asyncio

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    TopicAuthorizationFailedError,
)

from clipper_agents.broker.properties import LOOPBACK, free_port
from clipper_stream.client import AccessRefused, BrokerUnavailable
from clipper_stream.client.access import check_access, explained, refused_right
from clipper_topics.connection import KafkaConnection

ADA = KafkaConnection("here:1", security_protocol="SASL_PLAINTEXT", username="ada", password="xyzzy")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (TopicAuthorizationFailedError("a.b"), "user 'ada' may not use topic a.b at here:1"),
        (TopicAuthorizationFailedError(["a", "b"]), "user 'ada' may not use topic a, b at here:1"),
        (TopicAuthorizationFailedError(), "user 'ada' may not use topic (Kafka does not say which)"),
        (GroupAuthorizationFailedError("a.router"), "user 'ada' may not use group a.router"),
        (ClusterAuthorizationFailedError(), "user 'ada' may not use cluster (no topic to write to, nor"),
    ],
)
def test_a_missing_right_names_whose_and_which(error, said):
    refused = str(refused_right(ADA, error))
    assert refused.startswith(said)
    assert "docs/how-to/secure-kafka.md" in refused
    assert "xyzzy" not in refused


def test_who_has_no_name_is_named_by_the_certificate():
    anybody = KafkaConnection("here:1")
    certified = KafkaConnection("here:1", security_protocol="SSL", certfile="a.pem", keyfile="a.key")
    error = TopicAuthorizationFailedError("a")
    assert str(refused_right(anybody, error)).startswith("a client without credentials may not")
    assert str(refused_right(certified, error)).startswith("the certificate a.pem may not")


def test_an_address_where_nobody_listens_is_unavailable_and_not_refused():
    where = f"{LOOPBACK}:{free_port()}"
    with pytest.raises(BrokerUnavailable, match=f"no Kafka answers at {where} .PLAINTEXT.: Connect call failed"):
        asyncio.run(check_access(KafkaConnection(where)))


def test_a_port_that_says_nothing_is_unavailable_when_the_time_is_over():
    async def silent():
        server = await asyncio.start_server(lambda reader, writer: reader.read(), LOOPBACK, 0)
        where = "{}:{}".format(*server.sockets[0].getsockname())
        with pytest.raises(BrokerUnavailable, match="no Kafka answers"):
            await check_access(KafkaConnection(where), answer_s=0.05)
        server.close()

    asyncio.run(silent())


def test_an_error_of_a_client_is_explained_by_knocking_again():
    where = KafkaConnection(f"{LOOPBACK}:{free_port()}")
    error = KafkaConnectionError("Unable to bootstrap")
    assert isinstance(asyncio.run(explained(where, "cannot read", error)), BrokerUnavailable)
    assert isinstance(asyncio.run(explained(where, "cannot read", TopicAuthorizationFailedError("a"))), AccessRefused)
