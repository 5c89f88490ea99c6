"""Probes and metrics of one process over HTTP, on a port of its own: `/livez`, `/readyz` and `/metrics`.

    GET /livez    200 {"live": true}                 503 when the process's event loop has not run for `WEDGED_S`
    GET /readyz   200 {"ready": true, "reasons": []} 503 {"ready": false, "reasons": ["no broker answers"]}
    GET /metrics  Prometheus' text format, or OpenMetrics with exemplars for who asks for it by `Accept`

Rules of this file:
- A process opens its port before it serves, and before it waits for anything: for Kafka, for a model to load.
- What a process waits for makes it unready, never dead: a restart brings no broker back.
- One thread serves all connections, a second one makes the text of scrapes, one after the other: a probe waits for
  neither a scrape nor a slow client. A connection has `ANSWER_WITHIN_S` and one request, and where there are more than
  `MOST_CONNECTIONS` the oldest is closed.
"""

import asyncio
import gzip
import json
import socket
import threading
import time
from asyncio.streams import StreamReader, StreamWriter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.message import Message
from email.parser import BytesParser
from http import HTTPStatus

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from clipper_stream.errors import InvalidSetting

WEDGED_S = 30.0
"""Three times the session of a Kafka consumer: the group has long given the partitions of such a process away, and its
queries are answered elsewhere, so that its end costs nothing. A collection of garbage, a slow disk or a stopped virtual
machine of some seconds ends nothing."""
BEAT_S = 1.0
ANSWER_WITHIN_S = 5.0
"""For a request and its answer: a probe gives up after one or two seconds, a scrape after ten at most."""
MOST_CONNECTIONS = 64
HEAD_BYTES = 8192
"""Of a request with its headers."""


class ProcessHealth:
    """Why a process does not serve, and whether its event loop still runs: told by the process, asked by probes.

    >>> health = ProcessHealth("model svm:1 is loading")
    >>> health.reasons()
    ['model svm:1 is loading']
    >>> health.serves(lambda: [])
    >>> health.reasons()
    []

    Args:
        waits_for: Why the process does not serve yet.
        clock: Seconds that never go back; given by tests.

    Attributes:
        waits_for: The reason until `serves` is called.
        is_draining: Whether the process was told to end, so that nobody should send it anything any more.
        is_broker_reachable: False while no broker answers.
    """

    def __init__(self, waits_for: str = "the process starts", clock: Callable[[], float] = time.monotonic) -> None:
        self.waits_for = waits_for
        self.is_draining = False
        self.is_broker_reachable = True
        self._serving: Callable[[], Iterable[str]] | None = None
        self._clock = clock
        self._beat_s: float | None = None

    def serves(self, reasons: Callable[[], Iterable[str]]) -> None:
        """From now on `reasons` says why the process does not serve; it is called by the thread of the probes."""
        self._serving = reasons

    def reasons(self) -> list[str]:
        """Return why the process does not serve now, in plain sentences; empty when it does."""
        if self.is_draining:
            return ["the process ends"]
        found = [] if self.is_broker_reachable else ["no broker answers"]
        if self._serving is None:
            return [*found, self.waits_for]
        return found or list(dict.fromkeys(self._serving()))

    def watch_loop(self) -> None:
        """Have the running event loop show from now on that it runs."""
        self._beat_s = self._clock()
        asyncio.get_running_loop().call_later(BEAT_S, self.watch_loop)

    @property
    def is_live(self) -> bool:
        """Whether the event loop has run within `WEDGED_S`; a process without one, which loads a model, lives."""
        return self._beat_s is None or self._clock() - self._beat_s < WEDGED_S


class ProbeServer:
    """Answers probes and scrapes of a process, from daemon threads.

    Args:
        registry: What is scraped.
        health: What probes are told.
        answer_within_s: Longest life of a connection, in seconds.
    """

    def __init__(
        self, registry: CollectorRegistry, health: ProcessHealth, answer_within_s: float = ANSWER_WITHIN_S
    ) -> None:
        self._registry, self._health, self._answer_within_s = registry, health, answer_within_s
        self._connections: dict[asyncio.Task[None], StreamWriter] = {}

    def start(self, port: int = 0, address: str = "127.0.0.1") -> int:
        """Serve until `stop` or the end of the process, and return the port; 0 asks for a free one.

        The address is the loopback by default: metrics name applications and models.

        Raises:
            InvalidSetting: the port is taken, or the address is not of this machine.
        """
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        try:
            listener = socket.create_server((address, port), family=family, backlog=MOST_CONNECTIONS)
        except OSError as error:
            raise InvalidSetting(f"metrics_port {address}:{port}: {error.strerror}; choose another, or 0") from error
        self._loop, self._scraping = asyncio.new_event_loop(), ThreadPoolExecutor(1, "scrape")
        self._thread = threading.Thread(target=self._loop.run_forever, name="probes", daemon=True)
        self._thread.start()
        serving = asyncio.start_server(self._accept, sock=listener, limit=HEAD_BYTES)
        self._server = asyncio.run_coroutine_threadsafe(serving, self._loop).result()
        return int(listener.getsockname()[1])

    def stop(self) -> None:
        """Close the port and all connections."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._scraping.shutdown()

    async def _close(self) -> None:
        self._server.close()
        open_tasks = list(self._connections)
        for task in open_tasks:
            self._drop(task)
        await asyncio.gather(*open_tasks, return_exceptions=True)

    def _accept(self, reader: StreamReader, writer: StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._connections[task] = writer
        task.add_done_callback(lambda done: self._connections.pop(done, None))
        if len(self._connections) > MOST_CONNECTIONS:
            self._drop(next(iter(self._connections)))

    def _drop(self, task: "asyncio.Task[None]") -> None:
        """Close a connection, also one whose task has not begun."""
        task.cancel()
        self._connections.pop(task).transport.abort()

    async def _serve(self, reader: StreamReader, writer: StreamWriter) -> None:
        """Answer one request; who is too slow, or sends none, gets no answer."""
        writer.transport.set_write_buffer_limits(0)  # so that `drain` waits until all is with the system
        try:
            async with asyncio.timeout(self._answer_within_s):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(await self._response(head))
                await writer.drain()
                writer.write_eof()
                while await reader.read(HEAD_BYTES):  # a body that is left unread would reset the connection
                    pass
        except (TimeoutError, EOFError, asyncio.LimitOverrunError, OSError):
            pass
        finally:
            writer.transport.abort()

    async def _response(self, head: bytes) -> bytes:
        line, _, rest = head.partition(b"\r\n")
        method, _, target = line.decode("latin-1").partition(" ")
        path = target.partition(" ")[0].partition("?")[0]
        if path not in ("/livez", "/readyz", "/metrics"):
            return _response(HTTPStatus.NOT_FOUND, {"error": "there are /livez, /readyz and /metrics"})
        if method not in ("GET", "HEAD"):
            return _response(HTTPStatus.METHOD_NOT_ALLOWED, {"error": "use GET or HEAD"}, {"Allow": "GET, HEAD"})
        answer = await self._scraped(rest) if path == "/metrics" else self._probed(path)
        return answer if method == "GET" else answer.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"

    def _probed(self, path: str) -> bytes:
        said: dict[str, object]
        if path == "/livez":
            said = {"live": (holds := self._health.is_live)}
        else:
            reasons = self._health.reasons()
            said = {"ready": (holds := not reasons), "reasons": reasons}
        return _response(HTTPStatus.OK if holds else HTTPStatus.SERVICE_UNAVAILABLE, said)

    async def _scraped(self, headers: bytes) -> bytes:
        asked = BytesParser().parsebytes(headers, headersonly=True)
        return await self._loop.run_in_executor(self._scraping, self._exposition, asked)

    def _exposition(self, asked: Message) -> bytes:
        encode, kind = choose_encoder(asked.get("Accept", ""))
        text, about = encode(self._registry), {"Content-Type": kind}
        if "gzip" in asked.get("Accept-Encoding", ""):
            text, about["Content-Encoding"] = gzip.compress(text, 1), "gzip"
        return _encoded(HTTPStatus.OK, text, about)


def _response(status: HTTPStatus, said: object, headers: Mapping[str, str] | None = None) -> bytes:
    return _encoded(status, json.dumps(said).encode(), {"Content-Type": "application/json", **(headers or {})})


def _encoded(status: HTTPStatus, body: bytes, headers: Mapping[str, str]) -> bytes:
    lines = {**headers, "Content-Length": str(len(body)), "Connection": "close"}
    head = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {text}" for name, text in lines.items())]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + body
