"""The units of three machines: their commands as processes, and what is left when a machine is lost and comes back."""

import os
import signal
from contextlib import ExitStack, suppress
from pathlib import Path

import httpx
from builders.compose import ROOT
from builders.systemd import CONFIG, command, environment
from e2e.gateways import WITH_GATEWAY
from e2e.programs import Program, Shell, environment_of, until

from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

UNITS = {
    "a": ("clipper-gateway", "clipper-router@", "clipper-hosts", "clipper-steward"),
    "b": ("clipper-router@", "clipper-hosts"),
    "c": ("clipper-hosts",),
}
SUM, SLOW_SUM = {"host.sum.1.b-0"}, {"host.slow-sum.1.a-0", "host.slow-sum.1.c-0"}
"""Hosts of each version while all three machines are there."""


class Machines(ExitStack):
    """Machines in folders; `shell` is an operator's."""

    def __init__(self, kafka: KafkaConnection, catalogue: Catalogue, folder: Path) -> None:
        super().__init__()
        self._kafka, self._catalogue, self._folder = kafka, catalogue, folder
        self.shell = Shell(folder, environment_of(kafka, catalogue))
        self.config = folder / "clipper.toml"
        text = (ROOT / "deploy/clipper.toml").read_text()
        self.config.write_text(text.replace("objective_ms = 200", "objective_ms = 60000"))

    def start(self, machine: str) -> list[Program]:
        roles = {"ROUTER_DATA": "router", "HOST_DATA": "host", "GATEWAY_CONSOLE": "gateway"}
        folders = {f"CLIPPER_{role}_DIR": str(self._folder / machine / name) for role, name in roles.items()}
        environ = environment_of(self._kafka, self._catalogue, **WITH_GATEWAY, **folders)
        programs = []
        for unit in (f"{name}.service" for name in UNITS[machine]):
            words = [str(self.config) if word == CONFIG else word for word in command(unit, machine)]
            ports = dict.fromkeys(environment(unit), "0")  # the three machines are one
            programs.append(Program(*words, folder=self._folder / machine / unit, environ=environ | ports))
            self.enter_context(programs[-1])
        return programs

    def ready(self, ref: str) -> set[str]:
        """Names of the hosts of a version that have said last that they are ready."""
        told = [line.split() for line in self.shell(f"model show {ref}") if line.startswith("host ")]
        return {host for _, host, state, *_ in told if state == "ready"}


def lose(programs: list[Program]) -> None:
    """As by a power cut: nobody has the time to say anything, or to start anything again."""
    for program in programs:
        program.signal(signal.SIGSTOP)
        for child in program.children():
            with suppress(ProcessLookupError):
                os.kill(child.pid, signal.SIGKILL)
        program.signal(signal.SIGKILL)


def answers(url: str) -> bool:
    """Ask for a sum, of the version that says so; the query waits for a minute."""
    body = {"input": [1, 2, 3], "models": ["sum:1"]}
    answer = httpx.post(f"{url}/v1/applications/sums/predict", json=body, timeout=90, trust_env=False).json()
    assert (answer.get("output"), answer.get("default", False)) == (6.0, False), answer
    return True


def test_three_machines_answer_while_one_of_them_is_lost_and_when_it_is_back(
    kafka: KafkaConnection, catalogue: Catalogue, tmp_path: Path
) -> None:
    with Machines(kafka, catalogue, tmp_path) as machines:
        machines.shell(f"topics create --config {machines.config}")
        machines.shell(f"apply --config {machines.config}")
        gateway, *_ = machines.start("a")
        second, _ = machines.start("b"), machines.start("c")
        url = gateway.ready()["http"]
        until("hosts of sum", lambda: machines.ready("sum:1") == SUM)
        until("hosts of slow-sum", lambda: machines.ready("slow-sum:1") == SLOW_SUM)
        assert answers(url)

        lose(second)
        assert answers(url), "the query waits until another router and another host have taken over"
        until("another machine hosts it", lambda: "host.sum.1.a-0" in machines.ready("sum:1"))

        machines.start("b")
        until("the other one does no more", lambda: answers(url) and machines.ready("sum:1") == SUM)
