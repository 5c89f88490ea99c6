"""Jobs in several processes, with results in the order of the jobs.

Rules of this file:
- Processes are spawned, so that no thread or lock of a library is copied into them, and end with the process that
  started them, however it ends.
- When the caller stops early, the processes are terminated.
"""

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor, wait
from itertools import islice
from multiprocessing import active_children, get_context, parent_process
from typing import Any, TypeVar

J = TypeVar("J")
R = TypeVar("R")
LOOK_S = 0.2
_counter: list[Any] = []
"""In a worker process: what `advance` adds to."""


def run_jobs(
    run: Callable[[J], R], jobs: Iterable[J], processes: int, progress: Callable[[int], None] = lambda _: None
) -> Iterator[R]:
    """Run jobs, and yield their results; at most two jobs of each process are under way or wait to be taken.

    Args:
        run: A function of a module.
        jobs: What it is called with.
        processes: Number of processes; 0: this one.
        progress: Called with what jobs have passed to `advance` since the last call.

    Raises:
        BrokenProcessPool: a process ended before its job was done.
    """
    if not processes:
        yield from map(run, jobs)
        return
    before, context = {*active_children()}, get_context("spawn")
    counter, told = context.Value("q", 0), 0
    pool = ProcessPoolExecutor(processes, context, _begin, (counter,))
    running: deque[Future[R]] = deque()
    waiting = iter(jobs)
    try:
        while True:
            running.extend(pool.submit(run, job) for job in islice(waiting, 2 * processes - len(running)))
            if not running:
                return
            while not running[0].done():
                wait([running[0]], LOOK_S)
                reached = counter.value
                progress(reached - told)
                told = reached
            yield running.popleft().result()
    except BaseException:
        for child in {*active_children()} - before:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        progress(counter.value - told)


def advance(count: int) -> None:
    """Add to the progress of the jobs; called by a job."""
    for counter in _counter:
        with counter.get_lock():
            counter.value += count


def _begin(counter: Any) -> None:
    """End with the parent process, and leave Ctrl-C to it."""
    _counter.append(counter)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
