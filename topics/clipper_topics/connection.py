"""How a process reaches Kafka: one value for every client.

Rules of this file:
- A password is never in a `repr`, a message or a log line, nor in what aiokafka logs at debug level.
- A setting that would be ignored is an error: a certificate without TLS must not pass for a secure connection.
"""

import logging
import ssl
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
"""The mechanisms that need a name and a password only; both clients have them without further packages."""

VARIABLES = {
    "bootstrap": "KAFKA_BOOTSTRAP_SERVERS",
    "security_protocol": "KAFKA_SECURITY_PROTOCOL",
    "sasl_mechanism": "KAFKA_SASL_MECHANISM",
    "username": "KAFKA_SASL_USERNAME",
    "password": "KAFKA_SASL_PASSWORD",
    "cafile": "KAFKA_SSL_CAFILE",
    "certfile": "KAFKA_SSL_CERTFILE",
    "keyfile": "KAFKA_SSL_KEYFILE",
}
"""The environment variable of each field."""


class _Discretion(logging.Filter):
    """Drops the lines in which aiokafka logs, at debug level, what it logs in with: for PLAIN the password."""

    def filter(self, record: logging.LogRecord) -> bool:
        words = record.args if isinstance(record.args, tuple) else ()
        return not any(type(word).__name__.startswith("SaslAuthenticate") for word in words)


_DISCRETION = _Discretion()


class InvalidConnection(ValueError):
    """The settings describe no usable connection; the message names the variable and what to set it to."""


@dataclass(frozen=True, slots=True)
class KafkaConnection:
    """Where the brokers are and how a client proves who it is.

    >>> KafkaConnection("localhost:9092").aiokafka()
    {'bootstrap_servers': 'localhost:9092', 'security_protocol': 'PLAINTEXT'}

    Attributes:
        bootstrap: One or several `host:port`, separated by commas.
        security_protocol: One of `PROTOCOLS`.
        sasl_mechanism: One of `MECHANISMS`; absent: `PLAIN` where the protocol is a SASL one.
        username: SASL name, with its `password`.
        cafile: PEM file of the authorities to trust; absent: the system's.
        certfile: PEM file of the client's certificate, for mutual TLS, with that of its private key, `keyfile`.

    Raises:
        InvalidConnection: an unknown name, half a credential, or a setting that the protocol would ignore.
    """

    bootstrap: str
    _: KW_ONLY
    security_protocol: str = "PLAINTEXT"
    sasl_mechanism: str | None = None
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    cafile: str | None = None
    certfile: str | None = None
    keyfile: str | None = None

    def __post_init__(self) -> None:
        self._check_names()
        self._check_pair("username", "password")
        self._check_pair("certfile", "keyfile")
        if self._sasl and self.username is None:
            raise InvalidConnection(
                f"{self.security_protocol} needs {VARIABLES['username']} and {VARIABLES['password']}"
            )
        if not self._sasl:
            self._check_ignored("sasl_mechanism", "username", use="SASL_SSL")
        if not self._tls:
            self._check_ignored("cafile", "certfile", use="SASL_SSL" if self._sasl else "SSL")

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> "KafkaConnection":
        """The connection that the variables in `VARIABLES` describe; an empty variable counts as absent.

        Raises:
            InvalidConnection: no address at all, or settings that do not fit together.
        """
        found: dict[str, Any] = {name: environ[key] for name, key in VARIABLES.items() if environ.get(key)}
        if "bootstrap" not in found:
            raise InvalidConnection(f"no Kafka address: set {VARIABLES['bootstrap']} to host:port[,host:port...]")
        for name in ("security_protocol", "sasl_mechanism"):
            if name in found:
                found[name] = found[name].upper()
        return cls(**found)

    def aiokafka(self) -> dict[str, Any]:
        """Keyword arguments for any aiokafka client; certificates are read at each call.

        Raises:
            InvalidConnection: a certificate file cannot be read.
        """
        arguments: dict[str, Any] = {"bootstrap_servers": self.bootstrap, "security_protocol": self.security_protocol}
        if self._tls:
            arguments["ssl_context"] = self._ssl_context()
        if self._sasl:
            logging.getLogger("aiokafka.conn").addFilter(_DISCRETION)  # a filter is there once, however often added
            arguments["sasl_mechanism"] = self.sasl_mechanism or "PLAIN"
            arguments["sasl_plain_username"] = self.username
            arguments["sasl_plain_password"] = self.password
        return arguments

    @property
    def _sasl(self) -> bool:
        return self.security_protocol.startswith("SASL_")

    @property
    def _tls(self) -> bool:
        return self.security_protocol.endswith("SSL")

    def _ssl_context(self) -> ssl.SSLContext:
        try:
            context = ssl.create_default_context(cafile=self.cafile)
            if self.certfile and self.keyfile:
                context.load_cert_chain(self.certfile, self.keyfile, password=_no_passphrase)
        except OSError as error:
            given = {name: getattr(self, name) for name in ("cafile", "certfile", "keyfile")}
            files = ", ".join(f"{VARIABLES[name]}={file}" for name, file in given.items() if file)
            why = f"{error.strerror or error}: give PEM files that this user may read"
            raise InvalidConnection(f"cannot read the certificates ({files}): {why}") from error
        return context

    def _check_names(self) -> None:
        if not self.bootstrap.strip():
            raise InvalidConnection(f"{VARIABLES['bootstrap']} is empty: set it to host:port[,host:port...]")
        for name, known in (("security_protocol", PROTOCOLS), ("sasl_mechanism", MECHANISMS)):
            value = getattr(self, name)
            if value is not None and value not in known:
                raise InvalidConnection(f"{VARIABLES[name]}={value!r}: use one of {', '.join(known)}")

    def _check_pair(self, first: str, second: str) -> None:
        missing = [name for name in (first, second) if getattr(self, name) is None]
        if len(missing) == 1:
            both = f"{VARIABLES[first]} and {VARIABLES[second]} go together"
            raise InvalidConnection(f"{VARIABLES[missing[0]]} is not set: {both}")

    def _check_ignored(self, *names: str, use: str) -> None:
        for name in names:
            if getattr(self, name) is not None:
                raise InvalidConnection(
                    f"{VARIABLES[name]} is set, but {self.security_protocol} ignores it: "
                    f"set {VARIABLES['security_protocol']}={use}, or unset it"
                )


def _no_passphrase() -> str:
    """Raise: OpenSSL would ask the terminal for it, and a process without one would wait for ever."""
    raise InvalidConnection(
        f"{VARIABLES['keyfile']} is encrypted: give a key without a passphrase, readable by this user only"
    )
