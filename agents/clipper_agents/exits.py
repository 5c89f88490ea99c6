"""Exit codes of the command line program and of its workers, and how signals end a process."""

import asyncio
import logging
import os
import signal
from collections.abc import Callable

logger = logging.getLogger(__name__)

OK = 0
FAILURE = 1
"""The request failed, or something unforeseen happened: trying again may help."""
USAGE = 2
"""The command line is wrong."""
SETUP = 3
"""A setting, manifest, model or address is wrong and has to be changed first: a supervisor does not try again."""
CRASHED = 4
"""A worker could not go on, for example because its partitions moved meanwhile: its supervisor starts it again."""
REFUSED = 5
"""The query or the feedback is at fault: sent again as it is, it has the same outcome."""
ORPHAN = 6
"""The feedback is about no query that is known."""
REPEATED = 7
"""An earlier feedback about the query counts."""
INTERRUPTED = 130
"""Ctrl-C, 128 + SIGINT."""


def end_on_signals(
    end: Callable[[], object],
    waits_for: Callable[[], str],
    kill: Callable[[], object] = lambda: os._exit(INTERRUPTED),
    tell: Callable[[str], object] = logger.warning,
) -> None:
    """Call `end` at SIGTERM and at Ctrl-C, which is told at once what is waited for; a second Ctrl-C ends by `kill`."""
    told = set[int]()

    def signalled(number: int) -> None:
        if number in told and number == signal.SIGINT:
            kill()
        elif number == signal.SIGINT:
            tell(f"ending: {waits_for()}; a second Ctrl-C ends at once")
        told.add(number)
        end()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, signalled, number)
