"""In a worker: end when the supervisor has ended, however it ended."""

import os
import signal
import sys
import threading
from collections.abc import Callable
from typing import BinaryIO

LAST_S = 15.0
"""Time to drain after the supervisor is gone. Its embedded broker is gone too then, so most of it would be in vain."""


def end_with_stdin(source: BinaryIO | None = None, terminate: Callable[[], None] | None = None) -> threading.Thread:
    """Watch standard input from a daemon thread; at its end drain as on SIGTERM, and after `LAST_S` end anyway.

    Args:
        source: Instead of standard input.
        terminate: Instead of SIGTERM to this process and, later, a hard exit.
    """
    watched, end = source or sys.stdin.buffer, terminate or _terminate
    thread = threading.Thread(target=_watch, args=(watched, end), name="lifeline", daemon=True)
    thread.start()
    return thread


def _watch(source: BinaryIO, terminate: Callable[[], None]) -> None:
    while source.read(1024):
        pass
    terminate()


def _terminate() -> None:
    last = threading.Timer(LAST_S, os._exit, args=(1,))
    last.daemon = True
    last.start()
    os.kill(os.getpid(), signal.SIGTERM)
