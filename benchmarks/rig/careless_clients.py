"""Clients that keep connections and ask nothing, take their time, or vanish."""

import asyncio
import re
import resource
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from rig.http_flood import request_bytes

OPENED_AT_ONCE = 16
BYTE_EVERY_S = 1.0
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

        async def one() -> None:
            async with gate:
                reader, writer = await _connection(url)
                stack.push_async_callback(_close, writer)
                writer.write(request)
                length = _LENGTH.search(await reader.readuntil(b"\r\n\r\n"))
                assert length is not None
                await reader.readexactly(int(length[1]))

        await asyncio.gather(*(one() for _ in range(count)))
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


async def _connection(url: str) -> Streams:
    parts = urlsplit(url)
    return await asyncio.open_connection(parts.hostname, parts.port)


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with suppress(OSError):
        await writer.wait_closed()
