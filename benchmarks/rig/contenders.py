"""The systems of the throughput benchmark: what each reads, how it is started, what it leaves out."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import venv
from contextlib import ExitStack
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree as ET

from rig.backlog import APPLICATION, Shape
from rig.nets import NETS
from rig.systems import HERE, NO_DEADLINE_MS, Place
from rig.tasks import IMAGES

from clipper_agents.settings.sections import RouterSection

IN_FLIGHT = RouterSection().max_in_flight
PACK = 16
IMAGES_IN_FLIGHT = 5_000
"""An image is as long as twelve of the other rows: fewer at once make a span of a backlog that fits into memory."""
IN_A_HURRY, HURRY_MS = "digits-50ms", 50
"""An application whose queries are past their deadline when a system starts."""
LOOP_AHEAD = 16_000
"""16 rounds of 1,000, see `rivals/aiokafka_loop.py`."""
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
        package: What the rival imports.
        environment: Suffix of the rival's environment.
        main: Class of a rival in Java.
        config: File in `configs/`; empty for rivals.
        settings: More of them, as for `clipper-stream up --set`.
        reads_ahead: Queries that it may have worked on beyond those answered: so many are left out at both ends of the
            span, as the work for the first was done before it and the work for the last would be missing in it.
        warm_up: Share of the records that is answered before the span: a JVM compiles its hot paths.
        reads_from_end: It only reads what comes after its start.
        yardstick: Our own router without Faust, by our own interpreter.
        default_ratio: Share of the queries that are to get the default.
        same_work: It does all that ours does with a query, not only the model call.
        shares_weights: Its weights learn from the feedback of all partitions, not only of the query's.
    """

    name: str
    shape: Shape
    share: float = 1.0
    leaves_out: str = ""
    script: tuple[str, ...] = ()
    package: str = ""
    environment: str = ""
    main: str = ""
    config: str = ""
    settings: tuple[str, ...] = ()
    reads_ahead: int = 0
    warm_up: float = 0.0
    reads_from_end: bool = False
    yardstick: bool = False
    default_ratio: float = 0.0
    same_work: bool = False
    shares_weights: bool = False


REPEATING = Shape(repeat_ratio=0.5)
PASS_THROUGH, SAME_WORK = "-pass-through", "-same-work"
"""Ends of names: a rival that calls the model and no more, and a contender that does the whole work."""


def _loop(name: str, script: str, *words: str, share: float, encoding: str = "json", reads_ahead: int = 0) -> Contender:
    return Contender(
        name=f"{name}{PASS_THROUGH}",
        package="confluent_kafka" if name == "confluent" else "aiokafka",
        script=(str(RIVALS / script), *words),
        share=share,
        leaves_out=BARE,
        shape=Shape(encoding),
        reads_ahead=reads_ahead,
    )


def _framework(name: str, script: str, package: str, share: float, leaves_out: str) -> Contender:
    return Contender(
        name=f"{name}{PASS_THROUGH}",
        script=(str(RIVALS / script),),
        package=package,
        share=share,
        leaves_out=f"{FRAMEWORK}; {leaves_out}",
        shape=Shape(),
    )


def contenders(msgpack: str) -> dict[str, Contender]:
    """All, by name.

    Args:
        msgpack: How msgpack queries carry a row: `msgpack` (numbers) or `msgpack-bytes`.
    """
    found = [
        *_rivals(msgpack),
        *_same_work(),
        _yardstick(),
        *_nets(msgpack),
        *(each for encoding in ("json", msgpack) for each in _ours(encoding)),
        _ours_one("vote-json", "vote.toml", Shape()),
        replace(_ours_one("late-json", "late.toml", Shape()), default_ratio=1.0),
    ]
    return {each.name: each for each in found}


def _rivals(msgpack: str) -> list[Contender]:
    take = Contender(
        name=f"faust{PASS_THROUGH}",
        package="faust",
        script=_faust("faust_take"),
        share=0.1,
        leaves_out=f"{FRAMEWORK}; an exception loses a batch",
        shape=Shape(),
    )
    mlserver = Contender(
        name=f"mlserver{PASS_THROUGH}",
        script=("-c", "from mlserver.cli import main; main()", "start", str(RIVALS / "mlserver_digits")),
        package="mlserver",
        environment="-mlserver",
        share=0.025,
        leaves_out=f"{FRAMEWORK}; at most once: no group, no commits; other messages (V2)",
        shape=Shape("v2"),
        reads_from_end=True,
    )
    return [
        _loop("confluent", "confluent_loop.py", share=1.0),
        _loop("aiokafka", "aiokafka_loop.py", share=1.0, reads_ahead=LOOP_AHEAD),
        _loop("aiokafka-send", "aiokafka_loop.py", "send", share=0.5, reads_ahead=LOOP_AHEAD),
        _loop("aiokafka-msgpack", "aiokafka_loop.py", share=1.0, encoding=msgpack, reads_ahead=LOOP_AHEAD),
        _framework("bytewax", "bytewax_flow.py", "bytewax", 1.0, "offsets in its own store, not in Kafka"),
        _framework("quix", "quix_app.py", "quixstreams", 0.25, "one row a model call"),
        take,
        _framework(
            "faststream", "faststream_app.py", "faststream", 0.4, "a batch goes to one partition, whatever the keys"
        ),
        mlserver,
    ]


def _faust(module: str) -> tuple[str, ...]:
    return ("-m", "faust", "-A", module, "worker", "-l", "warn", "--without-web")


def _same_work() -> list[Contender]:
    confluent = _same("confluent", "confluent_kafka", 0.5, "state over a restart, exactly once, timers of deadlines")
    ours = _ours_one(f"colocated{SAME_WORK}", "same-work.toml", REPEATING)
    return [
        replace(confluent, shares_weights=True),
        _same("bytewax", "bytewax", 0.5, "batches across keys, exactly once, shared weights"),
        _same("quix", "quixstreams", 0.05, "batches, timers of deadlines, shared weights"),
        _same("faust", "faust", 0.025, "batches, expiry, exactly once, timers of deadlines, shared weights"),
        replace(ours, same_work=True, shares_weights=True),
    ]


def _same(name: str, package: str, share: float, leaves_out: str) -> Contender:
    """A rival that does the same work, in `rivals/<name>_same_work.py`."""
    module = f"{name}_same_work"
    return Contender(
        name=f"{name}{SAME_WORK}",
        script=_faust(module) if name == "faust" else (str(RIVALS / f"{module}.py"),),
        package=package,
        share=share,
        leaves_out=leaves_out,
        shape=REPEATING,
        same_work=True,
    )


def _yardstick() -> Contender:
    return Contender(
        name="bare-router-json",
        script=(str(RIVALS / "bare_router.py"), str(HERE / "configs" / "colocated.toml")),
        leaves_out="rebalances, feedback, recovery, followers; to be compared with colocated-json",
        shape=Shape(),
        reads_ahead=IN_FLIGHT,
        yardstick=True,
    )


def _nets(msgpack: str) -> list[Contender]:
    """A net and images: rivals in Java, which call it, and ours, with the whole work."""
    java = [
        Contender(
            name=f"{name}-net",
            main=main,
            share=0.75,
            warm_up=0.6,
            leaves_out=f"{FRAMEWORK}; one row a model call",
            shape=Shape(task=IMAGES),
        )
        for name, main in (("kafka-streams", "KafkaStreamsNet"), ("flink", "FlinkNet"))
    ]
    ours = [
        _ours_one(
            f"net-{encoding.removesuffix('-bytes')}",
            "net.toml",
            Shape(encoding, task=IMAGES),
            IMAGES_IN_FLIGHT,
            share=0.4,
        )
        for encoding in ("json", msgpack)
    ]
    return [*java, *(replace(each, same_work=True, shares_weights=True) for each in ours)]


def _ours(encoding: str) -> list[Contender]:
    short = encoding.removesuffix("-bytes")
    packed = IN_FLIGHT // PACK  # as many rows in flight as the others have
    return [
        _ours_one(f"colocated-{short}", "colocated.toml", Shape(encoding)),
        _ours_one(f"separate-{short}", "separate.toml", Shape(encoding)),
        _ours_one(f"cached-90-{short}", "separate.toml", Shape(encoding, repeat_ratio=0.9)),
        _ours_one(f"packed-{short}", "separate.toml", Shape(encoding, rows_each=PACK), in_flight=packed, share=0.1),
    ]


def _ours_one(name: str, config: str, shape: Shape, in_flight: int = IN_FLIGHT, share: float = 1.0) -> Contender:
    settings = (f"router.max_in_flight={in_flight}",)
    return Contender(name=name, config=config, shape=shape, share=share, settings=settings, reads_ahead=in_flight)


def command_of(contender: Contender, place: Place, *, install: bool) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a system.

    Raises:
        NotInstalled: a rival whose environment could not be made.
    """
    environ = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    if contender.shape.task is IMAGES:
        first, *_ = [net.write() for net in NETS.values()]
        environ["RIVAL_MODEL"] = str(first)
    if contender.main:
        command = java_rival(contender.main, install=install)
        return command, {**environ, **_rival_settings(contender, place)}
    if contender.config:
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        return _up(contender, place), {**environ, "PYTHONPATH": path}
    if contender.yardstick:
        folder = place.logs / f"{place.catalogue.prefix}-tables"
        words = [place.connection.bootstrap, place.catalogue.prefix, str(folder), str(contender.reads_ahead)]
        path = os.pathsep.join([str(HERE), os.environ.get("PYTHONPATH", "")])
        return [sys.executable, *contender.script, *words], {**environ, "PYTHONPATH": path}
    python = rival_python(contender.package, contender.environment, install=install)
    for name in ("PYTHONPATH", "VIRTUAL_ENV"):
        environ.pop(name, None)
    command = [str(python), *contender.script]
    return command, {**environ, "PYTHONPATH": str(RIVALS), **_rival_settings(contender, place)}


def _up(contender: Contender, place: Place) -> list[str]:
    tables, prefix = place.logs / f"{place.catalogue.prefix}-tables", place.catalogue.prefix
    settings = [
        f"kafka.prefix={prefix}",
        f"kafka.partitions={place.catalogue.partitions}",
        f"router.data_dir={tables}/router",
        f"host.data_dir={tables}/host",
        "gateway.enabled=false",
        *contender.settings,
    ]
    program = [
        sys.executable,
        "-m",
        "clipper_agents.cli.main",
        "up",
        "--config",
        str(HERE / "configs" / contender.config),
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    return [*program, "--bootstrap", place.connection.bootstrap, *words]


def _rival_settings(contender: Contender, place: Place) -> dict[str, str]:
    catalogue, bootstrap = place.catalogue, place.connection.bootstrap
    return {
        "RIVAL_BOOTSTRAP": bootstrap,
        "RIVAL_GROUP": f"{catalogue.prefix}-rival",
        "RIVAL_QUERIES": catalogue.queries,
        "RIVAL_PREDICTIONS": catalogue.predictions,
        "RIVAL_FEEDBACK": catalogue.feedback,
        "RIVAL_OBJECTIVES_MS": json.dumps({APPLICATION: NO_DEADLINE_MS, IN_A_HURRY: HURRY_MS}),
        "RIVAL_FOLDER": str(place.logs / f"{catalogue.prefix}-kept"),
        "RIVAL_ENCODING": "json" if contender.shape.encoding == "json" else "msgpack",
        "MLSERVER_KAFKA_ENABLED": "true",
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


RIVALS = Path(__file__).resolve().parent.parent / "rivals"
INSTALL_S = 400.0


class NotInstalled(RuntimeError):
    """It could not be made; a line of pip's or Maven's own words says why."""


def rival_python(package: str, suffix: str = "", *, install: bool = True) -> Path:
    """The interpreter of `rivals/.venv{suffix}`, made or brought up to date from `requirements{suffix}.txt`.

    What those need in turn is pinned by `constraints{suffix}.txt`: the same figures, and a rival that runs, next year.

    Without that environment and without installing it is our own interpreter, where it has the rival's package: good
    enough to see that the rival runs, not for figures, as versions differ.

    Args:
        package: What the rival imports.
        suffix: Empty, or `-mlserver`.
        install: False: only what is there already.

    Raises:
        NotInstalled: it is not there, and could not be made.
    """
    files = [RIVALS / f"{kind}{suffix}.txt" for kind in ("requirements", "constraints")]
    wanted = "".join(file.read_text() for file in files)
    folder = RIVALS / f".venv{suffix}"
    installed = folder / "installed.txt"
    if not installed.exists() or installed.read_text() != wanted:
        if not install and find_spec(package) is not None:
            return Path(sys.executable)
        if not install:
            raise NotInstalled(f"{package} is not installed here, nor in {folder.name}: run without --no-install")
        print(f"installing {folder.name} (once) ...", file=sys.stderr, flush=True)
        _install(folder, *files)
        installed.write_text(wanted)
    return folder / "bin" / "python"


def _install(folder: Path, requirements: Path, constraints: Path) -> None:
    venv.create(folder, with_pip=True)
    command = [
        str(folder / "bin" / "python"),
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-compile",
        "--requirement",
        str(requirements),
        "--constraint",
        str(constraints),
    ]
    _make("pip", command)


def _make(tool: str, command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=INSTALL_S)
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"{tool} did not end within {INSTALL_S:.0f} s") from error
    if done.returncode:
        words = [line for line in f"{done.stdout}{done.stderr}".splitlines() if line.strip()] or ["no words"]
        raise NotInstalled(f"{tool}: {next((line for line in words if 'ERROR' in line), words[-1])}")


JAVA = RIVALS / "java"
JAVA_VERSIONS = "java/pom.xml"


def versions(*files: str) -> list[str]:
    """What the rivals' files ask for, `package==version` as pip's requirements have it."""
    return [line for file in files for line in (_of_pom if file == JAVA_VERSIONS else _lines)(RIVALS / file)]


def _lines(file: Path) -> list[str]:
    return file.read_text().split()


def _of_pom(file: Path) -> list[str]:
    text = re.sub(r' xmlns="[^"]*"', "", file.read_text())
    pom = ET.fromstring(text)
    names = {f"${{{each.tag}}}": each.text or "" for each in pom.iterfind("properties/*")}
    found = [(each.findtext("artifactId", ""), each.findtext("version", "")) for each in pom.iterfind("dependencies/*")]
    return [f"{artifact}=={names.get(version, version)}" for artifact, version in found]


def java_rival(main: str, *, install: bool = True) -> list[str]:
    """The command of a rival in Java; it is compiled where that was not done, or not with these files.

    Args:
        main: Its class.
        install: False: only what is there already.

    Raises:
        NotInstalled: it is not there, and could not be made.
    """
    if missing := [tool for tool in ("java", "javac", "mvn") if shutil.which(tool) is None]:
        raise NotInstalled(f"not installed here: {', '.join(missing)}")
    files = [JAVA / "pom.xml", *sorted(JAVA.glob("src/main/java/*.java"))]
    wanted, target = "".join(file.read_text() for file in files), JAVA / "target"
    built = target / "built.txt"
    if not built.exists() or built.read_text() != wanted:
        if not install:
            raise NotInstalled("the rivals in Java are not installed here: run without --no-install")
        print("compiling rivals/java (once) ...", file=sys.stderr, flush=True)
        _make("mvn", ["mvn", "-q", "-B", "-Dstyle.color=never", "-f", str(JAVA / "pom.xml"), "clean", "compile"])
        built.write_text(wanted)
    path = os.pathsep.join([str(target / "classes"), str(target / "dependency" / "*")])
    return ["java", "-Dorg.slf4j.simpleLogger.defaultLogLevel=error", "-cp", path, main]


if __name__ == "__main__":
    for requirements in sorted(RIVALS.glob("requirements*.txt")):
        rival_python("", requirements.stem.removeprefix("requirements"))
    if shutil.which("mvn"):
        java_rival("KafkaStreamsNet")
