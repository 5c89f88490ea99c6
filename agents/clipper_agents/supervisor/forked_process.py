"""Starts worker processes as forks of a template, in a tenth of the time that Python and its imports take.

Rules of this file:
- A child is forked only when it would be the template's own program in the template's environment: libraries read
  variables (threads, paths) when they are imported. Any other command is executed.
- Where there is no template, or no longer, a child is executed: slower, and otherwise the same.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack

from clipper_agents.observability.logging import event
from clipper_agents.supervisor import worker_template
from clipper_agents.supervisor.process import LINE_BYTES, ChildSpec, RunningProgram, execute

log = logging.getLogger(__name__)

UNKNOWN_END = 255
"""Exit code of a child whose template ended first: nobody waited for it."""


class ForkedProcess:
    """A process that the template has forked; as `asyncio.subprocess.Process`, as far as a `ChildProcess` needs it."""

    def __init__(
        self, pid: int, resources: ExitStack, pidfd: int, status: socket.socket, streams: list[asyncio.StreamReader]
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
            await _readable(self._status)
            code = self._status.recv(worker_template.REQUEST_BYTES)
            if not code:
                await _readable(self._pidfd)
            self.returncode = int(code) if code else UNKNOWN_END
        return self.returncode


class WorkerTemplate:
    """The template process of one supervisor; `launch` starts a child, by it or without it.

    Args:
        program: The command that the template can stand for; children with another first part are executed.
        environment: The environment variables of the template, and of all its children.
    """

    def __init__(self, program: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self._program, self._environment = program, dict(environment)
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._has_forked = False

    @property
    def pid(self) -> int | None:
        """Its process id; None when there is none."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the template, where that is possible; it imports while others do something else."""
        if self._program != (sys.executable, "-P", "-m", worker_template.MAIN) or sys.platform != "linux":
            return
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._control.settimeout(0)
        module, descriptor = worker_template.__name__, str(theirs.fileno())
        with theirs:
            self._process = subprocess.Popen(  # noqa: S603 - this Python, and a module of this package
                [sys.executable, "-P", "-m", module, descriptor, worker_template.TITLE_ROOM],
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                process_group=0,
                pass_fds=[theirs.fileno()],
            )

    def close(self) -> None:
        """End the template; its children go on."""
        if self._process is not None and self._control is not None:
            self._control.close()
            self._process.kill()
            self._process.wait()
            self._process = self._control = None

    async def launch(self, spec: ChildSpec) -> RunningProgram:
        """Start a child.

        Raises:
            OSError: it cannot be started.
        """
        control, own = self._control, spec.command[: len(self._program)] == self._program
        if control is None or not own or spec.environment != self._environment:
            return await execute(spec)
        try:
            forked = await _fork(control, spec)
        except (OSError, EOFError) as error:
            event(log, "worker template failed, starting without it", logging.WARNING, child=spec.name, reason=error)
            if self._control is control:
                self._renew()
            return await execute(spec)
        self._has_forked = True
        return forked

    def _renew(self) -> None:
        """Start another template in place of one that failed, unless it never was of any use."""
        self.close()
        if self._has_forked:
            self._has_forked = False
            self.start()


async def _fork(control: socket.socket, spec: ChildSpec) -> ForkedProcess:
    with ExitStack() as kept, ExitStack() as given:
        status, their_status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        status.settimeout(0)
        kept.enter_context(status)
        given.enter_context(their_status)
        (their_stdin, stdin), (stdout, their_stdout), (stderr, their_stderr) = (os.pipe() for _ in range(3))
        for stack, descriptors in ((kept, [stdin]), (given, [their_stdin, their_stdout, their_stderr])):
            for descriptor in descriptors:
                stack.callback(os.close, descriptor)
        streams = [await _reader(stdout), await _reader(stderr)]
        passed = [their_status.fileno(), their_stdin, their_stdout, their_stderr]
        socket.send_fds(control, [json.dumps(spec.command).encode()], passed)
        given.close()
        await _readable(status)
        pid, descriptors, _, _ = socket.recv_fds(status, worker_template.REQUEST_BYTES, 1)
        if not pid:
            raise EOFError("it ended")
        kept.callback(os.close, descriptors[0])
        return ForkedProcess(int(pid), kept.pop_all(), descriptors[0], status, streams)


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=LINE_BYTES)
    pipe = os.fdopen(descriptor, "rb", 0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


async def _readable(source: socket.socket | int) -> None:
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(source, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(source)
