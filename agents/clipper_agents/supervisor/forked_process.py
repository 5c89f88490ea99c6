"""Starts workers as forks of a process that has imported what they need, in a tenth of the time that imports take.

The fork server is multiprocessing's. A worker is no `Process` of multiprocessing, though: that would import the
`__main__` of the supervisor, and has no standard streams of its own.

Rules of this file:
- A child is forked only when it would be the worker program in the template's environment: libraries read variables
  (threads, paths) when they are imported. Any other command, and any child without a fork server, is executed.
- A worker is as if it were executed: its own standard streams, process group, title and random state.
- Signals go through a pidfd, opened before the child does anything: no pid is signalled after its reuse.
"""

import asyncio
import atexit
import ctypes
import gc
import logging
import multiprocessing.forkserver
import os
import pickle
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

from clipper_agents.observability.logging import event
from clipper_agents.supervisor.process import LINE_BYTES, ChildSpec, RunningProgram, execute

MAIN = "clipper_agents.cli.main"
PRELOADED = (
    MAIN,
    "clipper_agents.supervisor.forked_process",
    "clipper_agents.router.app",
    "clipper_agents.host.app",
    "clipper_agents.rollout.worker",
    "clipper_agents.kafka.startup_check",
    # what the libraries import at their first use
    "typer.rich_utils",
    "numpy.random",
    "encodings.idna",
    "faust.app.router",
    "faust.events",
    "faust.fixups.django",
    "faust.tables.objects",
    "faust.tables.sets",
    "faust.topics",
    "faust.transport.utils",
    "faust.worker",
)
"""Of this project and its libraries only; a model's module may change on the disk before the next start. A gateway
imports its own libraries: grpc is not made to be forked. None of them may start a thread."""
UNKNOWN_END = 255
"""Exit code of a child whose fork server ended first: nobody waited for it."""

log = logging.getLogger(__name__)


class ForkedProcess:
    """A forked child; as `asyncio.subprocess.Process`, as far as a `ChildProcess` needs it.

    `resources` are closed at its end; `status` is the pipe on which the fork server says how it ended.
    """

    def __init__(
        self, pid: int, pidfd: int, status: int, streams: list[asyncio.StreamReader], resources: ExitStack
    ) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.stdout: asyncio.StreamReader | None = streams[0]
        self.stderr: asyncio.StreamReader | None = streams[1]
        self._pidfd, self._status = pidfd, status
        self._ended = asyncio.create_task(self._wait(resources), name=f"wait for {pid}")

    async def wait(self) -> int:
        """Wait for its end; the exit code, negative for a signal."""
        return await asyncio.shield(self._ended)

    def send_signal(self, number: int) -> None:
        """Send a signal to it, and to no later process of the same id."""
        if self.returncode is None:
            signal.pidfd_send_signal(self._pidfd, number)

    async def _wait(self, resources: ExitStack) -> int:
        with resources:
            try:
                self.returncode = await _read_number(self._status)
            except EOFError:
                await _readable(self._pidfd)
                self.returncode = UNKNOWN_END
        return self.returncode


class _Worker(NamedTuple):
    """What the fork server runs in the child: a command line of this program."""

    command: tuple[str, ...]

    def _bootstrap(self, _: int) -> int:
        os.setpgid(0, 0)
        for standard, descriptor in enumerate(multiprocessing.forkserver.get_inherited_fds() or ()):
            os.dup2(descriptor, standard)
            os.close(descriptor)
        os.environ.pop("PYTHONSAFEPATH", None)  # which stood for the option -P
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the server's was closed
        show_command(" ".join(self.command))
        sys.modules["numpy.random"].seed()
        gc.freeze()
        program = sys.modules[MAIN]
        sys.argv = [str(program.__file__), *self.command[self.command.index(MAIN) + 1 :]]
        code: int = program.main(sys.argv[1:])
        atexit._run_exitfuncs()  # noqa: SLF001 - the server ends a child at once
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        return code


class WorkerTemplate:
    """The fork server of one supervisor; `launch` starts a child, by it or without it."""

    def __init__(self, program: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._program, self._environment = program, dict(environment)
        self._inherited = {**environment, "PYTHONSAFEPATH": "1"}
        self._server: Any = None  # multiprocessing.forkserver.ForkServer, of which stubs have the public part

    @property
    def pid(self) -> int | None:
        """Process id of the server; None when there is none."""
        return self._server._forkserver_pid if self._server else None  # noqa: SLF001 - public functions know one server a process

    def start(self) -> None:
        """Start the server, where that is possible; it imports while others do something else."""
        if self._program != (sys.executable, "-P", "-m", MAIN) or sys.platform != "linux":
            return
        server = multiprocessing.forkserver.ForkServer()
        server.set_forkserver_preload([*PRELOADED])
        try:
            with _environment(self._inherited):
                server.ensure_running()
        except OSError as error:  # TMPDIR may be too long a path for its socket
            event(log, "no fork server, processes start without it", logging.WARNING, reason=error)
        else:
            self._server = server

    def close(self) -> None:
        """End the server; its children go on."""
        if self._server is not None:
            if self.pid is not None:
                os.kill(self.pid, signal.SIGKILL)
            self._server._stop()  # noqa: SLF001 - the same
            self._server = None

    async def launch(self, spec: ChildSpec) -> RunningProgram:
        own = spec.command[: len(self._program)] == self._program
        if self._server is None or not own or spec.environment != self._environment:
            return await execute(spec)
        try:
            return await self._fork(self._server, spec)
        except (OSError, EOFError) as error:
            event(log, "fork server failed, starting without it", logging.WARNING, child=spec.name, reason=error)
            return await execute(spec)

    async def _fork(self, server: Any, spec: ChildSpec) -> ForkedProcess:
        with ExitStack() as kept, ExitStack() as given:
            (their_stdin, stdin), (stdout, their_stdout), (stderr, their_stderr) = (os.pipe() for _ in range(3))
            passed = [their_stdin, their_stdout, their_stderr]
            for stack, descriptors in ((kept, [stdin]), (given, passed)):
                for descriptor in descriptors:
                    stack.callback(os.close, descriptor)
            streams = [await _reader(stdout), await _reader(stderr)]
            with _environment(self._inherited):  # of another server, should this have ended
                status, request = server.connect_to_new_process(passed)
            kept.callback(os.close, status)
            with os.fdopen(request, "wb") as worker:
                given.close()
                pid = await _read_number(status)
                pidfd = os.pidfd_open(pid)
                kept.callback(os.close, pidfd)
                pickle.dump({}, worker)
                pickle.dump(_Worker(spec.command), worker)
            return ForkedProcess(pid, pidfd, status, streams, kept.pop_all())


def show_command(command: str) -> None:
    """Have `ps` show a command line in place of the one that this process was started with, as far as it has room."""
    begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    room = end - begin
    ctypes.memmove(begin, command.encode().replace(b" ", b"\0")[: room - 1].ljust(room, b"\0"), room)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """Have processes that are started in the block inherit these variables: the fork server takes none."""
    before = dict(os.environ)
    try:
        os.environ.clear()
        os.environ.update(variables)
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    pipe = os.fdopen(descriptor, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


async def _read_number(descriptor: int) -> int:
    """What the fork server says of a child: first its pid, then its exit code."""
    await _readable(descriptor)
    number: int = multiprocessing.forkserver.read_signed(descriptor)
    return number


async def _readable(descriptor: int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
