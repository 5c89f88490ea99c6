"""A server, of the Open Inference Protocol above all, that answers as a test says on a port of its own."""

import json
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

PATH = "/v2/models/digits"


@dataclass
class Answer:
    """What the server gives: JSON, bytes or an iterator of bytes; `close` says that the connection ends with it."""

    content: Any = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    close: bool = False


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
    data = tensor["data"][:: len(tensor["data"]) // max(1, rows) or 1]
    return Answer({"outputs": [{"name": "y", "shape": [rows], "datatype": tensor["datatype"], "data": data}]})


Given = Answer | None | Callable[[Asked], Answer | None]
"""An answer, or what gives one; None: the connection is closed without a word."""


@dataclass
class StubServer:
    """Answers `infer` as it is told, says that it is ready, and gives its metadata to all other requests."""

    infer: Given = first_numbers
    ready: Given = field(default_factory=Answer)
    metadata: Given = field(default_factory=Answer)
    asked: list[Asked] = field(default_factory=list)
    let_go: threading.Event = field(default_factory=threading.Event)
    port: int = 0

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return self.root + PATH

    @property
    def batches(self) -> list[Asked]:
        return [each for each in self.asked if each.path.endswith("/infer")]

    def answer(self, asked: Asked) -> Answer | None:
        self.asked.append(asked)
        answers: dict[str, Given] = {"infer": self.infer, "ready": self.ready}
        given = answers.get(asked.path.rpartition("/")[2], self.metadata)
        return given(asked) if callable(given) else given


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    stub: StubServer

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        is_json = body and "protobuf" not in headers.get("content-type", "")
        content = json.loads(body) if is_json else body or None
        answer = self.stub.answer(Asked(self.command, self.path, headers, content, self.client_address))
        if answer is None:
            self.close_connection = True
            return
        given = answer.content if isinstance(answer.content, bytes | Iterator) else json.dumps(answer.content).encode()
        length = {} if isinstance(given, Iterator) else {"content-length": str(len(given))}
        self.send_response(answer.status)
        for name, value in (length | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            for part in [given] if isinstance(given, bytes) else given:
                self.wfile.write(part)
        self.close_connection = answer.close

    def log_message(self, *said: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, *_: Any) -> None:
        """A client that hung up is no news: a test says what its client saw."""


Stub = TypeVar("Stub", bound=StubServer)


@contextmanager
def serving(stub: Stub, tls: ssl.SSLContext | None = None) -> Iterator[Stub]:
    """Runs a stub server as long as the block lasts."""
    methods = dict.fromkeys(["do_GET", "do_HEAD", "do_POST"], _Handler.answer)
    server = _Server(("127.0.0.1", stub.port), type("Handler", (_Handler,), {"stub": stub, **methods}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    stub.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield stub
    finally:
        stub.let_go.set()
        server.shutdown()
        server.server_close()
        thread.join()
