"""Deployments with gateways, and what their tests ask them with: HTTP as it is on the wire, offsets, lines of logs."""

import itertools
import json
import re
import socket
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from e2e.any_client import AnyClient
from e2e.programs import READY_S, Program, environment_of, until
from kafka_fixture import own_topics

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

CONFIGURATION = Path(__file__).with_name("shared.toml")
FREE_PORTS = {"CLIPPER_GATEWAY_PORT": "0", "CLIPPER_GATEWAY_GRPC_PORT": "0"}
WITH_GATEWAY = {"CLIPPER_GATEWAY_ENABLED": "true", **FREE_PORTS}
ANSWER_S = 60.0
PARTITIONS = 2
LINE = re.compile(r'\{"at":.*\}|\d{4}-\d\d-\d\dT[\d:.]+Z( [a-z_]+=("([^"\\]|\\.)*"|[\w\-.:/,+@%\[\]()]+))+')
"""Of a gateway's log: about a request, or an event."""
MODELS = """
import time
from pathlib import Path

CLOSED = Path(__file__).with_name("closed")


def letters(rows):
    return [f"{len(row)} letters" for row in rows]


def held(rows):
    while CLOSED.exists():
        time.sleep(0.01)
    return rows.sum(axis=1)
"""


def traced(url: str) -> dict[str, str]:
    """Settings of a deployment with a gateway that sends its spans to this URL, and begins no trace of its own."""
    spans = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    return {**WITH_GATEWAY, **spans, "OTEL_TRACES_SAMPLER": "parentbased_always_off"}


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs alone; `port` is that of HTTP."""

    program: Program
    http: str
    port: int
    grpc: str
    metrics: str


@dataclass(frozen=True)
class Deployment:
    """A deployment that runs, with its gateway's URL when it has one."""

    up: Program
    url: str
    bootstrap: str
    catalogue: Catalogue
    environ: Mapping[str, str]
    folder: Path

    @contextmanager
    def gateway(self, name: str, **settings: str) -> Iterator[Gateway]:
        """Start a further gateway; `settings` are variables of its environment."""
        environ = {**self.environ, **FREE_PORTS, **settings}
        with Program("gateway", "--instance", name, folder=self.folder / name, environ=environ) as program:
            http, grpc, metrics = (program.ready()[name] for name in ("http", "grpc", "metrics"))
            serves(http)
            yield Gateway(program, http, int(http.rpartition(":")[2]), grpc, f"http://127.0.0.1:{metrics}/metrics")

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Have the application `held` answer nothing until the end of the block."""
        closed = self.folder / "closed"
        closed.touch()
        try:
            yield
        finally:
            closed.unlink()


@contextmanager
def deployed(
    kafka: KafkaConnection, folder: Path, config: Path = CONFIGURATION, **settings: str
) -> Iterator[Deployment]:
    """A deployment on topics of its own; `settings` are variables of its environment."""
    (folder / "shared_models.py").write_text(MODELS)
    with own_topics(kafka) as catalogue:
        environ = environment_of(kafka, catalogue, **FREE_PORTS | settings)
        with Program("up", "--config", str(config), folder=folder, environ=environ) as up:
            url = up.ready().get("gateway", "")
            if url:
                serves(url)
            yield Deployment(up, url, kafka.bootstrap, catalogue, environ, folder)


def serves(url: str, within_s: float = READY_S) -> None:
    """Wait until a gateway serves: it listens before it has read the topics."""
    with client_of(url) as client:
        until("the gateway serves", lambda: client.get("/readyz").status_code == 200, within_s)


def client_of(url: str, *, timeout_s: float = ANSWER_S, **headers: str) -> httpx.Client:
    """A client that knows no proxy and no certificates, which take longer to read than an answer."""
    return httpx.Client(base_url=url, headers=headers, timeout=timeout_s, trust_env=False, verify=False)


def readiness(url: str) -> tuple[int, list[str]]:
    """What a probe answers, and why nobody should be sent there."""
    found = httpx.get(f"{url}/readyz", trust_env=False, timeout=ANSWER_S)
    return found.status_code, found.json()["reasons"]


def metric(url: str, series: str) -> float:
    """The value of a series of a process, 0 where there is none yet."""
    lines = httpx.get(url, trust_env=False, timeout=ANSWER_S).text.splitlines()
    return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == series), 0.0)


def events(lines: Iterator[str]) -> Iterator[dict[str, str]]:
    """Server-sent events, by their fields; comments are left out."""
    event: dict[str, str] = {}
    for line in lines:
        name, _, text = line.partition(": ")
        if name:
            event[name] = text
        elif line == "" and event:
            yield event
            event = {}


def exchange(port: int, sent: bytes) -> tuple[list[int], bytes]:
    """Send bytes, and read until the server closes the connection; the statuses of its answers, and all that came."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=ANSWER_S) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # closed before it had read everything
            connection.sendall(sent)
        with suppress(ConnectionResetError):
            while part := connection.recv(2**16):
                received += part
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", received)], bytes(received)


class Guard:
    """Sees whether requests leave anything in the topics, or in the log what should not be there, as `secrets`."""

    def __init__(self, deployment: Deployment, gateway: Gateway, secrets: Iterable[str]) -> None:
        self._gateway, self._secrets = gateway, [*secrets]
        self._kafka = AnyClient(deployment.bootstrap)
        self._topics = deployment.catalogue.queries, deployment.catalogue.feedback
        self._client, self._marks = client_of(gateway.http), itertools.count()
        self._count, self._seen = self._kafka.written(*self._topics), 0
        self._lines_of_all(0)  # of who waited until it serves, too

    def _lines_of_all(self, told: int) -> tuple[list[str], str]:
        """The lines that came since they were last looked at, with those of all requests; and the id of the last."""
        mark = f"mark-{next(self._marks)}"
        assert self._client.get("/livez", headers={"x-request-id": mark}).status_code == 200

        def lines_of_all() -> list[str] | None:
            lines = self._gateway.program.log.splitlines()[self._seen :]
            is_marked = any(f'"{mark}"' in line for line in lines)
            return lines if is_marked and sum(line.startswith("{") for line in lines) > told else None

        lines = until("lines of the log", lines_of_all) or []
        self._seen += len(lines)
        return lines, mark

    def check(self, requests: int, *, told: int = 0, writes: int = 0) -> list[dict[str, Any]]:
        """Check what so many requests left since the last check; the lines of the log about them.

        Each has one line at most, and `told` of them one for certain: that of a call over gRPC comes after its answer.
        """
        lines, mark = self._lines_of_all(told)
        before, self._count = self._count, self._kafka.written(*self._topics)
        assert self._count - before == writes
        strange = [line for line in lines if not line.isprintable() or LINE.fullmatch(line) is None]
        assert not strange, strange
        assert [line for line in lines if any(secret in line for secret in self._secrets)] == []
        asked = [json.loads(line) for line in lines if line.startswith("{")]
        assert len(asked) <= requests + 1
        assert len(lines) <= 2 * requests + 1  # a request that is not understood is a warning
        return [each for each in asked if each["request_id"] != mark]

    def close(self) -> None:
        self._client.close()
