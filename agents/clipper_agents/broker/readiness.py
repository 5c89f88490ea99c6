"""Is it our broker that answers? A listening port says too little: it can be somebody else's, or too early."""

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from clipper_topics.connection import KafkaConnection

REQUEST_S = 5.0
"""A broker on this machine answers in milliseconds; a stranger on the port may never answer."""
PROBE_EVERY_S = 0.05

log = logging.getLogger(__name__)


def wait_until_ready(connection: KafkaConnection, cluster_id: str, alive: Callable[[], bool], timeout_s: float) -> bool:
    """Wait until the broker answers a metadata request, with a controller and the expected cluster id.

    Args:
        connection: One broker on this machine.
        cluster_id: Of the cluster that is expected to answer.
        alive: False ends the wait at once.
        timeout_s: How long to wait at most, in seconds.

    Returns:
        True when it is ready, False when it is not alive or the time is over.
    """
    end_s = time.monotonic() + timeout_s
    host, port = connection.bootstrap.rsplit(":", 1)
    while alive() and time.monotonic() < end_s:
        if _listens(host, int(port)) and _answering_cluster(connection) == cluster_id:
            return True
        time.sleep(PROBE_EVERY_S)
    return False


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=REQUEST_S).close()
    except OSError:
        return False
    return True


def _answering_cluster(connection: KafkaConnection) -> str | None:
    """The cluster id from one round trip, in a thread of its own: the caller may be inside an event loop."""
    with ThreadPoolExecutor(1, "broker-readiness") as thread:
        return thread.submit(asyncio.run, _described_cluster(connection)).result()


async def _described_cluster(connection: KafkaConnection) -> str | None:
    admin = AIOKafkaAdminClient(**connection.aiokafka(), request_timeout_ms=int(REQUEST_S * 1000))
    try:
        await asyncio.wait_for(admin.start(), REQUEST_S)
        cluster = await asyncio.wait_for(admin.describe_cluster(), REQUEST_S)
    except (KafkaError, OSError, TimeoutError) as error:
        log.debug("not ready yet: %r", error)
        return None
    finally:
        await admin.close()
    return str(cluster["cluster_id"]) if cluster["brokers"] and cluster["controller_id"] >= 0 else None
