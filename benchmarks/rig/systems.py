"""The systems that are compared, with their configurations; each has topics and processes for the time of a block."""

import asyncio
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rig.processes import Cpus, NotServing, running, tree

from clipper_agents.broker.properties import free_port
from clipper_agents.kafka.topics import delete_topics, ensure_topics, existing_topics
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ModelManifest

HERE = Path(__file__).resolve().parent.parent
ECHO_MODEL = ModelManifest(name="echo", version="1", uri="none:none")
"""Only for its requests topic."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a system runs.

    Attributes:
        connection: The broker.
        catalogue: Topics of this run alone.
        cpus: Who runs on which CPU.
        logs: Folder of the processes' logs.
    """

    connection: KafkaConnection
    catalogue: Catalogue
    cpus: Cpus
    logs: Path


def echo(place: Place, *roles: str) -> AbstractContextManager[list[int]]:
    """`rivals/echo.py` in these roles; the process ids."""
    script, words = str(HERE / "rivals" / "echo.py"), [place.connection.bootstrap, place.catalogue.prefix]
    return rival(place, {role: [sys.executable, script, role, *words] for role in roles}, os.environ)


@contextmanager
def rival(place: Place, commands: Mapping[str, list[str]], environ: Mapping[str, str]) -> Iterator[list[int]]:
    """Processes that say `ready`, by the names of their logs; the process ids."""
    asyncio.run(ensure_topics(place.connection, place.catalogue, [ECHO_MODEL]))
    try:
        with ExitStack() as stack:
            yield [
                stack.enter_context(running(command, _log_file(place, name), environ, place.cpus.system)).pid
                for name, command in commands.items()
            ]
    finally:
        asyncio.run(_remove(place))


def _log_file(place: Place, name: str) -> Path:
    return place.logs / f"{place.catalogue.prefix}-{name}.log"


@contextmanager
def pipeline(place: Place, config: str, *assignments: str) -> Iterator[list[int]]:
    """`served`, with topics that are removed afterwards."""
    try:
        with served(place, config, *assignments) as roots:
            yield roots
    finally:
        asyncio.run(_remove(place))


@contextmanager
def served(place: Place, config: str, *assignments: str) -> Iterator[list[int]]:
    """`clipper-stream up` with a configuration of this benchmark; the process id of the supervisor.

    Args:
        place: Where it runs; its tables are in `tables_of(place)`, and stay.
        config: A file in `configs/`, or the path of another one.
        assignments: More settings, as `router.cache_mib=0`.
    """
    program = [sys.executable, "-m", "clipper_agents.cli.main", "up", "--config", str(HERE / "configs" / config)]
    folder, catalogue = tables_of(place), place.catalogue
    settings = [
        f"kafka.prefix={catalogue.prefix}",
        f"kafka.partitions={catalogue.partitions}",
        f"router.data_dir={folder}/router",
        f"host.data_dir={folder}/host",
        "gateway.enabled=false",
        *assignments,
    ]
    options = [word for setting in settings for word in ("--set", setting)]
    environ = {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])}
    command = [*program, "--bootstrap", place.connection.bootstrap, *options]
    with running(command, _log_file(place, Path(config).name), environ, place.cpus.system) as process:
        yield [process.pid]


@dataclass(frozen=True, slots=True)
class HttpPipeline:
    """A pipeline that is asked over HTTP.

    Attributes:
        url: Of its gateway.
        port: The gateway's, of HTTP.
        roots: Process ids of the whole system; their descendants belong to it.
        gateway: Process id of the gateway.
    """

    url: str
    port: int
    roots: list[int]
    gateway: int


@contextmanager
def pipeline_with_gateway(place: Place, config: str, *assignments: str) -> Iterator[HttpPipeline]:
    """`pipeline` with a gateway.

    Raises:
        NotServing: the gateway did not start.
    """
    port = free_port()
    ports = ("gateway.enabled=true", f"gateway.port={port}", "gateway.grpc_port=0")
    with pipeline(place, config, *ports, *assignments) as roots:
        yield HttpPipeline(f"http://127.0.0.1:{port}", port, roots, _gateway_below(roots[0]))


def _gateway_below(root: int) -> int:
    for pid in tree(root):
        with suppress(OSError):  # it ended between the two looks
            if b"gateway" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
    raise NotServing("the deployment runs without a gateway: keep its log with --logs FOLDER, which says why")


def tables_of(place: Place) -> Path:
    """Folder of what the system's processes keep."""
    return place.logs / f"{place.catalogue.prefix}-tables"


async def _remove(place: Place) -> None:
    await delete_topics(place.connection, list(await existing_topics(place.connection, place.catalogue.prefix)))


SYSTEMS: dict[str, Callable[[Place], AbstractContextManager[list[int]]]] = {
    "echo": lambda place: echo(place, "echo"),
    "colocated": lambda place: pipeline(place, "colocated.toml"),
    "echo-chain": lambda place: echo(place, "router", "host"),
    "separate": lambda place: pipeline(place, "separate.toml"),
}
RIVAL_OF = {"colocated": "echo", "separate": "echo-chain"}
"""The system that has the same hops and nothing else."""


NO_DEADLINE_MS = 600_000
INPUT = {"dtype": "float32", "shape": [64]}


def model(name: str, uri: str, **further: Any) -> dict[str, Any]:
    """A model that is never answered for by the cache."""
    return {
        "name": name,
        "version": "1",
        "runtime": "python",
        "uri": uri,
        "input": INPUT,
        "deterministic": False,
    } | further


def application(name: str, models: list[str], policy: str, objective_ms: int = NO_DEADLINE_MS) -> dict[str, Any]:
    """An application on models of version 1; its default output is -1."""
    return {
        "name": name,
        "input": INPUT,
        "models": [f"{model}:1" for model in models],
        "policy": {"name": policy},
        "objective_ms": objective_ms,
        "default_output": -1,
    }


def written(path: Path, applications: list[dict[str, Any]], models: list[dict[str, Any]], routers: int = 1) -> str:
    """The configuration as a file; its path."""
    sections = ["[kafka]\n", f"[router]\nprocesses = {routers}\n"]
    for kind, several in (("application", applications), ("model", models)):
        sections += [
            f"[[{kind}]]\n" + "".join(f"{key} = {_toml(value)}\n" for key, value in each.items()) for each in several
        ]
    path.write_text("\n".join(sections))
    return str(path)


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_toml(one)}" for key, one in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(_toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value)
