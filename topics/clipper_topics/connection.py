"""How a process reaches Kafka: one value for every client.

Rules of this file:
- A password is never in a `repr`, a message or a log line, nor in what aiokafka logs at debug level.
- A setting that would be ignored is an error: a certificate without TLS must not pass for a secure connection.
"""

import logging
import ssl
from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass, field
from functools import lru_cache
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clipper_topics import sasl

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER", "GSSAPI")
"""All but the last two need a name and a password only; GSSAPI, which is Kerberos, needs the package `gssapi`."""

VARIABLES = {
    "bootstrap": "KAFKA_BOOTSTRAP_SERVERS",
    "security_protocol": "KAFKA_SECURITY_PROTOCOL",
    "sasl_mechanism": "KAFKA_SASL_MECHANISM",
    "username": "KAFKA_SASL_USERNAME",
    "password": "KAFKA_SASL_PASSWORD",
    "cafile": "KAFKA_SSL_CAFILE",
    "certfile": "KAFKA_SSL_CERTFILE",
    "keyfile": "KAFKA_SSL_KEYFILE",
    "token_provider": "KAFKA_SASL_TOKEN_PROVIDER",
    "token_url": "KAFKA_SASL_TOKEN_URL",
    "token_scope": "KAFKA_SASL_TOKEN_SCOPE",
    "sasl_extensions": "KAFKA_SASL_EXTENSIONS",
    "kerberos_service": "KAFKA_SASL_KERBEROS_SERVICE",
    "rack": "KAFKA_CLIENT_RACK",
}
"""The environment variable of each field."""
_OF_TOKENS = ("token_provider", "token_url", "token_scope", "sasl_extensions")


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
        token_url: Token endpoint of an OpenID Connect server, for OAUTHBEARER, where `username` and `password` are the
            client's id and secret, and `token_scope` what it asks for.
        token_provider: Instead of it `aws-msk-iam`, or `module:function` of a function that returns a token.
        sasl_extensions: What goes to the broker with the token, `logicalCluster=lkc-1,identityPoolId=pool-2`.
        kerberos_service: First part of the brokers' Kerberos principal, for GSSAPI; absent: `kafka`.
        rack: Where the client is; it reads from a copy whose broker has the same `broker.rack` (KIP-392).
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
    token_provider: str | None = None
    token_url: str | None = None
    token_scope: str | None = None
    sasl_extensions: str | None = None
    kerberos_service: str | None = None
    rack: str | None = None

    def __post_init__(self) -> None:
        self._check_names()
        self._check_pair("username", "password")
        self._check_pair("certfile", "keyfile")
        if self._sasl:
            self._check_log_in()
        else:
            names = "sasl_mechanism", "username", *_OF_TOKENS, "kerberos_service"
            self._check_ignored(*names, by=self.security_protocol, use="security_protocol=SASL_SSL")
        if not self._tls:
            use = f"security_protocol={'SASL_SSL' if self._sasl else 'SSL'}"
            self._check_ignored("cafile", "certfile", by=self.security_protocol, use=use)

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
            from clipper_topics import sasl  # noqa: PLC0415 (aiokafka, which a command's --help can do without)

            sasl.install()
            logging.getLogger("aiokafka.conn").addFilter(_DISCRETION)  # a filter is there once, however often added
            arguments["sasl_mechanism"] = self._mechanism
            arguments["sasl_plain_username"] = self.username
            arguments["sasl_plain_password"] = self.password
            if self._mechanism == "GSSAPI":
                arguments["sasl_kerberos_service_name"] = self.kerberos_service or "kafka"
            if self._mechanism == "OAUTHBEARER":
                arguments["sasl_oauth_token_provider"] = _token_provider(self)
        return arguments

    @property
    def _sasl(self) -> bool:
        return self.security_protocol.startswith("SASL_")

    @property
    def _mechanism(self) -> str:
        return self.sasl_mechanism or "PLAIN"

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

    def _check_log_in(self) -> None:
        """Check what the mechanism needs, and that nothing is said that it ignores."""
        mechanism, has_tokens = self._mechanism, self._mechanism == "OAUTHBEARER"
        if has_tokens and (self.token_url is None) == (self.token_provider is None):
            raise InvalidConnection(
                f"OAUTHBEARER needs either {VARIABLES['token_url']} or {VARIABLES['token_provider']}"
            )
        if has_tokens and self.token_url and not self.token_url.startswith(("https://", "http://")):
            raise InvalidConnection(f"{VARIABLES['token_url']}={self.token_url!r}: give a URL of https, or http")
        is_named = self.token_url is not None if has_tokens else mechanism != "GSSAPI"
        if is_named and self.username is None:
            raise InvalidConnection(
                f"{self.security_protocol} needs {VARIABLES['username']} and {VARIABLES['password']}"
            )
        ignored = (() if has_tokens else _OF_TOKENS) + (() if is_named else ("username", "token_scope"))
        if mechanism != "GSSAPI":
            ignored += ("kerberos_service",)
        elif find_spec("gssapi") is None:
            raise InvalidConnection(f"{VARIABLES['sasl_mechanism']}=GSSAPI needs Kerberos: pip install gssapi")
        self._check_ignored(*ignored, by=f"{VARIABLES['sasl_mechanism']}={mechanism}", use="sasl_mechanism")

    def _check_pair(self, first: str, second: str) -> None:
        missing = [name for name in (first, second) if getattr(self, name) is None]
        if len(missing) == 1:
            both = f"{VARIABLES[first]} and {VARIABLES[second]} go together"
            raise InvalidConnection(f"{VARIABLES[missing[0]]} is not set: {both}")

    def _check_ignored(self, *names: str, by: str, use: str) -> None:
        variable, _, value = use.partition("=")
        fix = f"set {VARIABLES[variable]}={value}" if value else f"choose another {VARIABLES[variable]}"
        for name in names:
            if getattr(self, name) is not None:
                raise InvalidConnection(f"{VARIABLES[name]} is set, but {by} ignores it: {fix}, or unset it")


@lru_cache(8)
def _token_provider(kafka: KafkaConnection) -> "sasl.TokenProvider":
    """One for all clients of a connection: they share its tokens."""
    from clipper_topics import sasl  # noqa: PLC0415 (see `aiokafka`)

    pairs = (pair.partition("=") for pair in (kafka.sasl_extensions or "").split(",") if pair)
    try:
        if kafka.token_url is not None:
            name = kafka.token_url
            request = sasl.oidc_tokens(name, kafka.username or "", kafka.password or "", kafka.token_scope)
        else:
            name = kafka.token_provider or ""
            request = sasl.msk_tokens(kafka.bootstrap) if name == sasl.MSK else sasl.own_tokens(name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidConnection(f"{VARIABLES['token_provider']}={kafka.token_provider}: {error}") from error
    return sasl.TokenProvider(name, request, {key.strip(): value.strip() for key, _, value in pairs})


def _no_passphrase() -> str:
    """Raise: OpenSSL would ask the terminal for it, and a process without one would wait for ever."""
    raise InvalidConnection(
        f"{VARIABLES['keyfile']} is encrypted: give a key without a passphrase, readable by this user only"
    )
