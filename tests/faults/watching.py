"""What a process takes, and how long nobody is answered, seen from outside."""

import bisect
import itertools
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

from e2e.any_client import AnyClient, Record

POLL_S = 0.02
Pids = Callable[[], Iterable[int]]


def memory_mib(pid: int) -> float:
    """Resident memory of a process, MiB; 0 when it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmRSS")), 0.0)


class Watch:
    """Notes when answers arrive, and the most memory that processes have; as a context manager it starts and ends.

    Args:
        pids: The processes to look at, asked again and again.
        counts: Which answers count.
    """

    def __init__(
        self, client: AnyClient, topic: str, pids: Pids = tuple, counts: Callable[[Record], bool] = bool
    ) -> None:
        self.arrivals_s, self.most_mib = list[float](), 0.0
        self.arrivals_of_s = {number: list[float]() for number in range(client.partitions(topic))}
        self._client, self._topic, self._pids, self._counts = client, topic, pids, counts
        self._over, self._thread = threading.Event(), threading.Thread(target=self._look)

    def stalls_s(self, faults_s: Iterable[float], *, in_partitions: bool = False) -> list[float]:
        """The longest time without an answer after each fault (by `time.monotonic`), up to the next fault or now.

        If nobody was answered before the next fault, it lasts up to the first answer after that. In partitions it is a
        stall already when nobody is answered in one of them.
        """
        each = [*self.arrivals_of_s.values()] if in_partitions else [self.arrivals_s]
        spans = itertools.pairwise([*faults_s, time.monotonic()])
        return [max(_longest_s(arrivals_s, *span) for arrivals_s in each) for span in spans]

    def _look(self) -> None:
        with self._client.reading(self._topic) as reading:
            while not self._over.is_set():
                fresh, now_s = [*filter(self._counts, reading.more(POLL_S))], time.monotonic()
                if fresh:
                    self.arrivals_s.append(now_s)
                for partition in {record.partition for record in fresh}:
                    self.arrivals_of_s[partition].append(now_s)
                self.most_mib = max([self.most_mib, *map(memory_mib, self._pids())])

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def _longest_s(arrivals_s: Sequence[float], since_s: float, until_s: float) -> float:
    after = [at_s for at_s in arrivals_s if at_s > since_s]
    seen = [since_s, *after[: max(bisect.bisect_left(after, until_s), 1)]]
    ended_s = [until_s] if seen[-1] < until_s else []
    return max(later - earlier for earlier, later in itertools.pairwise(seen + ended_s))
