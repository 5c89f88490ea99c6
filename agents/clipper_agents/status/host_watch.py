"""What hosts tell beside their states, looked at again and again: their metrics, and how often they began anew."""

from collections import Counter, defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress

from clipper_agents.status.model import WorkerMetrics
from clipper_agents.status.processes import read_metrics
from clipper_topics.host_report import HostReport

MOST_READ = 12
"""Hosts whose metrics are read at a time, each in some milliseconds of the processor."""


class HostWatch:
    """Hosts as somebody sees them who looks on.

    Attributes:
        restarts: By version, how often the report of one of its hosts was of another process than the one before.
        workers: Their metrics, as they were read last.

    >>> watch = HostWatch()
    >>> for pid in (17, 17, 18):
    ...     watch.see({b"svm:1/h0": HostReport(model="svm:1", instance="h0", state="ready", pid=pid)})
    >>> watch.restarts
    Counter({'svm:1': 1})
    """

    def __init__(self) -> None:
        self.restarts: Counter[str] = Counter()
        self.workers = WorkerMetrics()
        self._seen: dict[bytes, HostReport] = {}
        self._read: dict[str, tuple[int, WorkerMetrics]] = {}
        self._round = 0

    def see(self, reports: Mapping[bytes, HostReport]) -> None:
        """Count restarts; of the reports, by key, the newest are the last ones."""
        for key, report in reversed([*reports.items()]):
            if (before := self._seen.get(key)) is report:
                return
            self._seen[key] = report
            if before is not None and _is_anew(before, report):
                self.restarts[report.model] += 1

    async def read(self, reports: Collection[HostReport], first: Collection[str] = ()) -> None:
        """Read the metrics of some hosts, those of these versions first, then those that were read longest ago."""
        self._round += 1
        addresses: defaultdict[str, list[str]] = defaultdict(list)
        for report in reports:
            if report.metrics:
                addresses[report.model].append(report.metrics)
        self._read = {ref: found for ref, found in self._read.items() if ref in addresses}
        left = MOST_READ
        for ref in sorted(addresses, key=lambda ref: (ref not in first, self._read.get(ref, (0,))[0])):
            if left > 0:
                with suppress(Exception):  # whoever may write reports names addresses, and anything may answer there
                    self._read[ref] = self._round, await read_metrics(addresses[ref][:MOST_READ])
                left -= len(addresses[ref])
        self.workers = WorkerMetrics(
            batch_limits={ref: limit for _, one in self._read.values() for ref, limit in one.batch_limits.items()},
            batches={ref: latency for _, one in self._read.values() for ref, latency in one.batches.items()},
        )


def _is_anew(before: HostReport, report: HostReport) -> bool:
    """Whether a later report is of another process: its pid is another one, or it begins once more.

    In a container every process may have the same pid. A report that its supervisor wrote has none.
    """
    if None not in (before.pid, report.pid) and before.pid != report.pid:
        return True
    begins = report.state == "starting" or report.state == before.state == "ready"
    return begins and report.at_ms > before.at_ms
