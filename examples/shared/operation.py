"""An operator as a script: starts the pipeline as a user does, types commands, and shows them with their output."""

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Self

from clipper_agents.control.state import read_control
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.connection import KafkaConnection

SETTLE_S = 3.0
"""After a command, hosts start or end; the seconds outside of this are the quiet ones, what latencies are compared
with. They lie between the others, so whatever else this machine does falls on both."""
PATIENCE_S = 240.0
"""For a decision of the rule; an idle machine needs a tenth of it."""
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


class RolloutOperator(Operator):
    """Types commands, and waits for what the rollout rule makes of them.

    Args:
        bootstrap: Of the Kafka.
        folder: Where the commands run.
        application: Whose changes are waited for.

    Attributes:
        slowness: How many times longer a decision may take than at the rate of queries that was wanted.
    """

    def __init__(self, bootstrap: str, folder: Path, application: str) -> None:
        super().__init__(bootstrap, folder, {"CLIPPER_KAFKA_PARTITIONS": "2"})
        self._application = application
        self._kafka, self._catalogue = KafkaConnection(bootstrap), Catalogue(partitions=2)
        self._seen, self.slowness = 1, 1.0
        self._at_work_s: list[tuple[float, float]] = []

    async def run(self, *arguments: str) -> str:
        """Run a command, show it with its output, and return the output; errors as of `Operator`."""
        began_s = time.time()
        output = await super().run(*arguments)
        self._at_work_s.append((began_s, time.time() + SETTLE_S))
        return output

    def is_quiet(self, second: int) -> bool:
        """Say whether no command ran in a second since the epoch, or shortly before it."""
        return not any(began_s < second + 1 and second < ended_s for began_s, ended_s in self._at_work_s)

    async def history(self) -> list[Change]:
        """All changes of the application, oldest first."""
        state = await read_control(self._kafka, self._catalogue)
        return list(state.history(self._application).values())

    async def wait_for(self, what: str, found: Callable[[Change], bool]) -> Change:
        """Wait for such a change after the last one that was waited for; show every change that comes.

        Raises:
            SystemExit: there is no such change within `PATIENCE_S`, or longer where fewer queries are sent.
        """
        patience_s = PATIENCE_S * self.slowness
        end_s = time.monotonic() + patience_s
        while time.monotonic() < end_s:
            for change in [one for one in await self.history() if one.revision > self._seen]:
                print(f"    {line_of(change)}", flush=True)
                self._seen = change.revision
                if found(change):
                    return change
            await asyncio.sleep(0.5)
        raise SystemExit(f"not within {patience_s:.0f} s: {what}")


def line_of(change: Change) -> str:
    """A change in one line."""
    numbers = {name: round(value, 4) if isinstance(value, float) else value for name, value in change.numbers.items()}
    said = f" {json.dumps(numbers)}" if numbers else ""
    return f"revision {change.revision}: {change.command} {change.model or ''} by {change.by}{said}"


def decided(command: str, ref: str) -> Callable[[Change], bool]:
    """Whether a change is the one of this command about this version."""
    return lambda change: (change.command, change.model) == (command, ref)
