"""All children of one process: started together, restarted when they end unexpectedly, ended together."""

import asyncio
import contextlib
import logging
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any, Self

from clipper_agents import exits
from clipper_agents.observability.logging import event
from clipper_agents.supervisor.process import ChildNotReady, ChildProcess, ChildSpec, Launch, execute
from clipper_stream.errors import UnknownName

FIRST_STARTS = 3
"""A child that was never ready is given up after so many starts: what it needs is another configuration."""
NO_WORDS = "it said nothing"
SHOWN_LINES, SHOWN_CHARACTERS = 3, 300
"""Of a child's last words; all of them were passed on when they were said."""

log = logging.getLogger(__name__)


def to_stderr(line: str) -> None:
    """Pass a child's line on; standard output stays free for results."""
    sys.stderr.write(f"{line}\n")


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """None, then exponential, bounded, and back at the start after a calm run.

    >>> [Backoff().delay_s(failures) for failures in (1, 2, 3, 10)]
    [0.0, 0.5, 1.0, 30.0]
    """

    first_s: float = 0.5
    factor: float = 2.0
    longest_s: float = 30.0
    calm_s: float = 5.0
    """A child that served for so long starts again at once: a start costs a few tenths of a second of one core."""

    def delay_s(self, failures: int) -> float:
        """The wait after so many failures in a row, the first is 1."""
        # Beyond 64 doublings the bound has long been reached, and a float would overflow.
        return min(self.longest_s, self.first_s * self.factor ** min(failures - 2, 64)) if failures > 1 else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnvironment:
    """What a supervisor takes from outside: waits, a clock, who starts a child, and who gets every line it prints."""

    backoff: Backoff = field(default_factory=Backoff)
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    echo: Callable[[str], None] = to_stderr
    launch: Launch = execute


class Supervisor:
    """Keeps children by name. As a context manager it leaves none behind.

        async with Supervisor() as supervisor:
            await supervisor.start([ChildSpec(name="router-0", command=(...))])

    Attributes:
        environment: Backoff, clock and where the children's lines go.
        on_failure: Called with a child's name and the reason when it has ended by itself, or is given up.
        on_restart: Called with a child's name when it is started again.
    """

    def __init__(self, environment: ProcessEnvironment | None = None) -> None:
        self.environment = environment or ProcessEnvironment()
        self.on_failure: Callable[[str, str], None] = lambda *_: None
        self.on_restart: Callable[[str], None] = lambda _: None
        self._children: dict[str, SupervisedProcess] = {}

    @property
    def children(self) -> dict[str, "SupervisedProcess"]:
        """The children by name, a copy."""
        return dict(self._children)

    async def start(self, specs: Iterable[ChildSpec]) -> None:
        """Start children in parallel and wait until all serve.

        Raises:
            ChildNotReady: one of them cannot, the first that fails; the others go on until `stop`.
            UnknownName: a name is taken.
        """
        waits = []
        for spec in specs:
            if spec.name in self._children:
                raise UnknownName(f"child {spec.name!r} runs already: give another name")
            child = self._children[spec.name] = SupervisedProcess(spec, self)
            waits.append(asyncio.ensure_future(child.wait_ready()))
        try:
            await asyncio.gather(*waits)
        finally:
            for wait in waits:
                wait.cancel()

    async def stop(self, *names: str) -> None:
        """End these children, all when none is named, in parallel; each is asked, then killed after its `drain_s`."""
        going = [name for name in (names or tuple(self._children)) if name in self._children]
        await asyncio.gather(*(self._children[name].stop() for name in going))
        for name in going:
            self._children.pop(name, None)

    def kill(self) -> None:
        """SIGKILL to all children, none of which is started again."""
        for child in self._children.values():
            child.stopping.set()
            child.kill()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class SupervisedProcess:
    """A child and the task that keeps it running until it is told to stop.

    Attributes:
        process: The present run, None before the first and between two.
        stopping: Set when it is to end for good.
        reason: Why it does not serve: how it ended, how often in a row, and when it is tried again; None while it does,
            and before its first end.
    """

    def __init__(self, spec: ChildSpec, supervisor: Supervisor) -> None:
        self.spec = spec
        self.process: ChildProcess | None = None
        self.reason: str | None = None
        self._supervisor, self._environment = supervisor, supervisor.environment
        self._failures = 0
        self._was_ready = False
        self._gave_up: ChildNotReady | None = None
        self.stopping, self._serves = asyncio.Event(), asyncio.Event()
        self._task = asyncio.create_task(self._keep(), name=f"keep {spec.name}")

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process else None

    @property
    def fields(self) -> dict[str, str]:
        """The fields of its ready line, empty while it does not serve."""
        return self.process.ready.result() if self.process and self._serves.is_set() else {}

    async def wait_ready(self) -> dict[str, str]:
        """Wait until it serves, in this run or a later one; the fields of its ready line."""
        serves = asyncio.create_task(self._serves.wait())
        try:
            await asyncio.wait({serves, self._task}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            serves.cancel()
        if self._task.done():
            if not self._task.cancelled():
                self._task.result()  # an error of our own is raised as it is
            raise self._gave_up or ChildNotReady(f"{self.spec.name} was stopped")
        return self.fields

    def kill(self) -> None:
        """SIGKILL, as a crash would be: it is started again after the backoff."""
        self._serves.clear()
        if self.process:
            self.process.kill()

    async def stop(self) -> None:
        """End it, first by SIGTERM, and do not start it again."""
        self.stopping.set()
        self._serves.clear()
        if self.process:
            await self.process.stop()
        else:
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _keep(self) -> None:
        while not self.stopping.is_set():
            try:
                end, is_hopeless, words = await self._run()
            except OSError as error:
                why = f"cannot start {self.spec.command[0]}: {error}"
                self._give_up(f": {why}", why)
                return
            if self.stopping.is_set():
                return
            self._failures += 1
            last_line = f"last line: {words[-1]}" if words else NO_WORDS
            last_words = f"last lines: {' | '.join(words)}" if words else NO_WORDS
            if not self._was_ready and (is_hopeless or self._failures >= FIRST_STARTS):
                why = f"{end} before it was ready"
                self._give_up(f" {why}; {last_words}", f"{why}; {last_line}")
                return
            # one that never served may lack what only others can give: it does not start again at once
            delay_s = self._environment.backoff.delay_s(self._failures + (not self._was_ready))
            self.reason = f"{end}, failures in a row: {self._failures}, next start after {delay_s:.1f} s"
            self._supervisor.on_failure(self.spec.name, f"{self.reason}; {last_line}")
            fields = {"failures": self._failures, "delay_s": delay_s, "last_words": last_words}
            event(log, "child ended, restarting", logging.WARNING, child=self.spec.name, end=end, **fields)
            await self._environment.sleep(delay_s)
            self._supervisor.on_restart(self.spec.name)

    def _give_up(self, message: str, reason: str) -> None:
        self._gave_up = ChildNotReady(f"{self.spec.name}{message}")
        self._supervisor.on_failure(self.spec.name, reason)

    async def _run(self) -> tuple[str, bool, list[str]]:
        """Start it, tell when it serves, and wait for its end.

        Returns:
            How it ended, whether another start would end in the same way, and its last words.
        """
        launched = await self._environment.launch(self.spec)
        self.process = process = ChildProcess(self.spec, launched, self._environment.echo)
        ended = asyncio.create_task(process.wait())
        first: set[asyncio.Future[Any]] = {ended, process.ready}
        try:
            await asyncio.wait(first, timeout=self.spec.ready_s, return_when=asyncio.FIRST_COMPLETED)
            is_late = not ended.done() and not process.ready.done()
            if is_late:
                process.kill()
            elif not ended.done():
                await self._serve(ended)
            code = await ended
        finally:
            self._serves.clear()
            self.process = None
        words = [shorten(line, SHOWN_CHARACTERS, placeholder="...") for line in [*process.tail][-SHOWN_LINES:]]
        if is_late:
            return "was not ready in time and was killed", True, words
        end = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return end, code == exits.SETUP, words

    async def _serve(self, ended: "asyncio.Task[int]") -> None:
        self._was_ready = True
        self._serves.set()
        self.reason = None
        event(log, "child serves", child=self.spec.name, pid=self.pid)
        since_s = self._environment.clock()
        await asyncio.wait({ended})
        if self._environment.clock() - since_s >= self._environment.backoff.calm_s:
            self._failures = 0
