"""The systems of the throughput benchmark: what each reads, how it is started, what it leaves out."""

import os
import socket
import sys
from contextlib import ExitStack
from dataclasses import dataclass

from rig.backlog import Shape
from rig.environments import RIVALS, rival_python
from rig.systems import HERE, Place

BARE = "no dedupe, deadlines, selection, cache, log of decisions, or care for rebalances"
FRAMEWORK = "no dedupe, deadlines, selection, cache, or log of decisions"


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """One row of the table.

    Attributes:
        name: Of the system, with its encoding.
        shape: Of the queries.
        share: Records as a share of the largest backlog, so that each run lasts some seconds.
        leaves_out: What ours does and this does not; empty for ours.
        script: Words after the interpreter of a rival's environment; empty for ours.
        environment: Suffix of that environment.
        config: File in `configs/`; empty for rivals.
        reads_from_end: It only reads what comes after its start.
    """

    name: str
    shape: Shape
    share: float = 1.0
    leaves_out: str = ""
    script: tuple[str, ...] = ()
    environment: str = ""
    config: str = ""
    reads_from_end: bool = False


def rival(name: str, script: str, *words: str, share: float, leaves_out: str, encoding: str = "json") -> Contender:
    return Contender(
        name=name, script=(str(RIVALS / script), *words), share=share, leaves_out=leaves_out, shape=Shape(encoding)
    )


def contenders(msgpack: str) -> dict[str, Contender]:
    """All, by name.

    Args:
        msgpack: How msgpack queries carry a row: `msgpack` (numbers) or `msgpack-bytes`.
    """
    found = [*_rivals(msgpack), *(each for encoding in ("json", msgpack) for each in _ours(encoding))]
    return {each.name: each for each in found}


def _rivals(msgpack: str) -> list[Contender]:
    take = Contender(
        name="faust",
        script=("-m", "faust", "-A", "faust_take", "worker", "-l", "warn", "--without-web"),
        share=0.1,
        leaves_out=f"{FRAMEWORK}; an exception loses a batch",
        shape=Shape(),
    )
    mlserver = Contender(
        name="mlserver",
        script=("-c", "from mlserver.cli import main; main()", "start", str(RIVALS / "mlserver_digits")),
        environment="-mlserver",
        share=0.025,
        leaves_out=f"{FRAMEWORK}; at most once: no group, no commits; other messages (V2)",
        shape=Shape("v2"),
        reads_from_end=True,
    )
    return [
        rival("confluent", "confluent_loop.py", share=1.0, leaves_out=BARE),
        rival("aiokafka", "aiokafka_loop.py", share=1.0, leaves_out=BARE),
        rival("aiokafka-send", "aiokafka_loop.py", "send", share=0.5, leaves_out=BARE),
        rival("aiokafka-msgpack", "aiokafka_loop.py", share=1.0, leaves_out=BARE, encoding=msgpack),
        rival(
            "bytewax", "bytewax_flow.py", share=1.0, leaves_out=f"{FRAMEWORK}; offsets in its own store, not in Kafka"
        ),
        rival("quix", "quix_app.py", share=0.25, leaves_out=f"{FRAMEWORK}; one row a model call"),
        take,
        rival("faststream", "faststream_app.py", share=0.4, leaves_out=f"{FRAMEWORK}; a batch goes to one partition"),
        mlserver,
    ]


def _ours(encoding: str) -> list[Contender]:
    short = encoding.removesuffix("-bytes")
    separate = "separate.toml"
    return [
        Contender(name=f"colocated-{short}", share=0.5, config="colocated.toml", shape=Shape(encoding)),
        Contender(name=f"separate-{short}", config=separate, share=0.5, shape=Shape(encoding)),
        Contender(name=f"cached-50-{short}", config=separate, share=0.5, shape=Shape(encoding, repeat_ratio=0.5)),
        Contender(name=f"cached-90-{short}", config=separate, share=0.5, shape=Shape(encoding, repeat_ratio=0.9)),
        Contender(name=f"packed-{short}", config=separate, shape=Shape(encoding, rows_each=16)),
    ]


def command_of(contender: Contender, place: Place, *, install: bool) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a system.

    Raises:
        NotInstalled: a rival whose environment could not be made.
    """
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if contender.config:
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        return _up(contender.config, place), {**environ, "PYTHONPATH": path}
    python = rival_python(contender.environment, install=install)
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        environ.pop(name, None)
    command = [str(python), *contender.script]
    return command, {**environ, "PYTHONPATH": str(RIVALS), **_rival_settings(contender, place)}


def _up(config: str, place: Place) -> list[str]:
    tables, prefix = place.logs / f"{place.catalogue.prefix}-tables", place.catalogue.prefix
    settings = {
        "kafka.prefix": prefix,
        "kafka.partitions": place.catalogue.partitions,
        "router.data_dir": tables / "router",
        "host.data_dir": tables / "host",
    }
    program = [sys.executable, "-m", "clipper_agents.cli.main", "up", "--config", str(HERE / "configs" / config)]
    words = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [*program, "--bootstrap", place.connection.bootstrap, *words]


def _rival_settings(contender: Contender, place: Place) -> dict[str, str]:
    catalogue, bootstrap = place.catalogue, place.connection.bootstrap
    return {
        "RIVAL_BOOTSTRAP": bootstrap,
        "RIVAL_GROUP": f"{catalogue.prefix}-rival",
        "RIVAL_QUERIES": catalogue.queries,
        "RIVAL_PREDICTIONS": catalogue.predictions,
        "RIVAL_FOLDER": str(place.logs / f"{catalogue.prefix}-kept"),
        "RIVAL_ENCODING": "json" if contender.shape.encoding == "json" else "msgpack",
        "MLSERVER_KAFKA_SERVERS": bootstrap,
        "MLSERVER_KAFKA_TOPIC_INPUT": catalogue.queries,
        "MLSERVER_KAFKA_TOPIC_OUTPUT": catalogue.predictions,
        **dict(zip(("MLSERVER_HTTP_PORT", "MLSERVER_GRPC_PORT"), map(str, _free_ports(2)), strict=True)),
    }


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in sockets]
