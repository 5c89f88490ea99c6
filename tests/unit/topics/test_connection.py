"""How do settings become a connection, and which are refused?"""

import logging
import ssl

import pytest
import trustme
from aiokafka.protocol.admin import SaslAuthenticateRequest_v1
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives import serialization

from clipper_topics.connection import VARIABLES, InvalidConnection, KafkaConnection

SASL = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9093",
    "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
    "KAFKA_SASL_MECHANISM": "scram-sha-512",
    "KAFKA_SASL_USERNAME": "clipper",
    "KAFKA_SASL_PASSWORD": "xyzzy",
}


def test_an_address_alone_is_a_plaintext_connection_of_both_clients():
    """An empty variable counts as absent."""
    environ = dict.fromkeys(VARIABLES.values(), "") | {"KAFKA_BOOTSTRAP_SERVERS": "a:1,b:2"}
    connection = KafkaConnection.from_environment(environ)
    assert connection == KafkaConnection("a:1,b:2")
    assert connection.aiokafka() == {"bootstrap_servers": "a:1,b:2", "security_protocol": "PLAINTEXT"}
    assert connection.librdkafka() == {"bootstrap.servers": "a:1,b:2", "security.protocol": "PLAINTEXT"}
    AdminClient(connection.librdkafka())  # takes it


def test_a_sasl_connection_gives_both_clients_the_credential_whatever_the_case_of_its_names():
    connection = KafkaConnection.from_environment(SASL)
    arguments = connection.aiokafka()
    values = ["kafka:9093", "SASL_SSL", "SCRAM-SHA-512", "clipper", "xyzzy"]
    assert isinstance(arguments.pop("ssl_context"), ssl.SSLContext)
    names = "bootstrap_servers", "security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password"
    assert arguments == dict(zip(names, values, strict=True))
    names = "bootstrap.servers", "security.protocol", "sasl.mechanism", "sasl.username", "sasl.password"
    assert connection.librdkafka() == dict(zip(names, values, strict=True))
    connection = KafkaConnection("a:1", security_protocol="SASL_PLAINTEXT", username="u", password="p")
    assert connection.aiokafka()["sasl_mechanism"] == "PLAIN"
    assert connection.librdkafka()["sasl.mechanism"] == "PLAIN"


SASL_PLAINTEXT = {"KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT", "KAFKA_SSL_CAFILE": "ca.pem"}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"KAFKA_BOOTSTRAP_SERVERS": ""}, "set KAFKA_BOOTSTRAP_SERVERS"),
        ({"KAFKA_BOOTSTRAP_SERVERS": " "}, "KAFKA_BOOTSTRAP_SERVERS is empty"),
        ({"KAFKA_SECURITY_PROTOCOL": "TLS"}, "KAFKA_SECURITY_PROTOCOL='TLS': use one of PLAINTEXT, SSL"),
        ({"KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "KAFKA_SASL_MECHANISM is set, but PLAINTEXT ignores it"),
        ({"KAFKA_SASL_MECHANISM": "GSSAPI"}, "KAFKA_SASL_MECHANISM='GSSAPI': use one of PLAIN"),
        ({"KAFKA_SASL_PASSWORD": ""}, "KAFKA_SASL_PASSWORD is not set"),
        ({"KAFKA_SASL_USERNAME": ""}, "KAFKA_SASL_USERNAME is not set"),
        ({"KAFKA_SASL_USERNAME": "", "KAFKA_SASL_PASSWORD": ""}, "SASL_SSL needs KAFKA_SASL_USERNAME"),
        ({"KAFKA_SSL_CERTFILE": "c.pem"}, "KAFKA_SSL_KEYFILE is not set"),
        ({"KAFKA_SSL_KEYFILE": "k.pem"}, "KAFKA_SSL_CERTFILE is not set"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL"}, "KAFKA_SASL_MECHANISM is set, but SSL ignores it"),
        ({"KAFKA_SECURITY_PROTOCOL": "SSL", "KAFKA_SASL_MECHANISM": ""}, "KAFKA_SASL_USERNAME is set, but SSL"),
        (
            SASL_PLAINTEXT,
            "KAFKA_SSL_CAFILE is set, but SASL_PLAINTEXT ignores it: set KAFKA_SECURITY_PROTOCOL=SASL_SSL",
        ),
    ],
)
def test_settings_that_do_not_fit_together_are_refused_by_name_and_without_the_password(changes, message):
    with pytest.raises(InvalidConnection) as raised:
        KafkaConnection.from_environment(SASL | changes)
    assert message in str(raised.value)
    assert "xyzzy" not in str(raised.value) + repr(KafkaConnection.from_environment(SASL))


def test_what_is_sent_to_log_in_is_not_logged_at_debug_level(caplog):
    KafkaConnection("a:1", security_protocol="SASL_PLAINTEXT", username="ada", password="xyzzy").aiokafka()
    logger = logging.getLogger("aiokafka.conn")
    with caplog.at_level(logging.DEBUG, logger="aiokafka.conn"):
        logger.debug("Request to %s: %s", "a:1", SaslAuthenticateRequest_v1(b"\0ada\0xyzzy"))
        logger.debug("Request to %s: %s", "a:1", "Metadata")
    assert [record.args for record in caplog.records] == [("a:1", "Metadata")]


def test_a_missing_certificate_file_and_an_encrypted_key_are_errors_and_no_question_at_the_terminal(tmp_path):
    connection = KafkaConnection("a:1", security_protocol="SSL", cafile=str(tmp_path / "ca.pem"))
    with pytest.raises(InvalidConnection, match=r"KAFKA_SSL_CAFILE=.*ca\.pem"):
        connection.aiokafka()
    leaf = trustme.CA().issue_cert("ada@example.org")
    key = serialization.load_pem_private_key(leaf.private_key_pem.bytes(), None)
    certificate, encrypted = tmp_path / "ada.pem", tmp_path / "ada.key"
    leaf.cert_chain_pems[0].write_to_path(str(certificate))
    form, secret = serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"xyzzy")
    encrypted.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, secret))
    connection = KafkaConnection("a:1", security_protocol="SSL", certfile=str(certificate), keyfile=str(encrypted))
    with pytest.raises(InvalidConnection, match="KAFKA_SSL_KEYFILE is encrypted"):
        connection.aiokafka()
