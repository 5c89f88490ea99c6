"""A broker that does not complete a connection soon is given up, long before a request would be.

A frozen broker's machine still accepts connections, and nobody speaks on them. aiokafka waits its request timeout for
the first word, and tries the members of a cluster one after another: four such attempts kept a pipeline of three
brokers from its group for most of a minute, while the other two were there.
"""

from collections.abc import Awaitable, Callable
from typing import Any

from aiokafka import client

ATTEMPT_MS = 3_000
"""For a connection, TLS, log-in and the broker's first words together; on one machine they take milliseconds."""

Connect = Callable[..., Awaitable[Any]]


def soon(connect: Connect, attempt_ms: int = ATTEMPT_MS) -> Connect:
    """`create_conn` of aiokafka with a bound of its own; requests on the connection keep theirs.

    Args:
        connect: aiokafka's.
        attempt_ms: Longest attempt, in milliseconds.
    """

    async def connect_soon(*args: Any, request_timeout_ms: int, **kwargs: Any) -> Any:
        connection = await connect(*args, request_timeout_ms=min(request_timeout_ms, attempt_ms), **kwargs)
        connection._request_timeout = request_timeout_ms / 1000
        return connection

    return connect_soon


def install() -> None:
    """Have every client of this process connect like this; a second time does nothing."""
    if getattr(client.create_conn, "__name__", "") != "connect_soon":
        client.create_conn = soon(client.create_conn)
