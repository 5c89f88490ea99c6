"""Why Kafka does not let us in, in one line with the address, the reason and what to change."""

import asyncio

import pytest
from aiokafka.errors import (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    TopicAuthorizationFailedError,
)

from clipper_stream.client import AccessRefused, BrokerUnavailable
from clipper_stream.client.access import check_access, explained, refused_right
from clipper_topics.connection import KafkaConnection

NOWHERE = KafkaConnection("127.0.0.1:1")
ANYBODY = KafkaConnection("here:1")
ADA = KafkaConnection("here:1", security_protocol="SASL_PLAINTEXT", username="ada", password="xyzzy")
CERTIFIED = KafkaConnection("here:1", security_protocol="SSL", certfile="a.pem", keyfile="a.key")
TOPIC, GROUP, CLUSTER = TopicAuthorizationFailedError, GroupAuthorizationFailedError, ClusterAuthorizationFailedError


@pytest.mark.parametrize(
    ("who", "error", "said"),
    [
        (ADA, TOPIC("a.b"), "user 'ada' may not use topic a.b at here:1"),
        (ADA, TOPIC(["a", "b"]), "user 'ada' may not use topic a, b at here:1"),
        (ADA, TOPIC(), "user 'ada' may not use topic (Kafka does not say which)"),
        (ADA, GROUP("a.router"), "user 'ada' may not use group a.router"),
        (ADA, CLUSTER(), "user 'ada' may not use cluster (no topic to write to, nor"),
        (ANYBODY, TOPIC("a"), "a client without credentials may not"),
        (CERTIFIED, TOPIC("a"), "the certificate a.pem may not"),
    ],
)
def test_a_missing_right_names_whose_and_which(who, error, said):
    refused = str(refused_right(who, error))
    assert refused.startswith(said)
    assert "docs/how-to/secure-kafka.md" in refused
    assert "xyzzy" not in refused


async def test_an_address_where_nobody_listens_is_unavailable_and_not_refused():
    said = r"no Kafka answers at 127.0.0.1:1 .PLAINTEXT.: Connect call failed"
    with pytest.raises(BrokerUnavailable, match=said):
        await check_access(NOWHERE)
    reason = await explained(NOWHERE, "cannot read", KafkaConnectionError("Unable to bootstrap"))
    assert isinstance(reason, BrokerUnavailable)
    assert isinstance(await explained(NOWHERE, "cannot read", TOPIC("a")), AccessRefused)


async def test_a_port_that_says_nothing_is_unavailable_when_the_time_is_over():
    async with await asyncio.start_server(lambda reader, writer: reader.read(), "127.0.0.1", 0) as server:
        where = "{}:{}".format(*server.sockets[0].getsockname())
        with pytest.raises(BrokerUnavailable, match="no Kafka answers"):
            await check_access(KafkaConnection(where), answer_s=0.05)
