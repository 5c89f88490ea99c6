"""The JVM as a child process that does not outlive us.

Rules of this file:
- The JVM has a session of its own: Ctrl-C in a terminal reaches us and the workers, never the broker, so that the
  workers can still drain into it.
- A guard, a shell that reads from a pipe of ours, ends the JVM when the pipe closes: however we end, also by SIGKILL.
  PR_SET_PDEATHSIG would do it too, but it fires when the *thread* that started the JVM ends.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

STOP_S = 30.0
"""An orderly stop takes about a second; after so many the process is killed."""

GUARD = """\
read -r _ && exit
kill -s "$2" -- "-$1"
i=0
while kill -0 "$1" && [ $i -lt 100 ]; do sleep 0.1; i=$((i + 1)); done
kill -s KILL -- "-$1"
[ -z "$3" ] || rm -rf "$3"
"""
"""`sh -c GUARD guard PID SIGNAL FOLDER`: a line on standard input dismisses it, the end of the input sets it off."""


class GuardedProcess:
    """A process of which nothing is left when we are gone; it appends to a log file, and inherits descriptors.

    If we die a process with a `temporary` folder is killed at once and the folder removed; any other is asked to stop,
    and keeps its data.
    """

    def __init__(
        self, command: Sequence[str], log_file: Path, temporary: Path | None = None, keeps: Sequence[int] = ()
    ) -> None:
        with log_file.open("ab") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, pass_fds=keeps
            )
        orphaned = ["KILL", str(temporary)] if temporary else ["TERM", ""]
        self._guard = subprocess.Popen(
            ["/bin/sh", "-c", GUARD, "guard", str(self.pid), *orphaned],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            cwd="/",
        )

    @property
    def pid(self) -> int:
        """The process's id, which is its group's too."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code; None while the process runs."""
        return self._process.poll()

    def stop(self, kill: bool = False) -> None:
        """End it and wait for the end; with `kill` at once, without any shutdown work."""
        self.send(signal.SIGKILL if kill else signal.SIGTERM)
        self.send(signal.SIGCONT)  # a frozen one ends in order, too
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.send(signal.SIGKILL)
            self._process.wait()
        with contextlib.suppress(BrokenPipeError):
            self._guard.communicate(b"\n")

    def send(self, number: signal.Signals) -> None:
        """Send a signal; nothing happens when the process has ended."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)
