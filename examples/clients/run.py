"""Clients in other languages ask the pipeline, learn and are acknowledged; clients that others wrote ask a gateway.

    make conformance
    make conformance ARGS=--long   # `http_judges` make 20,000 requests and more

The clients whose toolchain is not installed are named and left out. Their packages come from the registries of Go,
Maven, npm and Python the first time.
"""

import argparse
import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from examples.clients import http_judges
from examples.shared.operation import PipelineProcess

CLIENTS = Path(__file__).parent
CONFIGURATION = CLIENTS.parent / "clipper.toml"
BUILD_S, RUN_S = 600.0, 180.0
QUERY = ("sums", "[1, 2]", "3")
"""Application, input and label."""


@dataclass(frozen=True, kw_only=True)
class ClientProgram:
    """The client of a language, in the folder of that name.

    Attributes:
        language: Name of the folder.
        tools: Commands that have to be installed.
        build: Command that fetches and builds.
        run: Command that runs it; its arguments are the address, and those of `QUERY`.
    """

    language: str
    tools: tuple[str, ...]
    build: tuple[str, ...]
    run: tuple[str, ...]

    @property
    def missing(self) -> list[str]:
        """The tools that are not installed."""
        return [tool for tool in self.tools if shutil.which(tool) is None]

    def exchange(self, bootstrap: str, folder: Path) -> list[str]:
        """Build and run a copy of it in a folder that does not exist, and return the lines that it prints."""
        shutil.copytree(CLIENTS / self.language, folder)
        self._command(self.build, folder, BUILD_S)
        return plain_lines(self._command((*self.run, *self._arguments(bootstrap)), folder, RUN_S))

    def _arguments(self, bootstrap: str) -> Sequence[str]:
        arguments = (bootstrap, *QUERY)
        if self.language == "java":  # all in one, as Maven takes them
            return ["-Dexec.args=" + " ".join(f"'{one}'" for one in arguments)]
        return arguments

    def _command(self, command: Sequence[str], folder: Path, within_s: float) -> str:
        """Run a command in a folder, and return what it prints.

        Raises:
            SystemExit: it fails.
        """
        done = subprocess.run(  # noqa: S603 - our own commands
            command, cwd=folder, capture_output=True, text=True, timeout=within_s, check=False
        )
        if done.returncode:
            raise SystemExit(f"{self.language}: {' '.join(command)} ended with {done.returncode}\n{done.stderr}")
        return done.stdout


PROGRAMS = (
    ClientProgram(language="go", tools=("go",), build=("go", "build", "-o", "/dev/null", "."), run=("go", "run", ".")),
    ClientProgram(
        language="java",
        tools=("javac", "mvn"),
        build=("mvn", "-q", "-B", "compile"),
        run=("mvn", "-q", "-B", "exec:java"),
    ),
    ClientProgram(
        language="javascript",
        tools=("node", "npm"),
        build=("npm", "ci", "--no-audit", "--no-fund"),
        run=("node", "client.js"),
    ),
)


def plain_lines(output: str) -> list[str]:
    """Return the lines of an output without codes of a terminal, of which Maven always prints some."""
    return [line for line in re.sub(r"\x1b\[[0-9;]*m", "", output).splitlines() if line]


def problem(lines: Sequence[str]) -> str | None:
    """Return what is wrong with the prediction and the acknowledgement that a client printed; None when all is well."""
    try:
        prediction, ack = map(json.loads, lines)
    except ValueError:
        return f"it printed {len(lines)} lines, and not a prediction and an acknowledgement"
    if prediction["output"] != float(QUERY[-1]) or prediction.get("default"):
        return f"not the sum: {lines[0]}"
    if (ack["query_id"], ack["outcome"]) != (prediction["query_id"], "applied"):
        return f"not acknowledged: {lines[1]}"
    return None


def failed_clients() -> list[str]:
    """Run every client whose toolchain is installed, and return the languages of those that failed."""
    failed = []
    patient = CONFIGURATION.read_text().replace("objective_ms = 200 ", "objective_ms = 60000 ")
    with tempfile.TemporaryDirectory() as folder, PipelineProcess(Path(folder), patient) as pipeline:
        bootstrap = pipeline.wait_ready()
        for program in PROGRAMS:
            if program.missing:
                print(f"{program.language}: not run, not installed: {', '.join(program.missing)}", flush=True)
                continue
            lines = program.exchange(bootstrap, Path(folder) / program.language)
            print("\n".join(lines), flush=True)
            wrong = problem(lines)
            print(f"{program.language}: {wrong or 'ok'}", flush=True)
            failed += [program.language] if wrong else []
    return failed


def main() -> None:
    """Run all clients that can be run; fail when one fails."""
    parser = argparse.ArgumentParser(description="Clients that others wrote ask the pipeline and its gateway.")
    parser.add_argument("--long", action="store_true", help=http_judges.LONG_HELP)
    requests = http_judges.LONG if parser.parse_args().long else http_judges.QUICK
    if failed := [*failed_clients(), *http_judges.failed_judges(requests)]:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
