"""Is it our broker that answers? A listening port says too little: it can be somebody else's, or too early."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiokafka.errors import KafkaError

from clipper_agents.kafka.clients import make_admin
from clipper_topics.connection import KafkaConnection

REQUEST_S = 5.0
"""A broker on this machine answers in milliseconds; a stranger on the port may never answer."""
PROBE_EVERY_S = 0.05

log = logging.getLogger(__name__)


def wait_until_ready(
    connection: KafkaConnection, cluster_id: str, alive: Callable[[], bool], timeout_s: float, brokers: int = 1
) -> bool:
    """Wait until the broker answers a metadata request, with a controller and the expected cluster id.

    Args:
        connection: One broker on this machine.
        cluster_id: Of the cluster that is expected to answer.
        alive: False ends the wait at once.
        timeout_s: How long to wait at most, in seconds.
        brokers: How many brokers it has to know, itself included.

    Returns:
        True when it is ready, False when it is not alive or the time is over.
    """
    end_s = time.monotonic() + timeout_s
    host, port = connection.bootstrap.rsplit(":", 1)
    while alive() and time.monotonic() < end_s:
        if _listens(host, int(port)) and _answering_cluster(connection, brokers) == cluster_id:
            return True
        time.sleep(PROBE_EVERY_S)
    return False


def wait_until_in_sync(connection: KafkaConnection, timeout_s: float) -> bool:
    """Wait until every partition has all its replicas in sync.

    Args:
        connection: The cluster.
        timeout_s: How long to wait at most, in seconds.

    Returns:
        False when the time is over.
    """
    end_s = time.monotonic() + timeout_s
    while time.monotonic() < end_s:
        with ThreadPoolExecutor(1, "broker-readiness") as thread:
            if thread.submit(asyncio.run, _in_sync(connection)).result():
                return True
        time.sleep(PROBE_EVERY_S)
    return False


async def _in_sync(connection: KafkaConnection) -> bool:
    admin = make_admin(connection, REQUEST_S)
    try:
        await asyncio.wait_for(admin.start(), REQUEST_S)
        topics = await asyncio.wait_for(admin.describe_topics(), REQUEST_S)
    except (KafkaError, OSError, TimeoutError) as error:
        log.debug("not ready yet: %r", error)
        return False
    finally:
        await admin.close()
    partitions = [partition for topic in topics for partition in topic["partitions"]]
    return all(set(each["isr"]) == set(each["replicas"]) for each in partitions)


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=REQUEST_S).close()
    except OSError:
        return False
    return True


def _answering_cluster(connection: KafkaConnection, brokers: int) -> str | None:
    """The cluster id from one round trip, in a thread of its own: the caller may be inside an event loop."""
    with ThreadPoolExecutor(1, "broker-readiness") as thread:
        return thread.submit(asyncio.run, _described_cluster(connection, brokers)).result()


async def _described_cluster(connection: KafkaConnection, brokers: int) -> str | None:
    admin = make_admin(connection, REQUEST_S)
    try:
        await asyncio.wait_for(admin.start(), REQUEST_S)
        cluster = await asyncio.wait_for(admin.describe_cluster(), REQUEST_S)
    except (KafkaError, OSError, TimeoutError) as error:
        log.debug("not ready yet: %r", error)
        return None
    finally:
        await admin.close()
    complete = len(cluster["brokers"]) >= brokers and cluster["controller_id"] >= 0
    return str(cluster["cluster_id"]) if complete else None
