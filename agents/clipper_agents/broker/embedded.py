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

from clipper_agents.broker.data_dir import DataDir
from clipper_agents.broker.errors import BrokerNotStarted, PortTaken
from clipper_agents.broker.process import GuardedProcess
from clipper_agents.broker.properties import LOOPBACK, Node, free_port, is_free, server_properties
from clipper_agents.broker.readiness import wait_until_ready
from clipper_agents.broker.runtime import KAFKA_VERSION, Runtime, find_runtime
from clipper_topics.connection import KafkaConnection

START_S = 120.0
"""A start takes three seconds on an idle machine and twenty on one with ten times the work it can do."""
ATTEMPTS = 5
"""Starts with new free ports, each of which somebody else can take first."""

# A small heap, and the first compiler tier only unless it is to run for long: the broker starts in half the time.
JVM = (
    "-Xms64m",
    "-Xss512k",
    "-XX:+UseSerialGC",
    "-XX:-UsePerfData",
    "-Xshare:auto",
    "-Djava.awt.headless=true",
)
FIRST_TIER_ONLY = "-XX:TieredStopAtLevel=1"


class EmbeddedBroker:
    """A real Kafka without Docker; as a context manager it starts and stops. It ends with this object at the latest.

        with EmbeddedBroker() as broker:
            ...  # clients connect to broker.bootstrap

    Args:
        data_dir: Keeps the records, the cluster id and the port from one start to the next; absent: a temporary
            folder, removed by `stop()`.
        port: Listen here; absent or 0: the port of the last start in this data_dir, else a free one.
        heap_mib: Largest Java heap, in MiB.
        extra_properties: Broker settings by their Kafka names, on top of ours.
        for_long: Compile as a production broker does: after a minute of work it takes half the processor time a
            request, and until then more.
        runtime: Finds the Java and the jars.
        ports: Gives a free port at each call.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        port: int | None = None,
        heap_mib: int = 512,
        extra_properties: Mapping[str, object] | None = None,
        *,
        for_long: bool = False,
        runtime: Callable[[], Runtime] = find_runtime,
        ports: Callable[[], int] = free_port,
    ) -> None:
        self._given_dir = Path(data_dir).absolute() if data_dir is not None else None
        self._given_port = port or None
        self._heap_mib = heap_mib
        self._extra_properties = dict(extra_properties or {})
        self._compiling = () if for_long else (FIRST_TIER_ONLY,)
        self._runtime = runtime
        self._ports = ports
        self._dir = DataDir(self._given_dir) if self._given_dir else None
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
        return self._folder.log_file

    def start(self) -> Self:
        """Start it and wait until it answers; nothing happens when it runs already.

        Raises:
            BrokerNotStarted: no Java, no jars, a busy port, or the broker ended; one line says which.
        """
        if self.pid is None:
            runtime = self._runtime()
            with self._folder.locked() as lock:
                self._launch_somewhere(runtime, lock.fileno())
        return self

    def stop(self, kill: bool = False) -> None:
        """End it; nothing happens when it does not run.

        Args:
            kill: A power cut: no shutdown work, and even temporary data stays for another `start()`.
        """
        if self._process is not None:
            self._process.stop(kill)
            self._process = None
        if self._given_dir is None and self._dir is not None and not kill:
            shutil.rmtree(self._dir.path, ignore_errors=True)
            self._dir = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def _folder(self) -> DataDir:
        if self._dir is None:
            self._dir = DataDir(Path(tempfile.mkdtemp(prefix="clipper-kafka-")))
        return self._dir

    def _launch_somewhere(self, runtime: Runtime, lock: int) -> None:
        """Launch it until nobody was faster to take one of its ports."""
        for attempt in range(1, ATTEMPTS + 1):
            port = self._next_port()
            try:
                self._launch(runtime, port, lock)
                break
            except PortTaken:
                if attempt == ATTEMPTS:
                    raise

    def _next_port(self) -> int:
        if self._given_port is not None and not is_free(self._given_port):
            raise PortTaken(f"port {self._given_port} of {LOOPBACK} is taken: give another one, or none")
        port = self._given_port or self._port or self._folder.remembered_port()
        return port if port is not None and is_free(port) else self._ports()

    def _launch(self, runtime: Runtime, port: int, lock: int) -> None:
        folder = self._folder
        self._port = port
        node = Node(node_id=1, port=port, controller_port=self._ports())
        text = server_properties(node, [node], folder.records, self._extra_properties)
        folder.config_file.write_text(text, encoding="utf-8")
        cluster_id = folder.cluster_id() or self._format(runtime)
        logged = folder.log_size()
        process = GuardedProcess(
            self._command(runtime, "kafka.Kafka", str(folder.config_file)),
            folder.log_file,
            temporary=None if self._given_dir else folder.path,
            keeps=(lock,),
        )
        if not wait_until_ready(self.connection, cluster_id, lambda: process.exit_code is None, START_S):
            code = process.exit_code
            process.stop(kill=True)
            raise self._failure(code, folder.logged_since(logged))
        self._process = process
        folder.remember_port(port)

    def _command(self, runtime: Runtime, main: str, *arguments: str) -> list[str]:
        logging = f"-Dlog4j2.configurationFile={self._folder.logging_file}"
        return runtime.command([*JVM, *self._compiling, f"-Xmx{self._heap_mib}m", logging], main, *arguments)

    def _format(self, runtime: Runtime) -> str:
        """Give the empty folder a new cluster id."""
        cluster_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        arguments = ("format", f"--cluster-id={cluster_id}", f"--config={self._folder.config_file}")
        command = self._command(runtime, "kafka.tools.StorageTool", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with self.log_file.open("a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise self._failure(done.returncode, done.stdout + done.stderr)
        return cluster_id

    def _failure(self, exit_code: int | None, said: str) -> BrokerNotStarted:
        """What the broker's own words mean for the user."""
        if "Address already in use" in said:
            return PortTaken(f"port {self._port}, or the controller's, was taken: try again (log: {self.log_file})")
        end = f"did not answer within {START_S:.0f} s" if exit_code is None else f"ended with exit code {exit_code}"
        return BrokerNotStarted(f"Kafka {KAFKA_VERSION} {end}: {_reason(said)} (log: {self.log_file})")


def _reason(said: str) -> str:
    """The innermost cause in a Java log, else its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by: ") or "Exception: " in line]
    return (causes or lines or ["it said nothing"])[-1].removeprefix("Caused by: ")
