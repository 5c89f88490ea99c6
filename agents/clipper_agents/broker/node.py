"""One node of Apache Kafka: a folder, two ports and a JVM."""

import base64
import signal
import subprocess
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipper_agents.broker.data_dir import DataDir
from clipper_agents.broker.errors import BrokerNotStarted, PortTaken
from clipper_agents.broker.process import GuardedProcess
from clipper_agents.broker.properties import LOOPBACK, Node, server_properties
from clipper_agents.broker.readiness import knows, wait_until
from clipper_agents.broker.runtime import KAFKA_VERSION, KafkaRuntime
from clipper_topics.connection import KafkaConnection

START_S = 120.0
"""A start takes three seconds on an idle machine and twenty on one with ten times the work it can do."""

# A small heap, and the first compiler tier only unless it is to run for long: the broker starts in half the time.
JVM = ("-Xms64m", "-Xss512k", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true")
FIRST_TIER_ONLY = "-XX:TieredStopAtLevel=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Making:
    """How the JVM of a node is made; the folder of a `temporary` node goes when we die without stopping it."""

    heap_mib: int
    extra_properties: Mapping[str, object] = field(default_factory=dict)
    for_long: bool = False
    temporary: bool = False

    def options(self, folder: DataDir) -> list[str]:
        """Options of the JVM."""
        compiling = () if self.for_long else (FIRST_TIER_ONLY,)
        return [*JVM, *compiling, f"-Xmx{self.heap_mib}m", f"-Dlog4j2.configurationFile={folder.logging_file}"]


def new_cluster_id() -> str:
    """As Kafka's own tool makes it: a random UUID in URL-safe base 64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


class KafkaNode:
    """A node that can be started, stopped, killed, frozen and started again, always on its two ports.

    Attributes:
        connection: How clients reach it.
        log_file: Its warnings and errors.
    """

    def __init__(
        self,
        folder: DataDir,
        node: Node,
        voters: Sequence[Node],
        making: Making,
        runtime: KafkaRuntime,
        cluster_id: str,
    ) -> None:
        self._folder, self._node, self._voters, self._making = folder, node, voters, making
        self._runtime, self._cluster_id = runtime, cluster_id
        self._process: GuardedProcess | None = None
        self._logged = 0
        self.connection = KafkaConnection(f"{LOOPBACK}:{node.port}")
        self.log_file = folder.log_file

    @property
    def pid(self) -> int | None:
        """Process id, None when it does not run."""
        return self._process.pid if self._process and self._process.exit_code is None else None

    def start(self) -> None:
        """Start it again, where and with what it was; returns when it answers.

        Raises:
            BrokerNotStarted: it ended, or somebody else took one of its ports.
        """
        if self.pid is None:
            self.launch()
            self.wait()

    def launch(self) -> None:
        """Start the JVM; `wait` says when it answers. The folder is formatted the first time.

        Raises:
            BrokerNotStarted: the folder is another broker's, cannot be written, or cannot be formatted.
        """
        folder = self._folder
        with folder.locked() as lock:
            text = server_properties(self._node, self._voters, folder.records, self._making.extra_properties)
            folder.config_file.write_text(text, encoding="utf-8")
            if folder.cluster_id() is None:
                self._format()
            self._logged = folder.log_size()
            self._process = GuardedProcess(
                self._runtime.command(self._making.options(folder), "kafka.Kafka", str(folder.config_file)),
                folder.log_file,
                temporary=folder.path if self._making.temporary else None,
                keeps=(lock.fileno(),),
            )

    def wait(self, brokers: int = 1) -> None:
        """Wait until it answers, and knows so many brokers of its cluster, itself included.

        Raises:
            BrokerNotStarted: it ended, or did not answer in time; one line says which.
            PortTaken: it ended because somebody else listens on one of its ports.
        """
        if wait_until(knows(self._cluster_id, brokers), self.connection, START_S, alive=lambda: self.pid is not None):
            self._folder.remember_port(self._node.port)
            return
        code = self._process.exit_code if self._process else None
        self.stop(kill=True)
        raise self._failure(code, self._folder.logged_since(self._logged))

    def stop(self, kill: bool = False) -> None:
        """End it; nothing happens when it does not run. What it keeps stays for another `start`.

        A frozen one is thawed, so that it can end in order; `kill` is a power cut, without any shutdown work.
        """
        if self._process is not None:
            self.thaw()
            self._process.stop(kill)
            self._process = None

    def freeze(self) -> None:
        """Give it no more processor time (SIGSTOP): its ports still take connections, and nobody answers."""
        if self._process is not None:
            self._process.send(signal.SIGSTOP)

    def thaw(self) -> None:
        """Resume the frozen node (SIGCONT)."""
        if self._process is not None:
            self._process.send(signal.SIGCONT)

    def _format(self) -> None:
        """Give the empty folder its cluster id."""
        arguments = ("format", f"--cluster-id={self._cluster_id}", f"--config={self._folder.config_file}")
        command = self._runtime.command(self._making.options(self._folder), "kafka.tools.StorageTool", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with self._folder.log_file.open("a", encoding="utf-8") as log:
            log.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise self._failure(done.returncode, done.stdout + done.stderr)

    def _failure(self, exit_code: int | None, said: str) -> BrokerNotStarted:
        """Return the node's own error message in terms of the user."""
        log_file: Path = self._folder.log_file
        if "Address already in use" in said:
            return PortTaken(f"port {self._node.port}, or the controller's, was taken: try again (log: {log_file})")
        end = f"did not answer within {START_S:.0f} s" if exit_code is None else f"ended with exit code {exit_code}"
        return BrokerNotStarted(f"Kafka {KAFKA_VERSION} {end}: {_reason(said)} (log: {log_file})")


def _reason(said: str) -> str:
    """The innermost cause in a Java log, else its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by: ") or "Exception: " in line]
    return (causes or lines or ["it said nothing"])[-1].removeprefix("Caused by: ")
