"""The rate of a running system between the 5 % and the 95 % mark of its output, and the CPU over the same span."""

import os
import resource
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from rig.processes import Cpus, cpu_s_by_process, pin_hosts

LOW, HIGH = 0.05, 0.95
POLL_S, LOOK_S = 0.05, 1.0
STALL_S = 15.0
START_S = 45.0
"""Until the first answer: imports, a model, joining a group."""


@dataclass(frozen=True, slots=True)
class Look:
    """One moment: the count of predictions and the CPU seconds so far of all processes that are charged."""

    at_s: float
    count: int
    system: dict[tuple[str, int], float]
    broker_s: float
    driver_s: float


@dataclass(slots=True)
class Span:
    """Looks at the marks and in between.

    Args:
        process: Root of the system.
        broker: Process id of the broker.
        cpus: Where hosts belong.
        reads_ahead: Queries left out at both ends where that is more than the marks leave out.
        count: Predictions so far.
    """

    process: subprocess.Popen[str]
    broker: int
    cpus: Cpus
    reads_ahead: int
    count: Callable[[], int]
    looks: list[Look] = field(default_factory=list)
    end: Look | None = None
    note: str = ""

    def watch(self, expected: int, limit_s: float) -> None:
        """Until so many predictions are there, the process ends, nothing moves any more, or the time is over."""
        low = max(LOW * expected, self.reads_ahead)
        high = min(HIGH * expected, expected - self.reads_ahead)
        for at_s, count in self._counts(expected, limit_s):
            if count < low:
                pin_hosts(self.process.pid, self.cpus.hosts)
            elif not self.looks or (self.looks[-1].count < high and self._due(at_s, count >= high)):
                self.looks.append(self._look(count))
            if count >= expected:
                self.end = self._look(count)

    def _due(self, at_s: float, at_mark: bool) -> bool:
        return at_mark or at_s - self.looks[-1].at_s > LOOK_S

    def _counts(self, expected: int, limit_s: float) -> Iterator[tuple[float, int]]:
        began_s = moved_s = time.monotonic()
        last = 0
        while not self.note:
            now_s, count = time.monotonic(), self.count()
            if count > last:
                last, moved_s = count, now_s
            yield now_s, count
            if count >= expected:
                return
            self.note = self._trouble(now_s - began_s, now_s - moved_s, limit_s, answered=last > 0)
            time.sleep(POLL_S)

    def _trouble(self, ran_s: float, still_s: float, limit_s: float, *, answered: bool) -> str:
        if self.process.poll() is not None:
            return f"ended by itself with {self.process.returncode}"
        if still_s > (STALL_S if answered else START_S):
            return f"no output for {still_s:.0f} s"
        return f"stopped after {limit_s:.0f} s" if ran_s > limit_s else ""

    def _look(self, count: int) -> Look:
        used = resource.getrusage(resource.RUSAGE_SELF)
        broker_s = sum(cpu_s_by_process([self.broker]).values())
        system = cpu_s_by_process([self.process.pid])
        return Look(time.monotonic(), count, system, broker_s, used.ru_utime + used.ru_stime)

    def figures(self, rows_each: int) -> dict[str, Any]:
        """Rate and CPU a row; empty when there is no span: nothing came, or all of it between two looks."""
        if len(self.looks) < 2 or self.looks[-1].count == self.looks[0].count:
            return {}
        first, last = self.looks[0], self.looks[-1]
        for role, pid in first.system.keys() - last.system.keys():
            self.note += f"; {role} {pid} ended in the run"
        span_s, records = last.at_s - first.at_s, last.count - first.count
        by_role = _spent(first, last)
        rig_s = last.broker_s - first.broker_s + last.driver_s - first.driver_s
        shares = bool(self.cpus.hosts & self.cpus.rig)
        per_row = 1e6 / (records * rows_each)
        return {
            "records_per_s": round(records / span_s, 1),
            "rows_per_s": round(records * rows_each / span_s, 1),
            "cpu_us": {role: round(spent_s * per_row, 2) for role, spent_s in by_role.items()},
            "system_cpu_us": round(sum(by_role.values()) * per_row, 2),
            "broker_cpu_us": round((last.broker_s - first.broker_s) * per_row, 2),
            "rows_per_cpu_s": round(1e6 / max(0.01, sum(by_role.values()) * per_row), 1),
            "rig_cpu": round((rig_s + (by_role["host"] if shares else 0.0)) / span_s, 3),
            "system_cpu": round(sum(by_role.values()) / span_s, 3),
            "span_s": round(span_s, 2),
            "span_records": records,
            "whole_cpu_us": self._whole_cpu_us(rows_each),
            "load": os.getloadavg()[0],
        }

    def _whole_cpu_us(self, rows_each: int) -> float | None:
        """CPU a row from the first instruction to the last answer, start-up included."""
        if self.end is None:
            return None
        return round(sum(self.end.system.values()) * 1e6 / (self.end.count * rows_each), 2)


def _spent(first: Look, last: Look) -> Counter[str]:
    spent: Counter[str] = Counter()
    for (role, pid), seconds in last.system.items():
        spent[role] += seconds - first.system.get((role, pid), 0.0)
    return spent
