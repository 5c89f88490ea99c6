"""Metrics of another process, read over HTTP; it serves them by `probes`."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http.client import HTTPConnection
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Scrape:
    """The samples of one process at one moment.

    >>> scrape = Scrape({("rows_total", frozenset({("model", "a")})): 2.0, ("rows_total", frozenset()): 1.0})
    >>> scrape.value("rows_total"), scrape.value("rows_total", model="a")
    (3.0, 2.0)
    """

    samples: Mapping[tuple[str, Labels], float]
    """Value by (name, labels)."""

    def value(self, name: str, **labels: str) -> float:
        """Sum of the samples of this name that have these labels; 0 when there are none."""
        return sum(value for _, value in self._matching(name, labels))

    def by(self, label: str, name: str, **labels: str) -> dict[str, float]:
        """Sums by the value of one label, for example predictions by outcome."""
        sums: dict[str, float] = {}
        for found, value in self._matching(name, labels):
            sums[found.get(label, "")] = sums.get(found.get(label, ""), 0.0) + value
        return sums

    def quantile(self, q: float, name: str, **labels: str) -> float | None:
        """Estimate of a quantile, `q` in [0, 1], of the histogram `name`, linear within its bucket, in its unit.

        None when nothing was observed; the highest bound when the quantile lies beyond it.
        """
        cumulative = sorted((float(bound), count) for bound, count in self.by("le", f"{name}_bucket", **labels).items())
        if not cumulative or not cumulative[-1][1]:
            return None
        rank = q * cumulative[-1][1]
        for (low, below), (high, count) in pairwise([(0.0, 0.0), *cumulative]):
            if count >= rank and count > below:
                return low if high == float("inf") else low + (high - low) * (rank - below) / (count - below)
        return cumulative[-1][0]

    def _matching(self, name: str, labels: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
        wanted = labels.items()
        for (sample, found), value in self.samples.items():
            if sample == name and wanted <= found:
                yield dict(found), value


def scrape(port: int, address: str = "127.0.0.1", timeout_s: float = 5.0) -> Scrape:
    """Read the metrics of another process.

    Raises:
        OSError: nobody listens there, or no answer within the timeout.
    """
    connection = HTTPConnection(address, port, timeout=timeout_s)
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    finally:
        connection.close()
    return Scrape(
        {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }
    )
