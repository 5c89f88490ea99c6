"""How many processor cores a host may use: an upper bound by affinity, which needs no rights and no control groups.

Affinity counts whole cores (a fraction below 1 is one, 2.5 are two), and does not reserve them. Which cores depends on
the host's name, so that several hosts do not all take the first.
"""

import logging
import os
from math import ceil
from zlib import crc32

from clipper_agents.observability.logging import event
from clipper_agents.threads import ONE_THREAD

logger = logging.getLogger(__name__)


def cores_of(cpus: float, instance: str, available: set[int]) -> set[int]:
    """Choose the cores of a host among those that the process may use now.

    >>> len(cores_of(0.25, "host.svm.1.0", {0, 1, 2, 3})), len(cores_of(2.5, "host.svm.1.0", {0, 1, 2, 3}))
    (1, 2)
    """
    count = min(max(1, int(cpus)), len(available))
    ordered = sorted(available)
    first = crc32(instance.encode()) % len(ordered)
    return {ordered[(first + number) % len(ordered)] for number in range(count)}


def limit_cores(cpus: float | None, instance: str) -> None:
    """Bind this process, and threads that it starts later, to the host's cores."""
    if cpus is None:
        return
    if not hasattr(os, "sched_setaffinity"):
        logger.warning("cores are not bounded: this system has no affinity cpus=%g", cpus)
        return
    cores = cores_of(cpus, instance, os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores)
    event(logger, "cores bounded", cpus=cpus, cores=",".join(map(str, sorted(cores))))


def thread_variables(cpus: float | None) -> dict[str, str]:
    """Environment variables for the numeric libraries of a host: as many threads as cores, rounded up.

    >>> thread_variables(1.5)["OMP_NUM_THREADS"], thread_variables(None)["OMP_NUM_THREADS"]
    ('2', '1')
    """
    return ONE_THREAD if cpus is None else dict.fromkeys(ONE_THREAD, str(ceil(cpus)))
