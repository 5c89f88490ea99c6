"""An open loop over HTTP that costs little: prepared bytes on kept connections, in a process of its own.

Of an answer it reads the status, the length, and whether the body says that it is a default.
"""

import asyncio
import re
import resource
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import get_context
from typing import NamedTuple
from urllib.parse import urlsplit

import numpy as np
import uvloop
from numpy.typing import NDArray

DRAIN_S = 10.0
"""Wait so long for the last answers."""
TICK_S = 0.001
"""Timers of uvloop count milliseconds: a shorter sleep would be none."""
OK, TOO_MANY = 200, 429
_LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)


class Phase(NamedTuple):
    """So many requests a second, evenly, for so long."""

    rate_per_s: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Answers:
    """What became of the requests of a phase, in the order in which they were due; each array is of shape (requests,).

    Attributes:
        due_s: From the beginning of the phase.
        took_s: From then until the answer was whole; inf: there was none.
        sent_late_s: From then until it was sent, or waited for a connection.
        status: Of HTTP; 0: no answer.
        default: Whether the answer is a default.
    """

    due_s: NDArray[np.float64]
    took_s: NDArray[np.float64]
    sent_late_s: NDArray[np.float64]
    status: NDArray[np.int64]
    default: NDArray[np.bool_]

    def part(self, rows: slice, since_s: float) -> "Answers":
        """Some of them, due that much earlier."""
        return Answers(
            self.due_s[rows] - since_s, self.took_s[rows], self.sent_late_s[rows], self.status[rows], self.default[rows]
        )


def request_bytes(url: str, body: bytes) -> bytes:
    """A POST of JSON, as it goes over the wire."""
    parts = urlsplit(url)
    head = f"POST {parts.path} HTTP/1.1\r\nhost: {parts.netloc}\r\ncontent-type: application/json\r\n"
    return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


@contextmanager
def flood_process() -> Iterator[ProcessPoolExecutor]:
    """A process for `flood`, on the CPUs of the calling thread."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        pool.submit(int).result()  # it is there, and has imported what it needs
        yield pool


def flood(url: str, bodies: Sequence[bytes], phases: Sequence[Phase]) -> list[Answers]:
    """Send requests, the bodies in turn, whatever is answered; answers of each phase."""
    starts_s = np.cumsum([0.0, *(phase.seconds for phase in phases)])
    counts = [round(phase.rate_per_s * phase.seconds) for phase in phases]
    due_s = np.concatenate(
        [start_s + np.arange(count) / rate for start_s, count, (rate, _) in zip(starts_s, counts, phases, strict=False)]
    )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        loop = _OpenLoop(url, [request_bytes(url, body) for body in bodies], due_s)
        uvloop.run(loop.run())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    firsts = [0, *np.cumsum(counts).tolist()]
    return [
        loop.answers.part(slice(first, first + count), start_s)
        for first, count, start_s in zip(firsts, counts, starts_s, strict=False)
    ]


class _OpenLoop:
    """All requests, and connections that wait for one; the last one that was used is used again."""

    def __init__(self, url: str, requests: Sequence[bytes], due_s: NDArray[np.float64]) -> None:
        count, parts = len(due_s), urlsplit(url)
        self._host, self._port, self._requests = parts.hostname or "", parts.port, requests
        self._open = count
        self._all_answered = asyncio.Event()
        self._opening: set[asyncio.Task[None]] = set()
        self.idle: list[_Connection] = []
        self.answers = Answers(
            due_s, np.full(count, np.inf), np.zeros(count), np.zeros(count, np.int64), np.zeros(count, np.bool_)
        )

    async def run(self) -> None:
        self._began_s = time.monotonic()
        for number, due_s in enumerate(self.answers.due_s.tolist()):
            while (wait_s := self._began_s + due_s - time.monotonic()) > 0:  # noqa: ASYNC110 (it waits for a time)
                await asyncio.sleep(max(wait_s, TICK_S))
            self.answers.sent_late_s[number] = time.monotonic() - self._began_s - due_s
            if self.idle:
                self._ask(self.idle.pop(), number)
            else:
                task = asyncio.create_task(self._ask_anew(number))
                self._opening.add(task)
                task.add_done_callback(self._opening.discard)
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self._all_answered.wait()
        for connection in self.idle:
            connection.transport.close()

    def _ask(self, connection: "_Connection", number: int) -> None:
        connection.number = number
        connection.transport.write(self._requests[number % len(self._requests)])

    async def _ask_anew(self, number: int) -> None:
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(self), self._host, self._port)
        except OSError:
            self.end(number)
        else:
            self._ask(connection, number)

    def end(self, number: int, status: int = 0, *, is_default: bool = False) -> None:
        """Note the answer to a request, or that there will be none."""
        if status:
            self.answers.took_s[number] = time.monotonic() - self._began_s - self.answers.due_s[number]
            self.answers.status[number], self.answers.default[number] = status, is_default
        self._open -= 1
        if not self._open:
            self._all_answered.set()


class _Connection(asyncio.Protocol):
    """One connection, with at most one request at a time."""

    transport: asyncio.WriteTransport

    def __init__(self, loop: _OpenLoop) -> None:
        self._open_loop, self._received = loop, b""
        self.number: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, body = self._received.partition(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if not end or length is None or len(body) < int(length[1]) or self.number is None:
            return
        number, self.number, self._received = self.number, None, b""
        if b"connection: close" in head.lower():
            self.transport.close()
        else:
            self._open_loop.idle.append(self)
        self._open_loop.end(number, int(head[9:12]), is_default=b'"default":true' in body)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if self in self._open_loop.idle:
            self._open_loop.idle.remove(self)
        if self.number is not None:
            self._open_loop.end(self.number)
            self.number = None
