"""A connected admin client, and errors in words of this project."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from clipper_agents.admin.errors import KafkaUnreachable
from clipper_topics.connection import KafkaConnection

TIMEOUT_S = 30.0
"""For everything that an operator waits for: a broker that is starting has the time to come up."""


@asynccontextmanager
async def administration(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client for the time of the block.

    Raises:
        KafkaUnreachable: no broker answers, or it went away during the block.
    """
    admin = AIOKafkaAdminClient(**connection.aiokafka(), request_timeout_ms=int(TIMEOUT_S * 1000))
    try:
        await admin.start()
        yield admin
    except (KafkaError, TimeoutError) as error:
        raise unreachable(connection, error) from error
    finally:
        await admin.close()


def unreachable(connection: KafkaConnection, error: BaseException) -> KafkaUnreachable:
    """The error with the address in it."""
    return KafkaUnreachable(
        f"no Kafka answers at {connection.bootstrap} ({connection.security_protocol}): {error!r}; "
        "check the address, the protocol and the credentials"
    )
