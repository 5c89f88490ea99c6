"""Why Kafka does not let us in, in one line: aiokafka says only that it could not bootstrap, and logs the rest.

Rules of this file:
- Nobody is asked while all is well: a client that failed to start asks afterwards, a worker once before it starts.
- `AccessRefused` is for what stays as it is until somebody changes a setting; `BrokerUnavailable` may pass by itself.
- No message contains a credential, and none is passed on with one: the broker's own words do not repeat it.
"""

import ssl

from aiokafka.conn import collect_hosts, create_conn
from aiokafka.errors import (
    AuthenticationFailedError,
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    IllegalSaslStateError,
    KafkaError,
    SaslAuthenticationFailed,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
    UnsupportedSaslMechanismError,
)
from aiokafka.protocol.metadata import MetadataRequest

from clipper_stream.client.errors import AccessRefused, BrokerUnavailable
from clipper_stream.errors import SetupError
from clipper_topics.connection import VARIABLES, KafkaConnection
from clipper_topics.sasl import TokenUnavailable

ANSWER_S = 10.0
"""A broker answers in milliseconds, and a refused password after a tenth of a second (KIP-306)."""
CREDENTIALS = (AuthenticationFailedError, SaslAuthenticationFailed)
PROTOCOL = (IllegalSaslStateError, UnsupportedSaslMechanismError)
RIGHTS = (
    ClusterAuthorizationFailedError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
    TransactionalIdAuthorizationFailed,
)
"""Errors about a right that is missing; all name the resource, where the broker did."""


async def check_access(kafka: KafkaConnection, answer_s: float = ANSWER_S) -> None:
    """Connect to one of the brokers, and ask it who the brokers are.

    Raises:
        AccessRefused: a broker refuses the credentials, or its certificate is not trusted.
        BrokerUnavailable: no broker answers.
        InvalidConnection: a certificate file cannot be read.
    """
    arguments = kafka.aiokafka()
    failed: list[SetupError] = []
    for host, port, _ in collect_hosts(arguments.pop("bootstrap_servers")):
        try:
            connection = await create_conn(host, port, request_timeout_ms=int(answer_s * 1000), **arguments)
            try:
                await connection.send(MetadataRequest([]))
            finally:
                connection.close()
            return
        except (KafkaError, OSError, TimeoutError) as error:
            failed.append(_reason(kafka, f"{host}:{port}", error))
    raise next((reason for reason in failed if isinstance(reason, AccessRefused)), failed[-1])


async def explained(kafka: KafkaConnection, what: str, error: BaseException) -> SetupError:
    """The error to raise instead of one of aiokafka's, with the reason that Kafka gives now; `what` failed."""
    if not isinstance(error, RIGHTS):
        try:
            await check_access(kafka)
        except (AccessRefused, BrokerUnavailable) as reason:
            return reason
    return failure(kafka, what, error)


def failure(kafka: KafkaConnection, what: str, error: BaseException | None) -> SetupError:
    """The error to raise instead of one of aiokafka's, as it is: a right is missing, or Kafka is not there."""
    if isinstance(error, RIGHTS):
        return refused_right(kafka, error)
    return BrokerUnavailable(f"{what} at {kafka.bootstrap} ({kafka.security_protocol}): {error!r}; is it running?")


def refused_right(kafka: KafkaConnection, error: KafkaError) -> AccessRefused:
    """A right is missing: which, whose, and where to read on."""
    kind = type(error).__name__.partition("Authorization")[0].lower().replace("transactionalid", "transactional id")
    said = " ".join(part if isinstance(part, str) else ", ".join(map(str, part)) for part in error.args)
    name = said or (
        "(no topic to write to, nor IdempotentWrite)" if kind == "cluster" else "(Kafka does not say which)"
    )
    return AccessRefused(
        f"{_who(kafka)} may not use {kind} {name} at {kafka.bootstrap}: give it the rights of its role "
        "(docs/how-to/secure-kafka.md)"
    )


def _reason(kafka: KafkaConnection, address: str, error: BaseException) -> SetupError:
    cause = error.__cause__ if isinstance(error.__cause__, ssl.SSLError) else error
    if isinstance(cause, TokenUnavailable):
        return BrokerUnavailable(f"cannot log in to Kafka at {address}: {_words(cause)}")
    if isinstance(cause, CREDENTIALS):
        return AccessRefused(
            f"Kafka at {address} refuses {_who(kafka)}: {_words(cause)}; check {VARIABLES['username']}, "
            f"{VARIABLES['password']} and {VARIABLES['sasl_mechanism']}"
        )
    if isinstance(cause, ssl.SSLCertVerificationError):
        return AccessRefused(
            f"the certificate of Kafka at {address} is not trusted: {cause.verify_message}; "
            f"set {VARIABLES['cafile']} to the authority that signed it, and use the host name that it is for"
        )
    if isinstance(cause, ssl.SSLError):
        return AccessRefused(
            f"Kafka at {address} refuses the TLS connection: {(cause.reason or str(cause)).lower().replace('_', ' ')}; "
            f"check {VARIABLES['certfile']}, {VARIABLES['keyfile']} and {VARIABLES['security_protocol']}"
        )
    if isinstance(cause, PROTOCOL):
        return AccessRefused(
            f"Kafka at {address} does not take {kafka.security_protocol} with this mechanism ({_words(cause)}); "
            f"check {VARIABLES['security_protocol']} and {VARIABLES['sasl_mechanism']}"
        )
    return BrokerUnavailable(
        f"no Kafka answers at {address} ({kafka.security_protocol}): {_words(cause)}; "
        "is it running, and is this the protocol of that port?"
    )


def _who(kafka: KafkaConnection) -> str:
    if kafka.username is not None:
        return f"user {kafka.username!r}"
    if kafka.token_provider is not None:
        return f"the token of {kafka.token_provider}"
    return f"the certificate {kafka.certfile}" if kafka.certfile else "a client without credentials"


def _words(error: BaseException) -> str:
    said = str(error.args[-1]) if error.args and isinstance(error.args[-1], str) else ""
    return " ".join(said.split()) or type(error).__name__
