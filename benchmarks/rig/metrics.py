"""What a process counts, read from its metrics port, and how a count grows."""

import threading
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Self
from urllib.request import urlopen

Counter = tuple[str, ...]
"""Name of a metric, and what its labels must contain, as `outcome="applied"`."""


def counters(port: int, wanted: Mapping[str, Counter]) -> dict[str, float]:
    """Each a sum over all samples of its metric that have its labels."""
    with urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as page:
        lines = page.read().decode().splitlines()
    return {name: _total(lines, *counter) for name, counter in wanted.items()}


def _total(lines: list[str], name: str, *labels: str) -> float:
    found = [line for line in lines if line.partition("{")[0].partition(" ")[0] == name]
    return sum(float(line.rpartition(" ")[2]) for line in found if all(label in line for label in labels))


LOOK_S = 0.1


class Growth:
    """Looks at counters ten times a second, in a thread, for the time of a block: the error of every time.

    Args:
        count: The counters now.
        base: What growth is counted from; absent: what the counters are now.
    """

    def __init__(self, count: Callable[[], dict[str, float]], base: float | None = None) -> None:
        self._count = count
        self._first = count() if base is None else dict.fromkeys(count(), base)
        self._seen: list[tuple[float, dict[str, float]]] = [(time.monotonic(), dict.fromkeys(self._first, 0.0))]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()

    def grown(self, name: str) -> float:
        """By how much, at the last look."""
        return self._seen[-1][1][name]

    def reached(self, name: str, count: float, stalled_s: float = 120.0) -> bool:
        """Wait until it has grown by so much; False when it stood still for so long."""
        before, moved_s = -1.0, time.monotonic()
        while (now := self.grown(name)) < count:
            if now > before:
                before, moved_s = now, time.monotonic()
            elif time.monotonic() - moved_s > stalled_s:
                return False
            time.sleep(LOOK_S)
        return True

    def when(self, name: str, count: float) -> float:
        """The first look at which it had grown by so much, by `time.monotonic`; it must have."""
        return min(at_s for at_s, grown in self._seen if grown[name] >= count)

    def per_s(self, name: str, since: str) -> float | None:
        """Growth a second, from the first growth of `since` to the last of `name`; None where it did not grow."""
        began_s = max((at_s for at_s, grown in self._seen if not grown[since]), default=0.0)
        ended_s = self.when(name, self.grown(name))
        return round(self.grown(name) / (ended_s - began_s), 1) if ended_s > began_s else None

    def _look(self) -> None:
        while not self._over.wait(LOOK_S):
            now = self._count()
            self._seen.append((time.monotonic(), {name: now[name] - first for name, first in self._first.items()}))
