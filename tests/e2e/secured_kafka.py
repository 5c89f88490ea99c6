"""A Kafka that lets nobody in without a certificate or a password, and allows only what it was told to allow."""

import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

import trustme
from confluent_kafka import admin
from confluent_kafka.admin import AdminClient
from cryptography.hazmat.primitives import serialization
from e2e.programs import reserved_port

from clipper_agents.broker import EmbeddedBroker
from clipper_agents.broker.properties import LOOPBACK

NAME, PASSWORD = "ada", "correct-horse"
"""Of the user who may do everything, by any mechanism or by certificate."""
SCRAM = ("SCRAM-SHA-256", "SCRAM-SHA-512")
SESSION_MS = 2_000
"""After so long a connection of the listener for brief sessions is made, and the password asked for, again."""


def _certificates(folder: Path) -> dict[str, Path]:
    """PEM files: of the authority, of another one, of the broker, and of a client with its key."""
    authority, broker_key = trustme.CA(), serialization.PrivateFormat.PKCS8  # the form that Kafka reads
    broker, client = authority.issue_cert(LOOPBACK), authority.issue_cert("ada@example.org", common_name=NAME)
    key = serialization.load_pem_private_key(broker.private_key_pem.bytes(), None)
    contents = {
        "authority": authority.cert_pem.bytes(),
        "stranger": trustme.CA().cert_pem.bytes(),
        "broker": key.private_bytes(serialization.Encoding.PEM, broker_key, serialization.NoEncryption())
        + _chain(broker),
        "client": _chain(client),
        "client_key": client.private_key_pem.bytes(),
    }
    for name, content in contents.items():
        (folder / f"{name}.pem").write_bytes(content)
    return {name: folder / f"{name}.pem" for name in contents}


def _chain(certificate: trustme.LeafCert) -> bytes:
    return b"".join(blob.bytes() for blob in certificate.cert_chain_pems)


class SecuredKafka:
    """One broker with four listeners.

    `plain` asks for nothing, and its clients may do everything; `passwords` is for SASL_SSL, `mutual` for SSL with
    client certificates; `brief` is as `passwords`, and ends every session after `SESSION_MS`.
    """

    def __init__(self, folder: Path) -> None:
        self.certificates = _certificates(folder)

    @contextmanager
    def running(self) -> Iterator["SecuredKafka"]:
        """Run it for the time of the block, with the user `NAME` in it."""
        with ExitStack() as stack:
            port, *others, controller = (stack.enter_context(reserved_port()) for _ in range(5))
            self.plain, self.passwords, self.mutual, self.brief = (f"{LOOPBACK}:{each}" for each in (port, *others))
            settings = self._properties(f"{LOOPBACK}:{controller}")
            stack.enter_context(EmbeddedBroker(port=port, extra_properties=settings, ports=lambda: controller))
            for mechanism in SCRAM:
                self.set_password(mechanism, NAME, PASSWORD)
            yield self

    def _properties(self, controller: str) -> dict[str, object]:
        listeners = f"PLAINTEXT://{self.plain},PASSWORDS://{self.passwords},MUTUAL://{self.mutual},BRIEF://{self.brief}"
        plain_login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        scram_login = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
        protocols = "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,PASSWORDS:SASL_SSL,MUTUAL:SSL,BRIEF:SASL_SSL"
        return {
            "listeners": f"{listeners},CONTROLLER://{controller}",
            "advertised.listeners": listeners,
            "listener.security.protocol.map": protocols,
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": self.certificates["broker"],
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": self.certificates["authority"],
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

    @cached_property
    def admin(self) -> AdminClient:
        """An operator's client, who may do everything; what it is asked for fails when it is not kept."""
        return AdminClient({"bootstrap.servers": self.plain})

    def set_password(self, mechanism: str, name: str, password: str) -> None:
        """Let a user in with this password, and wait until the broker does."""
        info = admin.ScramCredentialInfo(admin.ScramMechanism[mechanism.replace("-", "_")], 4096)
        change = admin.UserScramCredentialUpsertion(name, info, password.encode())
        for done in self.admin.alter_user_scram_credentials([change]).values():
            done.result(30)
        user = AdminClient(self.for_librdkafka(mechanism, name, password))
        assert user.list_topics(timeout=60), "it logs in again until it is let in"

    def for_librdkafka(self, mechanism: str, name: str, password: str) -> dict[str, str]:
        """Settings of somebody else's client that logs in."""
        return {
            "bootstrap.servers": self.passwords,
            "security.protocol": "SASL_SSL",
            "sasl.mechanism": mechanism,
            "sasl.username": name,
            "sasl.password": password,
            "ssl.ca.location": str(self.certificates["authority"]),
        }

    def allow(self, name: str, rights: Mapping[tuple[str, str], list[str]]) -> None:
        """Allow a user operations by kind and name of a resource; a name that ends with `*` is a prefix."""
        bindings = [_acl(name, *resource, operation) for resource, found in rights.items() for operation in found]
        for done in self.admin.create_acls(bindings).values():
            done.result(30)

    def with_password(self, mechanism: str, name: str = NAME, password: str = PASSWORD) -> dict[str, str]:
        """Environment variables of who logs in."""
        who = {"SASL_MECHANISM": mechanism, "SASL_USERNAME": name, "SASL_PASSWORD": password}
        return self._environment(self.passwords, "SASL_SSL", who)

    def with_certificate(self) -> dict[str, str]:
        """Environment variables of who shows a certificate."""
        files = {"SSL_CERTFILE": str(self.certificates["client"]), "SSL_KEYFILE": str(self.certificates["client_key"])}
        return self._environment(self.mutual, "SSL", files)

    def _environment(self, address: str, protocol: str, who: Mapping[str, str]) -> dict[str, str]:
        where = {"BOOTSTRAP_SERVERS": address, "SECURITY_PROTOCOL": protocol}
        files = {"SSL_CAFILE": str(self.certificates["authority"])}
        return {f"KAFKA_{name}": value for name, value in {**where, **files, **who}.items()}


def _acl(user: str, kind: str, name: str, operation: str) -> admin.AclBinding:
    """One right, by Kafka's names of kinds and operations as its command line spells them."""
    resource = admin.ResourceType[{"cluster": "BROKER"}.get(kind, kind.replace("-", "_").upper())]
    pattern = admin.ResourcePatternType["PREFIXED" if name.endswith("*") else "LITERAL"]
    allowed = admin.AclOperation[re.sub(r"(?<=[a-z])(?=[A-Z])", "_", operation).upper()]
    place, who = "kafka-cluster" if kind == "cluster" else name.rstrip("*"), f"User:{user}"
    return admin.AclBinding(resource, place, pattern, who, "*", allowed, admin.AclPermissionType.ALLOW)
