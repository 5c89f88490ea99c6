"""An operator as a script: starts the pipeline as a user does, types commands, and shows them with their output."""

import asyncio
import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Self

COMMAND = Path(sys.executable).with_name("clipper-stream")
LOG_TAIL = 4_000


class PipelineProcess:
    """`clipper-stream up` as a process of its own, with an embedded Kafka; ended with the block.

    Args:
        folder: Where it runs; its log is `up.log`.
        configuration: Of the deployment, TOML.
    """

    def __init__(self, folder: Path, configuration: str) -> None:
        self._folder = folder
        (folder / "clipper.toml").write_text(configuration)

    def __enter__(self) -> Self:
        self._log = (self._folder / "up.log").open("wb")
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            [COMMAND, "up", "--config", "clipper.toml"],
            cwd=self._folder,
            stdout=subprocess.PIPE,
            stderr=self._log,
            process_group=0,  # Ctrl-C in a terminal ends this program, which ends the pipeline in order
        )
        return self

    def wait_ready(self) -> str:
        """Wait until the pipeline serves; returns the address of its Kafka.

        Raises:
            SystemExit: the process ended instead.
        """
        assert self._process.stdout is not None
        line = self._process.stdout.readline().decode()
        if not line.startswith("ready bootstrap="):
            self._process.wait()
            raise SystemExit((self._folder / "up.log").read_text()[-LOG_TAIL:])
        print(f"$ clipper-stream up\n{line}", end="", flush=True)
        return line.split("=", 1)[1].split()[0]

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()
        self._log.close()


class Operator:
    """Types commands.

    Args:
        bootstrap: Address of the Kafka.
        folder: Where the commands run.
        environ: Added to the environment of the commands.
        may_fail: Commands whose exit code does not mean that they failed.
    """

    def __init__(
        self, bootstrap: str, folder: Path, environ: Mapping[str, str], may_fail: Collection[str] = ("status",)
    ) -> None:
        self._folder, self._may_fail = folder, may_fail
        self._environ = {**os.environ, "KAFKA_BOOTSTRAP_SERVERS": bootstrap, **environ}

    async def run(self, *arguments: str) -> str:
        """Run a command, show it with its output, and return the output.

        Raises:
            SystemExit: the command failed.
        """
        print(f"\n$ clipper-stream {' '.join(arguments)}", flush=True)
        process = await asyncio.create_subprocess_exec(
            COMMAND, *arguments, cwd=self._folder, env=self._environ,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        output = (await process.communicate())[0].decode()
        print(output, end="", flush=True)
        if process.returncode and arguments[0] not in self._may_fail:
            raise SystemExit(f"clipper-stream {' '.join(arguments)} ended with {process.returncode}")
        return output
