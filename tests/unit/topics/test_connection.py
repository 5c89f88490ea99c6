"""How do settings become a connection, and which are refused?"""

import logging
import ssl

import pytest
import trustme
from aiokafka.protocol.admin import SaslAuthenticateRequest_v1
from cryptography.hazmat.primitives import serialization

from clipper_topics.connection import VARIABLES, InvalidConnection, KafkaConnection

SASL = {
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9093",
    "KAFKA_SECURITY_PROTOCOL": "sasl_ssl",
    "KAFKA_SASL_MECHANISM": "scram-sha-512",
    "KAFKA_SASL_USERNAME": "clipper",
    "KAFKA_SASL_PASSWORD": "xyzzy",
}


def test_an_address_alone_is_a_plaintext_connection():
    """An empty variable counts as absent."""
    environ = dict.fromkeys(VARIABLES.values(), "") | {"KAFKA_BOOTSTRAP_SERVERS": "a:1,b:2"}
    connection = KafkaConnection.from_environment(environ)
    assert connection == KafkaConnection("a:1,b:2")
    assert connection.aiokafka() == {"bootstrap_servers": "a:1,b:2", "security_protocol": "PLAINTEXT"}


def test_a_sasl_connection_has_the_credential_whatever_the_case_of_its_names():
    connection = KafkaConnection.from_environment(SASL)
    arguments = connection.aiokafka()
    values = ["kafka:9093", "SASL_SSL", "SCRAM-SHA-512", "clipper", "xyzzy"]
    assert isinstance(arguments.pop("ssl_context"), ssl.SSLContext)
    names = "bootstrap_servers", "security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password"
    assert arguments == dict(zip(names, values, strict=True))
    connection = KafkaConnection("a:1", security_protocol="SASL_PLAINTEXT", username="u", password="p")
    assert connection.aiokafka()["sasl_mechanism"] == "PLAIN"


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
