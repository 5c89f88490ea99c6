"""One child that is kept running: restarted when it ends unexpectedly, until it is told to stop."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from textwrap import shorten
from typing import Any

from clipper_agents import exits
from clipper_agents.observability.logging import event
from clipper_agents.supervisor.process import ChildNotReady, ChildProcess, ChildSpec, Launch, execute

FIRST_STARTS = 3
"""A child that was never ready is given up after so many starts: what it needs is another configuration."""
NO_WORDS = "it said nothing"
SHOWN_LINES, SHOWN_CHARACTERS = 3, 300
"""Of a child's last words; all of them were passed on when they were said."""

log = logging.getLogger(__name__)


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
    """What a kept child takes from outside: waits, a clock, who starts it, and who gets every line that it prints."""

    backoff: Backoff = field(default_factory=Backoff)
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep
    clock: Callable[[], float] = time.monotonic
    echo: Callable[[str], None] = print
    launch: Launch = execute


class SupervisedProcess:
    """A child and the task that keeps it running.

    Attributes:
        process: The present run, None before the first and between two.
        starts: Number of starts so far.
        reason: Why it does not serve: how it ended, how often in a row, and when it is tried again; None while it does,
            and before its first end.
    """

    def __init__(
        self,
        spec: ChildSpec,
        environment: ProcessEnvironment,
        failed: Callable[[str, str], None],
        restarted: Callable[[str], None],
    ) -> None:
        self.spec = spec
        self.process: ChildProcess | None = None
        self.starts = 0
        self.reason: str | None = None
        self._environment, self._failed, self._restarted = environment, failed, restarted
        self._failures = 0
        self._stopping = asyncio.Event()
        self._was_ready = False
        self._gave_up: ChildNotReady | None = None
        self._serves = asyncio.Event()
        self._task = asyncio.create_task(self._keep(), name=f"keep {spec.name}")

    @property
    def pid(self) -> int | None:
        """Its process id, None between two runs."""
        return self.process.pid if self.process else None

    @property
    def fields(self) -> dict[str, str]:
        """The fields of its ready line, empty while it does not serve."""
        return self.process.ready.result() if self.process and self._serves.is_set() else {}

    @property
    def metrics_port(self) -> int | None:
        """Port of its metrics on 127.0.0.1, None while it does not serve."""
        return int(self.fields["metrics"]) if "metrics" in self.fields else None

    async def wait_ready(self) -> dict[str, str]:
        """Wait until it serves, in this run or a later one; the fields of its ready line.

        Raises:
            ChildNotReady: it was given up or stopped.
        """
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
        self._stopping.set()
        self._serves.clear()
        if self.process:
            await self.process.stop()
        else:
            self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def _keep(self) -> None:
        while not self._stopping.is_set():
            try:
                end = await self._run()
            except OSError as error:
                why = f"cannot start {self.spec.command[0]}: {error}"
                self._give_up(f": {why}", why)
                return
            if self._stopping.is_set():
                return
            self._failures += 1
            if not self._was_ready and (end.hopeless or self._failures >= FIRST_STARTS):
                why = f"{end.what} before it was ready"
                self._give_up(f" {why}; {end.last_words}", f"{why}; {end.last_line}")
                return
            await self._pause(end)

    def _give_up(self, message: str, reason: str) -> None:
        self._gave_up = ChildNotReady(f"{self.spec.name}{message}")
        self._failed(self.spec.name, reason)

    async def _run(self) -> "_End":
        """Start it, tell when it serves, and wait for its end."""
        environment = self._environment
        self.process = process = await ChildProcess.start(self.spec, environment.echo, environment.launch)
        self.starts += 1
        ended = asyncio.create_task(process.wait())
        first: set[asyncio.Future[Any]] = {ended, process.ready}
        try:
            await asyncio.wait(first, timeout=self.spec.ready_s, return_when=asyncio.FIRST_COMPLETED)
            in_time = ended.done() or process.ready.done()
            if not in_time:
                process.kill()
            elif not ended.done():
                await self._serve(ended)
            return _End(await ended, in_time, tuple(process.tail))
        finally:
            self._serves.clear()
            self.process = None

    async def _serve(self, ended: "asyncio.Task[int]") -> None:
        self._was_ready = True
        self._serves.set()
        self.reason = None
        event(log, "child serves", child=self.spec.name, pid=self.pid)
        since_s = self._environment.clock()
        await asyncio.wait({ended})
        if self._environment.clock() - since_s >= self._environment.backoff.calm_s:
            self._failures = 0

    async def _pause(self, end: "_End") -> None:
        # one that never served may lack what only others can give: it does not start again at once
        delay_s = self._environment.backoff.delay_s(self._failures + (not self._was_ready))
        self.reason = f"{end.what}, failures in a row: {self._failures}, next start after {delay_s:.1f} s"
        self._failed(self.spec.name, f"{self.reason}; {end.last_line}")
        event(
            log,
            "child ended, restarting",
            logging.WARNING,
            child=self.spec.name,
            end=end.what,
            failures=self._failures,
            delay_s=delay_s,
            last_words=end.last_words,
        )
        await self._environment.sleep(delay_s)
        self._restarted(self.spec.name)


@dataclass(frozen=True, slots=True)
class _End:
    """How a run ended."""

    code: int
    in_time: bool
    tail: tuple[str, ...]

    @property
    def hopeless(self) -> bool:
        return self.code == exits.SETUP or not self.in_time

    @property
    def what(self) -> str:
        if not self.in_time:
            return "was not ready in time and was killed"
        return f"was ended by signal {-self.code}" if self.code < 0 else f"ended with exit code {self.code}"

    @property
    def last_line(self) -> str:
        return f"last line: {shorten(self.tail[-1], SHOWN_CHARACTERS, placeholder='...')}" if self.tail else NO_WORDS

    @property
    def last_words(self) -> str:
        lines = [shorten(line, SHOWN_CHARACTERS, placeholder="...") for line in self.tail[-SHOWN_LINES:]]
        return f"last lines: {' | '.join(lines)}" if lines else NO_WORDS
