"""Model servers, and this pipeline's gateway, that answer the same rows over HTTP; what each is sent and answers."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from models import INPUTS, digits
from rig.contenders import PACK, RIVALS, rival_python
from rig.http_load import Labels, Request, answering
from rig.processes import NotServing, end, on_cpus, tree
from rig.systems import Place, pipeline_with_gateway

from clipper_agents.broker.properties import free_port

READY_S = 120.0
CHUNK_ROWS = 4_096
"""Rows that are made at once: as Python's floats they are large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """What answers over HTTP.

    Attributes:
        path: Of its URL.
        body: A request, from its rows.
        labels: In a response, one a row.
        rows_each: Rows of a request.
        package: What its environment has; empty: our own interpreter.
        environment: Suffix of that.
        words: After the interpreter, by port; None: our own pipeline with its gateway.
        settings: Environment variables, by port.
        constant: Labels of every response; absent: those of the rows.
    """

    path: str
    body: Callable[[list[list[float]]], Any]
    labels: Labels
    rows_each: int = 1
    package: str = ""
    environment: str = ""
    words: Callable[[int], Sequence[str]] | None = None
    settings: Callable[[int], dict[str, str]] = lambda _: {}
    constant: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers.

    Attributes:
        url: Where requests go.
        roots: Process ids of the system.
        gateway: Process id of the gateway, where there is one.
    """

    url: str
    roots: list[int]
    gateway: list[int]


def _v2(rows: list[list[float]]) -> dict[str, Any]:
    return {"inputs": [{"name": "predict", "shape": [1, INPUTS], "datatype": "FP32", "data": rows[0]}]}


SERVERS = {
    "mlserver": Server(
        package="mlserver",
        environment="-mlserver",
        words=lambda _: ("-c", "from mlserver.cli import main; main()", "start", str(RIVALS / "mlserver_digits")),
        path="v2/models/digits/infer",
        body=_v2,
        labels=lambda response: response["outputs"][0]["data"],
        settings=lambda port: {
            "MLSERVER_HTTP_PORT": str(port),
            "MLSERVER_GRPC_PORT": str(free_port()),
        },
    ),
    "bentoml": Server(
        package="bentoml",
        environment="-bentoml",
        words=lambda port: ("-m", "bentoml", "serve", "bentoml_digits:Digits", "--port", str(port)),
        path="predict",
        body=lambda rows: {"rows": rows},
        labels=list,
        settings=lambda _: {"BENTOML_DO_NOT_TRACK": "True"},
    ),
    "ray-serve": Server(
        package="ray",
        environment="-ray",
        words=lambda port: (str(RIVALS / "ray_digits.py"), str(port)),
        path="predict",
        body=lambda rows: {"rows": rows},
        labels=list,
        settings=lambda _: {"RAY_USAGE_STATS_ENABLED": "0"},
    ),
    "fastapi": Server(
        package="fastapi",
        environment="-fastapi",
        words=lambda port: ("-m", "uvicorn", "fastapi_digits:app", "--port", str(port), "--no-access-log"),
        path="predict",
        body=lambda rows: {"input": rows[0]},
        labels=lambda response: [response["output"]],
    ),
    "bare": Server(
        words=lambda port: (str(RIVALS / "bare_http.py"), str(port)),
        path="predict",
        body=lambda rows: {"input": rows[0]},
        labels=lambda response: [response["output"]],
        constant=[0],
    ),
    "gateway": Server(
        path="v1/applications/digits/predict",
        body=lambda rows: {"input": rows[0]},
        labels=lambda response: [response["output"]],
    ),
    "gateway-packed": Server(
        path="v1/applications/digits/predict",
        body=lambda rows: {"inputs": rows},
        labels=lambda response: response["outputs"],
        rows_each=PACK,
    ),
}


def requests(server: Server, count: int, seed: int) -> list[Request]:
    """`made`, all at once."""
    return list(made(server, count, seed))


def made(server: Server, count: int, seed: int) -> Iterator[Request]:
    """Requests and their labels; those of another seed or count have other rows."""
    draws, at_once = np.random.default_rng([count, seed]), CHUNK_ROWS // server.rows_each
    for first in range(0, count, at_once):
        packs = min(at_once, count - first)
        inputs = draws.integers(0, 1_000, (packs * server.rows_each, INPUTS)) / 1_000.0
        labels = digits(inputs.astype(np.float32)).reshape(packs, -1).tolist()
        for pack, right in zip(inputs.reshape(packs, -1, INPUTS).tolist(), labels, strict=True):
            yield msgspec.json.encode(server.body(pack)), server.constant or right


@contextmanager
def serving(server: Server, place: Place, *, install: bool) -> Iterator[Served]:
    """A server that answers; ended with the block, and all that it started.

    Raises:
        NotInstalled: its environment could not be made.
        NotServing: it did not answer in time.
    """
    log_file = place.logs / f"{place.catalogue.prefix}.log"
    if server.words is None:
        with pipeline_with_gateway(place, "colocated.toml") as system:
            url = f"{system.url}/{server.path}"
            wait_until_right(server, url, log_file)
            yield Served(url, system.roots, [system.gateway])
        return
    port = free_port()
    environ = {**os.environ, "PYTHONPATH": str(RIVALS), **server.settings(port)}
    python = sys.executable
    if server.package:
        python = str(rival_python(server.package, server.environment, install=install))
        environ.pop("VIRTUAL_ENV", None)
    url = f"http://127.0.0.1:{port}/{server.path}"
    with log_file.open("w") as log, on_cpus(place.cpus.system):
        command = [python, *server.words(port)]
        process = subprocess.Popen(command, stdout=log, stderr=log, text=True, env=environ, start_new_session=True)
    try:
        wait_until_right(server, url, log_file)
        yield Served(url, [process.pid], [])
    finally:
        descendants = tree(process.pid)
        end(process)
        for pid in descendants:  # Ray's are in process groups of their own
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def wait_until_right(server: Server, url: str, log_file: Path) -> None:
    """Ask until the answer is right.

    Raises:
        NotServing: it was not in time.
    """
    if not asyncio.run(answering(url, requests(server, 1, 0)[0], server.labels, READY_S)):
        log = log_file.read_text(errors="replace")[-500:] if log_file.exists() else ""
        raise NotServing(f"no right answer within {READY_S:.0f} s: {log}")
