"""A server of the Open Inference Protocol that answers as a test says, on a port of its own."""

import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PATH = "/v2/models/digits"


@dataclass
class Answer:
    """What the server gives; `close` says that the connection ends with it."""

    content: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False

    @property
    def body(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else json.dumps(self.content).encode()


@dataclass
class Asked:
    method: str
    path: str
    headers: dict[str, str]
    body: Any
    connection: Any


def first_numbers(asked: Asked) -> Answer:
    """The first number of each row, as one tensor."""
    tensor = asked.body["inputs"][0]
    rows = tensor["shape"][0]
    width = len(tensor["data"]) // max(1, rows)
    data = [tensor["data"][row * width] for row in range(rows)]
    return Answer({"outputs": [{"name": "y", "shape": [rows], "datatype": tensor["datatype"], "data": data}]})


@dataclass
class StubServer:
    """Answers `infer` as it is told, and says that it is ready."""

    infer: Callable[[Asked], Answer | None] = first_numbers
    ready: Answer = field(default_factory=Answer)
    metadata: Answer = field(default_factory=Answer)
    asked: list[Asked] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}{PATH}"

    @property
    def batches(self) -> list[Asked]:
        return [each for each in self.asked if each.path.endswith("/infer")]

    def answer(self, asked: Asked) -> Answer | None:
        """None: the connection is closed without a word."""
        self.asked.append(asked)
        if asked.path.endswith("/infer"):
            return self.infer(asked)
        return self.ready if asked.path.endswith("/ready") else self.metadata


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stub: StubServer

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        content = json.loads(body) if body else None
        answer = self.stub.answer(Asked(self.command, self.path, headers, content, self.client_address))
        if answer is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in {"content-length": str(len(answer.body)), **answer.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
        self.close_connection = answer.close

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, *said: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is no news: a test says what its client saw."""


class serving:  # noqa: N801 - used as a function
    """Runs a stub server as long as the block lasts."""

    def __init__(self, stub: StubServer, tls: ssl.SSLContext | None = None) -> None:
        self._stub = stub
        self._tls = tls

    def __enter__(self) -> StubServer:
        handler = type("Handler", (_Handler,), {"stub": self._stub})
        self._server = _Server(("127.0.0.1", 0), handler)
        if self._tls is not None:
            self._server.socket = self._tls.wrap_socket(self._server.socket, server_side=True)
        self._stub.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        return self._stub

    def __exit__(self, *_: object) -> None:
        self._stub.let_go.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
