"""Starts `clipper-stream` as a user does, and sees what it leaves behind."""

import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, redirect_stderr, redirect_stdout, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest

from clipper_agents import exits
from clipper_agents.cli import main as program
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

T = TypeVar("T")

CLIPPER_STREAM = Path(sys.executable).with_name("clipper-stream")
READY_S = 300.0
"""A start takes three seconds on an idle machine; other people's tests may share it."""
POLL_S = 0.05


def until(what: str, holds: Callable[[], T], within_s: float = READY_S) -> T:
    """The first true value of a condition in other processes; an AssertionError when there is none in time."""
    end_s = time.monotonic() + within_s
    while not (found := holds()):
        assert time.monotonic() < end_s, f"not within {within_s:.0f} s: {what}"
        time.sleep(POLL_S)
    return found


@contextmanager
def repeatedly(work: Callable[[], object], threads: int = 1, pause_s: float = POLL_S) -> Iterator[None]:
    """Call a function again and again in threads of its own until the end of the block, which raises its errors."""
    enough = threading.Event()

    def run_on() -> None:
        while not enough.wait(pause_s):
            work()

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(run_on) for _ in range(threads)]
        try:
            yield
        finally:
            enough.set()
    for one in running:
        one.result()


@contextmanager
def reserved_port() -> Iterator[int]:
    """A port of the loopback that nobody else is given during the block; one program at a time can listen there."""
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do, so that they may have it too
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


class RunningProcess(NamedTuple):
    """A process that cannot be mistaken for a later one with the same id."""

    pid: int
    started: str

    @property
    def runs(self) -> bool:
        """Whether it has not ended; one that nobody waited for has."""
        return not is_gone(self.pid) and stat_of(self.pid)[19:20] == [self.started]

    @property
    def command(self) -> str:
        try:
            return Path(f"/proc/{self.pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            return ""


def descendants(pid: int) -> set[RunningProcess]:
    """Every process that this one started, and those that they started."""
    found = set[RunningProcess]()
    with suppress(OSError):  # it ends meanwhile
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (task / "children").read_text().split()):
                started = stat_of(child)[19:20]
                found |= {RunningProcess(child, *started), *descendants(child)} if started else set()
    return found


def stat_of(pid: int) -> list[str]:
    """The fields behind the command's name, the state first; none of a process that there is not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return []


def is_gone(pid: int) -> bool:
    """Whether a process has ended, though nobody waited for it."""
    return stat_of(pid)[:1] in ([], ["Z"], ["X"])


@contextmanager
def slowed(pid: int, share: float = 0.25, period_s: float = 0.1) -> Iterator[None]:
    """Let a process and all that it starts run for a share of each period, as on a machine that is so much slower."""
    slow, turns = {RunningProcess(pid, *stat_of(pid)[19:20])}, count()

    def send(number: signal.Signals) -> None:
        for process in [one for one in slow if one.runs]:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)

    def hold() -> None:
        send(signal.SIGSTOP)
        begun_s = time.monotonic()
        if next(turns) % 10 == 0:  # which takes as long as a turn
            slow.update(descendants(pid))
        time.sleep(max(0.0, begun_s + (1 - share) * period_s - time.monotonic()))
        send(signal.SIGCONT)

    with repeatedly(hold, pause_s=share * period_s):
        yield


def environment(**settings: str) -> dict[str, str]:
    """This process's environment without settings of Kafka or of a deployment, and with those that are given.

    Without a gateway unless they say otherwise: tests that run beside each other would all have it at one port.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KAFKA_", "CLIPPER_"))}
    return kept | {"CLIPPER_GATEWAY_ENABLED": "false"} | settings


def environment_of(kafka: KafkaConnection, catalogue: Catalogue, **settings: str) -> dict[str, str]:
    """The environment of who uses these topics of this Kafka."""
    return environment(
        KAFKA_BOOTSTRAP_SERVERS=kafka.bootstrap,
        CLIPPER_KAFKA_PREFIX=catalogue.prefix,
        CLIPPER_KAFKA_PARTITIONS=str(catalogue.partitions),
        **settings,
    )


def _given(environ: Mapping[str, str] | None) -> dict[str, str]:
    return environment() if environ is None else {**environ}


class Program(AbstractContextManager["Program"]):
    """A `clipper-stream` command that runs in a folder, which keeps its output; it ends with all that it started.

    `through` is a command that starts it in its own place.
    """

    def __init__(
        self, *arguments: str, folder: Path, environ: Mapping[str, str] | None = None, through: Sequence[str] = ()
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.glob("*.stdout")))
        self._stdout, self._stderr = folder / f"{number}.stdout", folder / f"{number}.stderr"
        self._seen: set[RunningProcess] = set()
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self._process = subprocess.Popen(
                [*through, CLIPPER_STREAM, *arguments], cwd=folder, env=_given(environ), stdin=subprocess.DEVNULL,
                stdout=out, stderr=err,
            )  # fmt: skip

        self.pid, self.poll = self._process.pid, self._process.poll

    @property
    def code(self) -> int | None:
        return self._process.poll()

    @property
    def lines(self) -> list[str]:
        return self._stdout.read_text().splitlines()

    @property
    def log(self) -> str:
        return self._stderr.read_text(errors="replace")

    def ready(self) -> dict[str, str]:
        """Wait for its ready line; the fields of that line."""
        until("a ready line", lambda: self.lines or self.code is not None)
        assert self.lines, f"ended with {self.code}\n{self.log[-4000:]}"
        word, *fields = self.lines[0].split()
        assert word == "ready"
        return dict(field.split("=", 1) for field in fields)

    def children(self) -> set[RunningProcess]:
        """Every process below it, now."""
        found = descendants(self.pid)
        self._seen |= found
        return found

    def signal(self, number: signal.Signals) -> None:
        self.children()
        self._process.send_signal(number)

    def ended(self, within_s: float = 60.0) -> int:
        try:
            return self._process.wait(within_s)
        except subprocess.TimeoutExpired as error:
            raise AssertionError(f"{error}\n{self.log[-4000:]}") from error

    def __exit__(self, *_: object) -> None:
        self.signal(signal.SIGKILL)
        self.ended()
        for process in self._seen:
            if process.runs:
                os.kill(process.pid, signal.SIGKILL)


class Done(NamedTuple):
    code: int
    out: str
    err: list[str]


def run(*arguments: str, folder: Path, environ: Mapping[str, str] | None = None, within_s: float = READY_S) -> Done:
    done = subprocess.run(
        [CLIPPER_STREAM, *arguments], cwd=folder, env=_given(environ), stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=within_s, check=False,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr.splitlines())


def run_here(*arguments: str, folder: Path, environ: Mapping[str, str] | None = None, typed: str = "") -> Done:
    """Run a `clipper-stream` command as `run` does, but in this process, which spares the time of a start."""
    wanted, out, err = _given(environ), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patched, redirect_stdout(out), redirect_stderr(err):
        for name in os.environ.keys() - wanted.keys():
            patched.delenv(name)
        for name, value in wanted.items():
            patched.setenv(name, value)
        patched.setattr(sys, "path", [*sys.path])
        patched.setattr(sys, "stdin", io.StringIO(typed))
        patched.chdir(folder)
        before = {*sys.modules}
        code = program.main([*arguments])
        for name in {*sys.modules} - before:
            if str(folder) in str(getattr(sys.modules[name], "__file__", "")):  # another folder has one of that name
                del sys.modules[name]
    return Done(code, out.getvalue(), err.getvalue().splitlines())


@dataclass(frozen=True)
class Shell:
    """A terminal in a folder; commands, each a line or its words, run in this process."""

    folder: Path
    environ: Mapping[str, str]

    def run(self, *words: object, **settings: str) -> Done:
        arguments = shlex.split(str(words[0])) if len(words) == 1 else map(str, words)
        return run_here(*arguments, folder=self.folder, environ={**self.environ, **settings})

    def __call__(self, *words: object, code: int = exits.OK, said: str = "", **settings: str) -> list[str]:
        """The lines that a command prints; it ends with this code, and says this of errors."""
        done = self.run(*words, **settings)
        assert done.code == code, (words, done)
        assert said in "\n".join(done.err)
        return done.out.splitlines()

    def json(self, *words: object) -> list[Any]:
        """What a command prints as lines of JSON."""
        return [json.loads(line) for line in self(*words, "--json")]
