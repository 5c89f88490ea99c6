"""Clients that keep connections and ask nothing, take their time, vanish, or take what callers share."""

import asyncio
import re
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import cycle
from urllib.parse import urlsplit

from rig.http_flood import request_bytes

OPENED_AT_ONCE = 16
BYTE_EVERY_S = 1.0
GREEDY_S, GREEDY_PAUSE_S = 20.0, 0.5
"""Longest wait for an answer, and between two requests of one connection."""
ADDRESSES = [f"127.0.1.{number}" for number in range(1, 9)]
"""Of these clients: the gateway bounds what each address has, and the others are of another one."""
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@asynccontextmanager
async def idle_clients(url: str, body: bytes, count: int) -> AsyncIterator[None]:
    """So many connections, each with one request that was answered, which ask nothing any more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    gate, request = asyncio.Semaphore(OPENED_AT_ONCE), request_bytes(url, body)
    async with AsyncExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))

        async def one(number: int) -> None:
            async with gate:
                reader, writer = await _connection(url, ADDRESSES[number % len(ADDRESSES)])
                stack.push_async_callback(_close, writer)
                writer.write(request)
                length = _LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
                assert length is not None
                await reader.readexactly(int(length[1]))

        await asyncio.gather(*map(one, range(count)))
        yield


@dataclass(slots=True)
class SlowClients:
    """Clients that send a byte a second, and begin again when they are cut off.

    Attributes:
        cut_off: Connections that the server ended.
    """

    cut_off: int = 0

    async def send(self, url: str, prompt: bytes, slow: bytes) -> None:
        """Send `prompt` at once, and then `slow` a byte a second."""
        while True:
            _, writer = await _connection(url)
            try:
                writer.write(prompt)
                for byte in slow:
                    writer.write(bytes([byte]))
                    await asyncio.sleep(BYTE_EVERY_S)
                    if writer.is_closing():
                        break
            finally:
                self.cut_off += writer.is_closing()
                writer.close()


@asynccontextmanager
async def slow_clients(url: str, body: bytes, count: int) -> AsyncIterator[SlowClients]:
    """So many: of one half the headers are slow, of the other half the body."""
    clients, request = SlowClients(), request_bytes(url, body)
    headers = len(request) - len(body)
    tasks = [
        asyncio.create_task(clients.send(url, request[: headers * (number % 2)], request[headers * (number % 2) :]))
        for number in range(count)
    ]
    try:
        yield clients
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def vanishing_clients(url: str, body: bytes, count: int, seconds: float) -> None:
    """So many, one by one: half of a body or a whole request is sent, then the connection is closed or reset."""
    request, loop = request_bytes(url, body), asyncio.get_running_loop()
    began_s = loop.time()
    for number in range(count):
        await asyncio.sleep(max(0.0, began_s + number * seconds / count - loop.time()))
        _, writer = await _connection(url)
        writer.write(request if number % 2 else request[: len(request) - len(body) // 2])
        if number % 4 < 2:
            writer.close()
        else:
            writer.transport.abort()


@asynccontextmanager
async def greedy_clients(url: str, application: str, count: int) -> AsyncIterator[None]:
    """So many of one caller, of another address, that take what callers share, again and again."""
    predict = f"/v1/applications/{application}/predict"
    requests = (
        ("GET", f"/v1/queries/unknown?application={application}&wait_s=60", b"", 0),
        ("GET", f"/console/queries?id=unknown&application={application}", b"", 0),
        ("GET", "/console/dead-letters", b"", 0),
        ("GET", "/console/live?page=/console", b"", 0),
        ("POST", "/console/login", b"key=cs_wrong", 12),
        ("POST", predict, b'{"input":[', 1 << 22),
    )

    async def ask(number: int) -> None:
        for method, path, body, length in cycle(requests[number % len(requests) :] + requests):
            head = f"{method} {path} HTTP/1.1\r\nhost: greedy\r\ncontent-length: {length}\r\n\r\n"
            with suppress(OSError, TimeoutError):
                reader, writer = await _connection(url)
                writer.write(head.encode() + body)
                try:
                    async with asyncio.timeout(GREEDY_S):
                        await reader.read(1)
                finally:
                    writer.close()
            await asyncio.sleep(GREEDY_PAUSE_S)

    tasks = [asyncio.create_task(ask(number)) for number in range(count)]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


async def _connection(url: str, address: str = ADDRESSES[0]) -> Streams:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port, local_addr=(address, 0))


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
