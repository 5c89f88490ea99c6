"""How do settings become a connection, and which are refused?"""

import base64
import logging
import ssl

import pytest
import trustme
from aiokafka.protocol.admin import SaslAuthenticateRequest_v1
from cryptography.hazmat.primitives import serialization

from clipper_topics import sasl
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


# --- tokens -----------------------------------------------------------------------------------------------------------
TOKENS = {
    "KAFKA_BOOTSTRAP_SERVERS": "a:1",
    "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "KAFKA_SASL_MECHANISM": "OAUTHBEARER",
}
CLIENT = {"KAFKA_SASL_USERNAME": "ada", "KAFKA_SASL_PASSWORD": "xyzzy"}
OIDC = {**TOKENS, **CLIENT, "KAFKA_SASL_TOKEN_URL": "https://login.example.org/token"}


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        (TOKENS, "needs either KAFKA_SASL_TOKEN_URL or KAFKA_SASL_TOKEN_PROVIDER"),
        ({**OIDC, "KAFKA_SASL_TOKEN_PROVIDER": "a:b"}, "needs either"),
        ({**TOKENS, "KAFKA_SASL_TOKEN_URL": "https://a"}, "needs KAFKA_SASL_USERNAME"),
        ({**OIDC, "KAFKA_SASL_TOKEN_URL": "file:///etc/passwd"}, "give a URL of https"),
        ({**TOKENS, **CLIENT, "KAFKA_SASL_TOKEN_PROVIDER": "a:b"}, "KAFKA_SASL_USERNAME is set, but"),
        ({**SASL, "KAFKA_SASL_TOKEN_URL": "https://a"}, "KAFKA_SASL_TOKEN_URL is set, but .*SCRAM-SHA-512 ignores it"),
        ({**OIDC, "KAFKA_SASL_KERBEROS_SERVICE": "k"}, "KAFKA_SASL_KERBEROS_SERVICE is set, but"),
        ({"KAFKA_BOOTSTRAP_SERVERS": "a:1", "KAFKA_SASL_EXTENSIONS": "a=b"}, "KAFKA_SASL_EXTENSIONS is set, but PLAIN"),
    ],
)
def test_what_a_token_needs_and_what_would_be_ignored_is_said(environ, said):
    with pytest.raises(InvalidConnection, match=said):
        KafkaConnection.from_environment(environ)


def test_clients_of_a_connection_share_a_source_of_tokens_which_are_not_shown():
    connection = KafkaConnection.from_environment({**OIDC, "KAFKA_SASL_EXTENSIONS": "logicalCluster=l-1, pool=p"})
    one, other = (connection.aiokafka()["sasl_oauth_token_provider"] for _ in range(2))
    assert one is other
    assert one.extensions() == {"logicalCluster": "l-1", "pool": "p"}
    assert "xyzzy" not in repr(connection)


def test_a_function_that_is_not_there_is_named():
    connection = KafkaConnection.from_environment({**TOKENS, "KAFKA_SASL_TOKEN_PROVIDER": "no.such:token"})
    with pytest.raises(InvalidConnection, match=r"KAFKA_SASL_TOKEN_PROVIDER=no\.such:token: No module named 'no'"):
        connection.aiokafka()


async def test_a_token_is_asked_for_again_after_four_fifths_of_its_life(monkeypatch):
    now_s, given = 0.0, iter(sasl.Token(f"t{number}", 100.0 if number < 2 else None) for number in range(9))
    monkeypatch.setattr(sasl.time, "monotonic", lambda: now_s)
    provider = sasl.TokenProvider("a function", lambda: next(given), {})

    async def at(time_s):
        nonlocal now_s
        now_s = time_s
        return await provider.token()

    found = [await at(time_s) for time_s in (1.0, 80.0, 81.1, 170.0, 170.0)]
    assert found == ["t0", "t0", "t1", "t2", "t3"], "one of unknown life is used once"


def test_amazons_tokens_are_signed_here_for_the_region_of_the_brokers(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x" * 20)
    text, life_s = sasl.msk_tokens("b-1.a.c2.kafka.eu-west-1.amazonaws.com:9098")()
    assert (
        "https://kafka.eu-west-1.amazonaws.com/?Action=kafka-cluster" in base64.urlsafe_b64decode(text + "==").decode()
    )
    assert 800 < life_s <= 900
