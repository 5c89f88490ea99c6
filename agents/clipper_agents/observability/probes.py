"""Probes and metrics of one process over HTTP, on a port of its own: `/livez`, `/readyz` and `/metrics`.

    GET /livez    200 {"live": true}                 503 when the process's event loop has not run for `WEDGED_S`
    GET /readyz   200 {"ready": true, "reasons": []} 503 {"ready": false, "reasons": ["no broker answers"]}
    GET /metrics  Prometheus' text format, or OpenMetrics with exemplars for who asks for it by `Accept`

Rules of this file:
- A process opens its port before it serves, and before it waits for anything: for Kafka, for a model to load.
- What a process waits for makes it unready, never dead: a restart brings no broker back.
- A connection is a daemon thread of the standard library's server; a client that is slow has `ANSWER_WITHIN_S` for each
  read and write, and holds up no other.
"""

import asyncio
import json
import socket
import time
from collections.abc import Callable, Iterable
from http import HTTPStatus
from socketserver import TCPServer
from threading import Thread
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from prometheus_client.exposition import ThreadingWSGIServer

from clipper_stream.errors import InvalidSetting

WEDGED_S = 30.0
"""Three times the session of a Kafka consumer: the group has long given the partitions of such a process away, and its
queries are answered elsewhere, so that its end costs nothing. A collection of garbage, a slow disk or a stopped virtual
machine of some seconds ends nothing."""
BEAT_S = 1.0
ANSWER_WITHIN_S = 5.0
"""A probe gives up after one or two seconds, a scrape after ten at most."""


class ProcessHealth:
    """Why a process does not serve, and whether its event loop still runs: told by the process, asked by probes.

    >>> health = ProcessHealth("model svm:1 is loading")
    >>> health.reasons()
    ['model svm:1 is loading']
    >>> health.serves(lambda: [])
    >>> health.reasons()
    []

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


class _Handler(WSGIRequestHandler):
    timeout = ANSWER_WITHIN_S

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 (of the class it overrides)
        pass


class _Server(ThreadingWSGIServer):
    request_queue_size = 64

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer asks DNS for the name of the address, which may take seconds
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # of a client that hung up


class _Server6(_Server):
    address_family = socket.AF_INET6


class ProbeServer:
    """Answers probes and scrapes of a process, from daemon threads."""

    def __init__(self, registry: CollectorRegistry, health: ProcessHealth) -> None:
        self._metrics, self._health = make_wsgi_app(registry), health

    def start(self, port: int = 0, address: str = "127.0.0.1") -> int:
        """Serve until `stop` or the end of the process, and return the port; 0 asks for a free one.

        The address is the loopback by default: metrics name applications and models.

        Raises:
            InvalidSetting: the port is taken, or the address is not of this machine.
        """
        kind = _Server6 if ":" in address else _Server
        try:
            self._server = make_server(address, port, self._answer, kind, _Handler)
        except OSError as error:
            raise InvalidSetting(f"metrics_port {address}:{port}: {error.strerror}; choose another, or 0") from error
        self._thread = Thread(target=self._server.serve_forever, name="probes", daemon=True)
        self._thread.start()
        return int(self._server.server_port)

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _answer(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        path = environ["PATH_INFO"]
        headers = [("Content-Type", "application/json")]
        if path not in ("/livez", "/readyz", "/metrics"):
            status, said = HTTPStatus.NOT_FOUND, {"error": "there are /livez, /readyz and /metrics"}
        elif environ["REQUEST_METHOD"] != "GET":
            status, said = HTTPStatus.METHOD_NOT_ALLOWED, {"error": "use GET"}
            headers.append(("Allow", "GET"))
        elif path == "/metrics":
            metrics: Iterable[bytes] = self._metrics(environ, start_response)
            return metrics
        else:
            status, said = self._probed(path)
        start_response(f"{status.value} {status.phrase}", headers)
        return [json.dumps(said).encode()]

    def _probed(self, path: str) -> tuple[HTTPStatus, dict[str, Any]]:
        said: dict[str, Any] = {"live": (holds := self._health.is_live)}
        if path == "/readyz":
            reasons = self._health.reasons()
            said = {"ready": (holds := not reasons), "reasons": reasons}
        return HTTPStatus.OK if holds else HTTPStatus.SERVICE_UNAVAILABLE, said
