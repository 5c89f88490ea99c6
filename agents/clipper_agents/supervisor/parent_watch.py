"""In a worker: end when the supervisor has ended, however it ended."""

import os
import signal
import threading
from collections.abc import Callable

LAST_S = 15.0
"""Time to drain after the supervisor is gone. Its embedded broker is gone too then, so most of it would be in vain."""


def end_with_stdin(descriptor: int = 0, terminate: Callable[[], None] | None = None) -> threading.Thread:
    """Watch standard input from a daemon thread; at its end drain as on SIGTERM, and after `LAST_S` end anyway.

    Args:
        descriptor: File descriptor to watch. Not `sys.stdin`: a thread that waits in its lock breaks the shutdown.
        terminate: Instead of SIGTERM to this process and, later, a hard exit.
    """
    thread = threading.Thread(
        target=_watch, args=(descriptor, terminate or _terminate), name="parent watch", daemon=True
    )
    thread.start()
    return thread


def _watch(descriptor: int, terminate: Callable[[], None]) -> None:
    while os.read(descriptor, 1024):
        pass
    terminate()


def _terminate() -> None:
    last = threading.Timer(LAST_S, os._exit, args=(1,))
    last.daemon = True
    last.start()
    os.kill(os.getpid(), signal.SIGTERM)
