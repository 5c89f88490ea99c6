"""The embedded broker: one node of Apache Kafka on the loopback interface."""

import base64
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

from clipper_agents.broker.errors import BrokerNotStarted, PortTaken
from clipper_agents.broker.process import GuardedProcess
from clipper_agents.broker.properties import LOGGING, LOOPBACK, Node, free_port, server_properties
from clipper_agents.broker.readiness import wait_until_ready
from clipper_agents.broker.runtime import KAFKA_VERSION, Runtime, find_runtime
from clipper_topics.connection import KafkaConnection

START_S = 60.0
"""A start takes two seconds on an idle machine, six on a busy one."""
ATTEMPTS = 5
"""Starts with new free ports, each of which somebody else can take first."""

# A small heap and the first compiler tier only: the broker starts in half the time and shares its machine.
JVM = (
    "-Xms64m",
    "-Xss512k",
    "-XX:+UseSerialGC",
    "-XX:TieredStopAtLevel=1",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
)


class EmbeddedBroker:
    """A real Kafka without Docker; as a context manager it starts and stops.

        with EmbeddedBroker() as broker:
            ...  # clients connect to broker.bootstrap

    Args:
        data_dir: Keeps the records, the cluster id and the port from one start to the next; absent: a temporary
            folder, removed by `stop()`.
        port: Listen here; absent or 0: the port of the last start in this data_dir, else a free one.
        heap_mib: Largest Java heap, in MiB.
        extra_properties: Broker settings by their Kafka names, on top of ours.
        runtime: Finds the Java and the jars.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        port: int | None = None,
        heap_mib: int = 512,
        extra_properties: Mapping[str, object] | None = None,
        *,
        runtime: Callable[[], Runtime] = find_runtime,
    ) -> None:
        self._given_dir = Path(data_dir).absolute() if data_dir is not None else None
        self._given_port = port or None
        self._heap_mib = heap_mib
        self._extra_properties = dict(extra_properties or {})
        self._runtime = runtime
        self._dir: Path | None = self._given_dir
        self._port: int | None = self._given_port
        self._process: GuardedProcess | None = None

    @property
    def bootstrap(self) -> str:
        """`host:port` of the broker, once it has started; the same after a stop and another start."""
        return f"{LOOPBACK}:{self._port}"

    @property
    def connection(self) -> KafkaConnection:
        """How clients reach it."""
        return KafkaConnection(self.bootstrap)

    @property
    def pid(self) -> int | None:
        """Process id of the broker, None when it does not run."""
        return self._process.pid if self._process and self._process.exit_code is None else None

    @property
    def log_file(self) -> Path:
        """What the broker itself says: warnings and errors."""
        return self._folder / "broker.log"

    def start(self) -> Self:
        """Start it and wait until it answers; nothing happens when it runs already.

        Raises:
            BrokerNotStarted: no Java, no jars, a busy port, or the broker ended; one line says which.
        """
        if self.pid is not None:
            return self
        runtime = self._runtime()
        self._prepare()
        for attempt in range(ATTEMPTS):
            try:
                self._launch(runtime, self._choose_port(attempt))
            except PortTaken:
                if self._given_port is not None or attempt == ATTEMPTS - 1:
                    raise
            else:
                return self
        raise AssertionError("unreachable")

    def stop(self, kill: bool = False) -> None:
        """End it; nothing happens when it does not run.

        Args:
            kill: A power cut: no shutdown work, and even temporary data stays for another `start()`.
        """
        if self._process is not None:
            self._process.stop(kill)
            self._process = None
        if self._given_dir is None and self._dir is not None and not kill:
            shutil.rmtree(self._dir, ignore_errors=True)
            self._dir = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def _folder(self) -> Path:
        if self._dir is None:
            self._dir = Path(tempfile.mkdtemp(prefix="clipper-kafka-"))
        return self._dir

    def _prepare(self) -> None:
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            (self._folder / "log4j2.properties").write_text(LOGGING, encoding="utf-8")
        except OSError as error:
            raise BrokerNotStarted(
                f"{error.filename}: {error.strerror}; give a data_dir that can be written"
            ) from error

    def _choose_port(self, attempt: int) -> int:
        if self._given_port is not None:
            return self._given_port
        remembered = self._folder / "port"
        if attempt == 0 and self._port is None and remembered.exists():
            return int(remembered.read_text(encoding="ascii"))
        return self._port if attempt == 0 and self._port is not None else free_port()

    def _launch(self, runtime: Runtime, port: int) -> None:
        self._port = port
        config = self._write_config(port)
        cluster_id = self._cluster_id() or self._format(runtime, config)
        logged = self.log_file.stat().st_size if self.log_file.exists() else 0
        temporary = self._folder if self._given_dir is None else None
        process = GuardedProcess(self._command(runtime, "kafka.Kafka", str(config)), self.log_file, temporary)
        if not wait_until_ready(self.connection, cluster_id, lambda: process.exit_code is None, START_S):
            code = process.exit_code
            process.stop(kill=True)
            raise self._failure(code, self._logged_since(logged))
        self._process = process
        (self._folder / "port").write_text(str(port), encoding="ascii")

    def _command(self, runtime: Runtime, main: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._folder / 'log4j2.properties'}"
        return runtime.command([*JVM, f"-Xmx{self._heap_mib}m", logging], main, *arguments)

    def _write_config(self, port: int) -> Path:
        node = Node(node_id=1, port=port, controller_port=free_port())
        config = self._folder / "server.properties"
        text = server_properties(node, [node], self._folder / "data", self._extra_properties)
        config.write_text(text, encoding="utf-8")
        return config

    def _cluster_id(self) -> str | None:
        """The id under which the data was formatted, None before the first start."""
        meta = self._folder / "data" / "meta.properties"
        if not meta.exists():
            return None
        lines = meta.read_text(encoding="utf-8").splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))

    def _format(self, runtime: Runtime, config: Path) -> str:
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        command = self._command(runtime, "kafka.tools.StorageTool", "format", f"--cluster-id={cluster_id}", "--config")
        done = subprocess.run([*command, str(config)], capture_output=True, text=True, check=False)
        with self.log_file.open("a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise self._failure(done.returncode, done.stdout + done.stderr)
        return cluster_id

    def _logged_since(self, position: int) -> str:
        with self.log_file.open("rb") as log:
            log.seek(position)
            return log.read().decode("utf-8", "replace")

    def _failure(self, exit_code: int | None, said: str) -> BrokerNotStarted:
        """What the broker's own words mean for the user."""
        if "Address already in use" in said:
            return PortTaken(f"port {self._port} is taken: give another one, or none (log: {self.log_file})")
        end = f"did not answer within {START_S:.0f} s" if exit_code is None else f"ended with exit code {exit_code}"
        return BrokerNotStarted(f"Kafka {KAFKA_VERSION} {end}: {_reason(said)} (log: {self.log_file})")


def _reason(said: str) -> str:
    """The innermost cause in a Java log, else its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by: ") or "Exception: " in line]
    return (causes or lines or ["it said nothing"])[-1].removeprefix("Caused by: ")
