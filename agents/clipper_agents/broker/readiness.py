"""Is it our broker that answers? A listening port says too little: it can be somebody else's, or too early."""

import asyncio
import logging
import socket
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from clipper_agents.kafka.clients import make_admin
from clipper_topics.connection import KafkaConnection

REQUEST_S = 5.0
"""A broker on this machine answers in milliseconds; a stranger on the port may never answer."""
PROBE_EVERY_S = 0.05

log = logging.getLogger(__name__)

Question = Callable[[AIOKafkaAdminClient], Awaitable[bool]]


def wait_until(
    holds: Question, connection: KafkaConnection, timeout_s: float, alive: Callable[[], bool] = lambda: True
) -> bool:
    """Ask Kafka again and again until something holds; False when it is not alive any more or the time is over.

    A question that is not answered does not hold.
    """
    end_s = time.monotonic() + timeout_s
    while alive() and time.monotonic() < end_s:
        if any(map(_listens, connection.bootstrap.split(","))):
            with ThreadPoolExecutor(1, "broker-readiness") as thread:  # the caller may be inside an event loop
                if thread.submit(asyncio.run, _answered(holds, connection)).result():
                    return True
        time.sleep(PROBE_EVERY_S)
    return False


def knows(cluster_id: str, brokers: int) -> Question:
    """Whether a controller, the expected cluster id and so many brokers are known to the broker that answers."""

    async def holds(admin: AIOKafkaAdminClient) -> bool:
        cluster = await admin.describe_cluster()
        complete = len(cluster["brokers"]) >= brokers and cluster["controller_id"] >= 0
        return complete and cluster["cluster_id"] == cluster_id

    return holds


async def all_in_sync(admin: AIOKafkaAdminClient) -> bool:
    """Whether every partition has all its replicas in sync."""
    partitions = [partition for topic in await admin.describe_topics() for partition in topic["partitions"]]
    return all(set(each["isr"]) == set(each["replicas"]) for each in partitions)


def _listens(address: str) -> bool:
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=REQUEST_S).close()
    except OSError:
        return False
    return True


async def _answered(holds: Question, connection: KafkaConnection) -> bool:
    admin = make_admin(connection, REQUEST_S)
    try:
        await asyncio.wait_for(admin.start(), REQUEST_S)
        return await asyncio.wait_for(holds(admin), REQUEST_S)
    except (KafkaError, OSError, TimeoutError) as error:
        log.debug("not ready yet: %r", error)
        return False
    finally:
        await admin.close()
