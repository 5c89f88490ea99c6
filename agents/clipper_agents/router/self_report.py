"""What a router says of itself on the hosts topic: that it serves, where its metrics are, and what ails it.

Its clock may: a deadline is the broker's timestamp of the query and an objective, and this process's clock says when it
has come; one that is ahead by more than the objective would make every query late. How far it is ahead is known from
acknowledgements that carry the broker's time:

- The broker stamps a batch after it was sent and before it is acknowledged. So an acknowledgement bounds the difference
  on both sides, and a slow broker widens these bounds, but never makes them wrong.
- The difference reported is the smallest that all acknowledgements of the last interval allow: 0 unless it is certain.
"""

import math
import os
from collections.abc import Sequence
from pathlib import Path

from clipper_agents.control.host_reports import HostReports
from clipper_agents.observability.metrics import free_bytes, used_bytes
from clipper_topics.host_report import HostReport

STAMP_S = 0.001
"""The broker truncates its stamps to milliseconds."""
TOLERATED_S = 0.1


class ClockSkew:
    """The difference between this process's clock and the broker's.

    >>> skew = ClockSkew()
    >>> skew.observe(sent_s=100.000, stamped_s=99.500, acknowledged_s=100.004)
    >>> round(skew.take() or 0.0, 3)
    0.499
    """

    def __init__(self) -> None:
        self._least_s, self._most_s = -math.inf, math.inf

    def observe(self, sent_s: float, stamped_s: float, acknowledged_s: float) -> None:
        """Take a batch into account: sent and acknowledged by our clock, stamped by the broker's, in seconds."""
        least_s, most_s = sent_s - stamped_s - STAMP_S, acknowledged_s - stamped_s
        if least_s > self._most_s or most_s < self._least_s:  # a clock was set meanwhile
            self._least_s, self._most_s = least_s, most_s
        else:
            self._least_s, self._most_s = max(self._least_s, least_s), min(self._most_s, most_s)

    def take(self) -> float | None:
        """Return how many seconds this clock is ahead by acknowledgements since the last call; None without any."""
        if self._least_s == -math.inf:
            return None
        ahead_s = max(self._least_s, min(self._most_s, 0.0))
        self._least_s, self._most_s = -math.inf, math.inf
        return ahead_s


SPARE_BYTES = 1e9
"""Free beside as much as the data take: databases that are compacted or built anew need that room."""


class RouterReports:
    """The reports of one router, each when something else is true than before; `metrics` is an address, `host:port`."""

    def __init__(self, reports: HostReports, instance: str, metrics: str, folder: Path) -> None:
        self._reports, self._instance, self._metrics, self._folder = reports, instance, metrics, folder
        self._said: tuple[object, ...] = ()

    def look(self, unready: Sequence[str], ahead_s: float) -> None:
        """Report what is true now: why it does not serve, and how many seconds its clock is ahead of the broker's."""
        used, free = used_bytes(self._folder), free_bytes(self._folder)
        is_full, is_wrong = free < used + SPARE_BYTES, abs(ahead_s) > TOLERATED_S
        said = bool(unready), is_full, is_wrong
        if said == self._said:
            return
        self._said = said
        problems = []
        if is_full:
            problems.append(
                f"only {free / 1e9:.1f} GB are free in {self._folder}, which has {used / 1e9:.1f} GB of data and may "
                f"need as much again and 1 GB: make room, or give it another disk by router.data_dir"
            )
        if is_wrong:
            problems.append(
                f"its clock is {abs(ahead_s):.1f} s {'ahead of' if ahead_s > 0 else 'behind'} the broker's, so "
                f"deadlines come too {'early' if ahead_s > 0 else 'late'}: synchronise it, by `chronyc makestep` say"
            )
        self._reports.put(
            HostReport(
                model="",
                instance=self._instance,
                state="starting" if unready else "ready",
                reason="; ".join(unready) or None,
                pid=os.getpid(),
                metrics=self._metrics,
                problems=problems,
            )
        )

    def leave(self, within_s: float) -> None:
        """Withdraw the report after an orderly end, and wait so long at most until that is written."""
        self._reports.withdraw("", self._instance)
        self._reports.close(within_s)
