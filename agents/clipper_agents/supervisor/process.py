"""One run of a child process; and in the child, the watch over the supervisor that started it.

Rules of this file:
- Signals go to the child's own pid, and only while it has not been waited for: a pid is never signalled after reuse.
- The child is in a process group of its own, so that Ctrl-C in a terminal reaches the supervisor alone.
- Of the child's standard output the ready line is parsed, everything else is passed on like its standard error.
"""

import asyncio
import contextlib
import os
import re
import signal
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from clipper_agents.observability.logging import child_line
from clipper_stream.errors import SetupError

LAST_S = 1.0
"""Time to drain after the supervisor is gone. The hosts go too, and perhaps the broker, so most of it would be in vain;
and the next supervisor's routers wait for the data directory."""
TAIL_LINES = 20
STACK_LINE = re.compile(r'(Current thread|Thread) 0x|  File ".*", line \d+ in |Extension modules: ')
"""What `faulthandler` writes below the sentence that says what is wrong: as many lines as the threads have frames."""
LINE_BYTES = 1024 * 1024


class ChildNotReady(SetupError):
    """A child ended before it was ready, or was not ready in time; the message has its last words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildSpec:
    """What to start, under which unique name; without an environment of its own in the supervisor's."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str] | None = None
    ready_s: float = 150.0
    """Within so long it prints its ready line: five hosts that import scikit-learn at once on two busy cores take one
    minute."""
    drain_s: float = 25.0
    """From SIGTERM to SIGKILL; more than a worker gives itself."""


class RunningProgram(Protocol):
    """What a `ChildProcess` needs of a process: `asyncio.subprocess.Process`, or one that was forked."""

    pid: int
    stdout: asyncio.StreamReader | None
    stderr: asyncio.StreamReader | None

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int: ...

    def send_signal(self, number: int, /) -> None: ...


Launch = Callable[[ChildSpec], Awaitable[RunningProgram]]
"""Starts the command of a spec, or raises OSError; the child's standard input ends with this process."""


async def execute(spec: ChildSpec) -> RunningProgram:
    """Start the command as a program of its own."""
    return await asyncio.create_subprocess_exec(
        *spec.command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        limit=LINE_BYTES,
        env=spec.environment,
        process_group=0,
    )


class ChildProcess:
    """A process that has been started. `echo` gets every line that it prints, but the ready line.

    Attributes:
        ready: Fields of the ready line (`role`, `instance`, `metrics`, ...), once it was printed.
        tail: The last lines of its standard error, without stacks of threads.
    """

    def __init__(self, spec: ChildSpec, process: RunningProgram, echo: Callable[[str], None]) -> None:
        self.spec, self.pid = spec, process.pid
        self.ready: asyncio.Future[dict[str, str]] = asyncio.get_running_loop().create_future()
        self.tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._process, self._echo = process, echo
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = (
            asyncio.create_task(_each_line(process.stdout, self._on_stdout)),
            asyncio.create_task(_each_line(process.stderr, self._on_stderr)),
        )

    async def wait(self) -> int:
        """Wait for its end and for its last words; the exit code, negative for a signal."""
        code = await self._process.wait()
        await asyncio.gather(*self._readers)
        self.ready.cancel()
        return code

    async def stop(self) -> None:
        """SIGTERM, then SIGKILL when it does not end within `drain_s`."""
        self._send(signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.spec.drain_s):
                await self._process.wait()
            return
        self.kill()
        await self._process.wait()

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def _on_stdout(self, line: str) -> None:
        word, *pairs = line.split()
        if word == "ready" and not self.ready.done():
            self.ready.set_result({key: value for key, _, value in (pair.partition("=") for pair in pairs)})
        else:
            self._on_stderr(line)

    def _on_stderr(self, line: str) -> None:
        if not STACK_LINE.match(line):
            self.tail.append(line)
        self._echo(child_line(self.spec.name, line))


async def _each_line(source: asyncio.StreamReader, handle: Callable[[str], None]) -> None:
    while True:
        try:
            line = await source.readline()
        except ValueError:  # longer than LINE_BYTES: asyncio has dropped it, reading goes on behind it
            continue
        if not line:
            return
        if text := line.decode("utf-8", "replace").rstrip():
            handle(text)


def end_with_stdin(descriptor: int = 0, terminate: Callable[[], None] | None = None) -> threading.Thread:
    """Watch standard input from a daemon thread; at its end drain as on SIGTERM, and after `LAST_S` end anyway.

    Args:
        descriptor: File descriptor to watch. Not `sys.stdin`: a thread that waits in its lock breaks the shutdown.
        terminate: Called instead of that.
    """

    def watch() -> None:
        while os.read(descriptor, 1024):
            pass
        (terminate or _terminate)()

    thread = threading.Thread(target=watch, name="parent watch", daemon=True)
    thread.start()
    return thread


def _terminate() -> None:
    last = threading.Timer(LAST_S, os._exit, args=(1,))
    last.daemon = True
    last.start()
    os.kill(os.getpid(), signal.SIGTERM)
