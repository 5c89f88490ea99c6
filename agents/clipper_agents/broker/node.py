"""One node of Apache Kafka: a folder, two ports and a JVM that does not outlive us.

Rules of this file:
- The JVM has a session of its own: Ctrl-C in a terminal reaches us and the workers, never the broker, so that the
  workers can still drain into it.
- A guard, a shell that reads from a pipe of ours, ends the JVM when the pipe closes: however we end, also by SIGKILL.
  PR_SET_PDEATHSIG would do it too, but it fires when the *thread* that started the JVM ends.
"""

import base64
import contextlib
import os
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from clipper_agents.broker.data_dir import BrokerNotStarted, DataDir, PortTaken
from clipper_agents.broker.properties import LOOPBACK, NodePorts, server_properties
from clipper_agents.broker.runtime import KAFKA_VERSION, KafkaRuntime
from clipper_topics.connection import KafkaConnection

STOP_S = 30.0
"""An orderly stop takes about a second; after so many the process is killed."""

GUARD = """\
read -r _ && exit
kill -s "$2" -- "-$1"
i=0
while kill -0 "$1" && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
kill -s KILL -- "-$1"
[ -z "$3" ] || rm -rf "$3"
"""
"""`sh -c GUARD guard PID SIGNAL FOLDER`: a line on standard input dismisses it, the end of the input sets it off."""


class GuardedProcess:
    """A process of which nothing is left when we are gone; it appends to a log file, and inherits descriptors.

    If we die a process with a `temporary` folder is killed at once and the folder removed; any other is asked to stop,
    and keeps its data.
    """

    def __init__(
        self, command: Sequence[str], log_file: Path, temporary: Path | None = None, keeps: Sequence[int] = ()
    ) -> None:
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=keeps
            )
        orphaned = ["KILL", str(temporary)] if temporary else ["TERM", ""]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self.pid), *orphaned],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def stop(self, kill: bool = False) -> None:
        """End it and wait for the end; with `kill` at once, without any shutdown work."""
        self.send(signal.SIGKILL if kill else signal.SIGTERM)
        self.send(signal.SIGCONT)  # a frozen one ends in order, too
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._guard.communicate(b"\n")

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


START_S = 120.0
"""A start takes three seconds on an idle machine and twenty on one with ten times the work it can do."""
STARTED = "Kafka Server started"
"""Logged when the broker has a leader and serves. A listening port says too little: it can be somebody else's."""
PROBE_EVERY_S = 0.05

# A small heap, and the first compiler tier only unless it is to run for long: the broker starts in half the time.
JVM = ("-Xms64m", "-Xss512k", "-XX:+UseSerialGC", "-XX:-UsePerfData", "-Djava.awt.headless=true")
FIRST_TIER_ONLY = "-XX:TieredStopAtLevel=1"


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeOptions:
    """What a node is started with; the folder of a `temporary` node goes when we die without stopping it."""

    heap_mib: int
    extra_properties: Mapping[str, object] = field(default_factory=dict)
    for_long: bool = False
    temporary: bool = False


class KafkaNode:
    """A node that can be started, stopped, killed and started again, always on its two ports."""

    def __init__(self, folder: DataDir, ports: NodePorts, options: NodeOptions, runtime: KafkaRuntime) -> None:
        self._folder, self._ports, self._options, self._runtime = folder, ports, options, runtime
        self._process: GuardedProcess | None = None
        self._logged_bytes = 0
        self.connection = KafkaConnection(f"{LOOPBACK}:{ports.broker}")
        self.log_file = folder.log_file

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process and self._process.exit_code is None else None

    def start(self) -> None:
        """Start it; returns when it answers.

        Raises:
            BrokerNotStarted: it ended, or did not answer in time; one line says which.
            PortTaken: it ended because somebody else listens on one of its ports.
        """
        if self.pid is None:
            self.launch()
            self.wait()

    def launch(self, cluster_id: str | None = None) -> None:
        """Start the JVM; `wait` says when it answers. The folder is formatted the first time, with this cluster id."""
        folder = self._folder
        with folder.locked() as lock:
            text = server_properties(self._ports, folder.records, self._options.extra_properties)
            folder.config_file.write_text(text, encoding="utf-8")
            if folder.cluster_id() is None:
                self._format(cluster_id or new_cluster_id())
            self._logged_bytes = folder.log_size()
            self._process = GuardedProcess(
                self._command("kafka.Kafka", str(folder.config_file)),
                folder.log_file,
                temporary=folder.path if self._options.temporary else None,
                keeps=(lock.fileno(),),
            )

    def wait(self) -> None:
        """Wait until it answers; errors are those of `start`."""
        end_s = time.monotonic() + START_S
        while self.pid is not None and time.monotonic() < end_s:
            if STARTED in self._folder.logged_since(self._logged_bytes):
                self._folder.remember_port(self._ports.broker)
                return
            time.sleep(PROBE_EVERY_S)
        code = self._process.exit_code if self._process else None
        self.stop(kill=True)
        raise self._failure(code, self._folder.logged_since(self._logged_bytes))

    def stop(self, kill: bool = False) -> None:
        """End it; nothing happens when it does not run. What it keeps stays for another `start`.

        `kill` is a power cut, without any shutdown work.
        """
        if self._process is not None:
            self._process.stop(kill)
            self._process = None

    def send(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send(number)

    def _command(self, main: str, *arguments: str) -> list[str]:
        tiers = () if self._options.for_long else (FIRST_TIER_ONLY,)
        heap, logging_file = f"-Xmx{self._options.heap_mib}m", self._folder.logging_file
        options = [*JVM, *tiers, heap, f"-Dlog4j2.configurationFile={logging_file}"]
        return self._runtime.command(options, main, *arguments)

    def _format(self, cluster_id: str) -> None:
        arguments = ("format", f"--cluster-id={cluster_id}", f"--config={self._folder.config_file}")
        command = self._command("kafka.tools.StorageTool", *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        with self._folder.log_file.open("a", encoding="utf-8") as log_file:
            log_file.write(done.stdout + done.stderr)
        if done.returncode != 0:
            raise self._failure(done.returncode, done.stdout + done.stderr)

    def _failure(self, exit_code: int | None, said: str) -> BrokerNotStarted:
        log_file = self.log_file
        if "Address already in use" in said:
            return PortTaken(f"port {self._ports.broker}, or the controller's, was taken: try again (log: {log_file})")
        end = f"did not answer within {START_S:.0f} s" if exit_code is None else f"ended with exit code {exit_code}"
        return BrokerNotStarted(f"Kafka {KAFKA_VERSION} {end}: {_reason(said)} (log: {log_file})")


def new_cluster_id() -> str:
    """As Kafka's own tool makes it: a random UUID in URL-safe base 64."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")


def _reason(said: str) -> str:
    """The innermost cause in a Java log, else its last line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    causes = [line for line in lines if line.startswith("Caused by: ") or "Exception: " in line]
    return (causes or lines or ["it said nothing"])[-1].removeprefix("Caused by: ")
