"""A connected admin client, and errors in words of this project."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from clipper_agents.kafka.errors import KafkaUnreachable
from clipper_stream.client.access import explained
from clipper_stream.client.errors import BrokerUnavailable
from clipper_stream.errors import SetupError
from clipper_topics.connection import KafkaConnection

TIMEOUT_S = 30.0
"""For everything that an operator waits for: a broker that is starting has the time to come up."""


@asynccontextmanager
async def administration(connection: KafkaConnection) -> AsyncIterator[AIOKafkaAdminClient]:
    """An admin client for the time of the block.

    Raises:
        KafkaUnreachable: no broker answers, or it went away during the block.
        AccessRefused: Kafka does not let us in.
    """
    admin = AIOKafkaAdminClient(**connection.aiokafka(), request_timeout_ms=int(TIMEOUT_S * 1000))
    try:
        await admin.start()
        yield admin
    except (KafkaError, TimeoutError) as error:
        raise await unreachable(connection, error) from error
    finally:
        await admin.close()


async def unreachable(connection: KafkaConnection, error: BaseException) -> SetupError:
    """The error with the address and the reason in it: `KafkaUnreachable` or `AccessRefused`."""
    reason = await explained(connection, "no Kafka answers", error)
    return KafkaUnreachable(str(reason)) if isinstance(reason, BrokerUnavailable) else reason
