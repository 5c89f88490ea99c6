"""Connections to brokers: no task and no timer for each answer, and an attempt to connect that ends in time.

aiokafka wakes a task twice for each answer that it reads, and arms a timer for each request that it sends. Here the
protocol cuts what it receives into answers, and one timer looks after the oldest request of a connection.
"""

import asyncio
import struct
import weakref
from collections import deque
from collections.abc import Callable
from typing import Any

from aiokafka import conn
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

CONNECT_TIMEOUT_MS = 3_000
"""For a connection, TLS, log-in and the broker's first words together; on one machine they take milliseconds. aiokafka
waits its request timeout for each member of a cluster in turn: four attempts at a frozen broker kept a pipeline of
three brokers from its group for most of a minute."""
CLOSE_WITHIN_S = 0.2
"""For what is not sent yet, and the broker's end of TLS: one that was asked twice before has not sent that for 30 s,
and a frozen one takes nothing."""
_SIZE = struct.Struct(">i")


class Frames:
    """Cuts bytes into frames, each behind its size.

    Args:
        handle: Takes a frame.
        failed: Takes an error that `handle` raised; nothing is handled after it.

    >>> found = []
    >>> frames = Frames(found.append, found.append)
    >>> frames.feed(bytes((0, 0, 0, 2)) + b"ab" + bytes((0, 0))); frames.feed(bytes((0, 1)) + b"c"); found
    [b'ab', b'c']
    """

    def __init__(self, handle: Callable[[bytes], None], failed: Callable[[Exception], None]) -> None:
        self._handle, self._failed = handle, failed
        self._rest, self._wanted = bytearray(), _SIZE.size
        self._is_broken = False

    def feed(self, data: bytes) -> None:
        """Take bytes that were received."""
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted or self._is_broken:
                return
            data = bytes(self._rest)
        at, end = 0, len(data)
        try:
            while end - at >= _SIZE.size:
                stop = at + _SIZE.size + max(0, *_SIZE.unpack_from(data, at))
                if stop > end:
                    self._wanted = stop - at
                    break
                self._handle(data[at + _SIZE.size : stop])
                at = stop
            else:
                self._wanted = _SIZE.size
        except Exception as error:  # noqa: BLE001 (whatever it is, the connection ends by it)
            self._is_broken = True
            self._failed(error)
        self._rest = bytearray(data[at:])


class FramedConnection(conn.AIOKafkaConnection):  # type: ignore[misc]  # aiokafka is untyped
    """aiokafka's connection, reading by frames; its reading task only waits for the end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        """Answers that are waited for, each with the time at which that ends, in the order of their requests."""
        self._timer: asyncio.TimerHandle | None = None

    def _create_reader_task(self) -> Any:
        this, reader = weakref.ref(self), self._reader

        def handle(frame: bytes) -> None:
            connection = this()
            if connection is not None and connection._reader is not None:
                connection._handle_frame(frame)

        protocol: Any = self._protocol
        protocol.data_received = Frames(handle, reader.set_exception).feed
        self._writer.transport.set_protocol(protocol)  # a transport keeps the method that it found
        return super()._create_reader_task()

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Send a request, and return what waits for its answer, at most as long as a request may take."""
        if self._writer is None:
            raise KafkaConnectionError(f"No connection to broker at {self._host}:{self._port}")
        built, number = request.prepare(self._versions), self._next_correlation_id()
        message = built.build_request_header(correlation_id=number, client_id=self._client_id).encode() + built.encode()
        try:
            self._writer.write(_SIZE.pack(len(message)) + message)
        except (OSError, RuntimeError) as error:  # the latter from uvloop, where the transport has ended
            self.close(reason=conn.CloseReason.CONNECTION_BROKEN, exc=error)
            raise KafkaConnectionError(f"Connection to broker at {self._host}:{self._port} has ended") from error
        if not expect_response:
            return self._writer.drain()
        answer = self._loop.create_future()
        self._requests.append((number, built, answer))
        self._wait_for(answer)
        return answer

    def _wait_for(self, answer: asyncio.Future[Any]) -> None:
        """End the wait for an answer when its time is up."""
        waiting, due_s = self._waiting, self._loop.time() + self._request_timeout
        while waiting and waiting[0][1].done():
            waiting.popleft()
        waiting.append((due_s, answer))
        if self._timer is None:
            self._timer = self._loop.call_at(due_s, _end_late, weakref.ref(self))

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close, and wait for nothing any more, nor long for the broker."""
        if self._timer is not None:
            self._timer.cancel()
        if self._writer is not None:
            self._loop.call_later(CLOSE_WITHIN_S, self._writer.transport.abort)
        return super().close(*args, **kwargs)


def _end_late(this: Callable[[], FramedConnection | None]) -> None:
    """Close a connection on which a request took too long, or look again when the next one would.

    aiokafka closes it once for each late answer, and the second time it knows none: that error ended a worker.
    """
    connection = this()
    if connection is None:
        return
    waiting, now_s = connection._waiting, connection._loop.time()
    while waiting and waiting[0][1].done():
        waiting.popleft()
    if waiting and waiting[0][0] <= now_s:
        waiting.popleft()[1].set_exception(RequestTimedOutError())
        connection.close(reason=conn.CloseReason.CONNECTION_TIMEOUT)
    else:
        connection._timer = connection._loop.call_at(waiting[0][0], _end_late, this) if waiting else None


async def connect_in_time(
    host: str, port: int, *, request_timeout_ms: int, attempt_ms: int = CONNECT_TIMEOUT_MS, **options: Any
) -> FramedConnection:
    """Connect to a broker: aiokafka's `create_conn` with a bound of its own; requests on the connection keep theirs.

    Args:
        host: Of the broker.
        port: Of the broker.
        request_timeout_ms: Longest request, in milliseconds.
        attempt_ms: Longest attempt to connect, in milliseconds.
        options: Of aiokafka's connection.
    """
    connection = FramedConnection(host, port, request_timeout_ms=min(request_timeout_ms, attempt_ms), **options)
    await connection.connect()
    connection._request_timeout = request_timeout_ms / 1000
    return connection
