"""A Kafka that lets nobody in without a certificate or a password, and allows only what it was told to allow."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import trustme
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialDeletion,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import LOOPBACK, free_port

NAME, PASSWORD = "ada", "correct-horse"
"""Of the user who may do everything, by any mechanism or by certificate."""
SCRAM = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}
SESSION_MS = 2_000
"""After so long a connection of the listener for brief sessions is made, and the password asked for, again."""


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """PEM files: of the authority, of another one, and of a client."""

    authority: Path
    stranger: Path
    broker: Path
    client: Path
    client_key: Path

    @classmethod
    def made(cls, folder: Path) -> "Certificates":
        authority, stranger = trustme.CA(), trustme.CA()
        files = {name: folder / f"{name}.pem" for name in ("authority", "stranger", "broker", "client", "client_key")}
        authority.cert_pem.write_to_path(str(files["authority"]))
        stranger.cert_pem.write_to_path(str(files["stranger"]))
        broker, client = authority.issue_cert(LOOPBACK), authority.issue_cert("ada@example.org", common_name=NAME)
        files["broker"].write_bytes(_pkcs8(broker) + _chain(broker))
        files["client"].write_bytes(_chain(client))
        client.private_key_pem.write_to_path(str(files["client_key"]))
        return cls(**files)


def _chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


def _pkcs8(certificate: trustme.LeafCert) -> bytes:
    """The form of a private key that Kafka reads."""
    key = serialization.load_pem_private_key(certificate.private_key_pem.bytes(), None)
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


class SecuredKafka:
    """One broker with a listener for its operator, one for passwords and one for certificates.

    Attributes:
        certificates: To connect with.
        plain: Address of the listener without any of it, whose clients may do everything.
        passwords: Address of the listener for SASL_SSL.
        mutual: Address of the listener for SSL with client certificates.
        brief: Address of a listener as `passwords`, which ends every session after `SESSION_MS`.
    """

    def __init__(self, folder: Path) -> None:
        self.certificates = Certificates.made(folder)
        self.plain, self.passwords, self.mutual, self.brief = (f"{LOOPBACK}:{free_port()}" for _ in range(4))
        self._controller_port = free_port()

    def properties(self) -> dict[str, object]:
        """Broker settings."""
        listeners = f"PLAINTEXT://{self.plain},PASSWORDS://{self.passwords},MUTUAL://{self.mutual},"
        listeners += f"BRIEF://{self.brief}"
        plain_login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        scram_login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORDS:SASL_SSL,MUTUAL:SSL,BRIEF:SASL_SSL"
        return {
            "listeners": f"{listeners},CONTROLLER://{LOOPBACK}:{self._controller_port}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": protocols,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.certificates.broker,
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.certificates.authority,
            "listener.name.mutual.ssl.client.auth": "required",
            "ssl.principal.mapping.rules": "RULE:^.*CN=([^,]+).*$/$1/",
            "listener.name.passwords.sasl.enabled.mechanisms": ",".join(["PLAIN", *SCRAM]),
            "listener.name.passwords.plain.sasl.jaas.config": f'{plain_login} user_{NAME}="{PASSWORD}";',
            "listener.name.passwords.scram-sha-256.sasl.jaas.config": scram_login,
            "listener.name.passwords.scram-sha-512.sasl.jaas.config": scram_login,
            "listener.name.brief.sasl.enabled.mechanisms": "SCRAM-SHA-256",
            "listener.name.brief.scram-sha-256.sasl.jaas.config": scram_login,
            "listener.name.brief.scram-sha-256.connections.max.reauth.ms": SESSION_MS,
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": f"User:ANONYMOUS;User:{NAME}",
        }

    @contextmanager
    def running(self) -> Iterator["SecuredKafka"]:
        """Run it for the time of the block, with the user `NAME` in it."""
        port = int(self.plain.rpartition(":")[2])
        with EmbeddedBroker(port=port, extra_properties=self.properties(), ports=lambda: self._controller_port):
            for mechanism in SCRAM:
                self.set_password(mechanism, NAME, PASSWORD)
            yield self

    @cached_property
    def admin(self) -> AdminClient:
        """An operator's client, who may do everything; what it is asked for fails when it is not kept."""
        return AdminClient({"bootstrap.servers": self.plain})

    def set_password(self, mechanism: str, name: str, password: str | None) -> None:
        """Let a user in with this password; None: no more."""
        kind = SCRAM[mechanism]
        change = (
            UserScramCredentialDeletion(name, kind)
            if password is None
            else UserScramCredentialUpsertion(name, ScramCredentialInfo(kind, 4096), password.encode())
        )
        for done in self.admin.alter_user_scram_credentials([change]).values():
            done.result(30)

    def allow(self, name: str, rights: Mapping[tuple[str, str], list[str]]) -> None:
        """Allow a user operations by kind and name of a resource; a name that ends with `*` is a prefix."""
        bindings = [acl(name, *resource, operation) for resource, found in rights.items() for operation in found]
        for done in self.admin.create_acls(bindings).values():
            done.result(30)

    def with_password(self, mechanism: str, name: str = NAME, password: str = PASSWORD) -> dict[str, str]:
        """Environment variables of who logs in."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.passwords,
            "KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
            "KAFKA_SASL_MECHANISM": mechanism,
            "KAFKA_SASL_USERNAME": name,
            "KAFKA_SASL_PASSWORD": password,
            "KAFKA_SSL_CAFILE": str(self.certificates.authority),
        }

    def with_certificate(self) -> dict[str, str]:
        """Environment variables of who shows a certificate."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.mutual,
            "KAFKA_SECURITY_PROTOCOL": "SSL",
            "KAFKA_SSL_CAFILE": str(self.certificates.authority),
            "KAFKA_SSL_CERTFILE": str(self.certificates.client),
            "KAFKA_SSL_KEYFILE": str(self.certificates.client_key),
        }


def acl(user: str, kind: str, name: str, operation: str) -> AclBinding:
    """One right."""
    prefixed = name.endswith("*")
    return AclBinding(
        KINDS[kind],
        "kafka-cluster" if kind == "cluster" else name.rstrip("*"),
        ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL,
        f"User:{user}",
        "*",
        AclOperation[OPERATIONS[operation]],
        AclPermissionType.ALLOW,
    )


KINDS = {
    "topic": ResourceType.TOPIC,
    "group": ResourceType.GROUP,
    "cluster": ResourceType.BROKER,
    "transactional-id": ResourceType.TRANSACTIONAL_ID,  # type: ignore[attr-defined]
}
"""Kafka's names of resources, as its command line spells them."""
OPERATIONS = {
    "Read": "READ",
    "Write": "WRITE",
    "Create": "CREATE",
    "Alter": "ALTER",
    "Delete": "DELETE",
    "Describe": "DESCRIBE",
    "DescribeConfigs": "DESCRIBE_CONFIGS",
    "IdempotentWrite": "IDEMPOTENT_WRITE",
}
"""Kafka's names of operations, as its documentation and its command line spell them, and librdkafka's."""
