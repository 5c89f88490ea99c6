"""What hosts serve as metrics, at the addresses that they report: batch limits, and latencies since they started.

A host that does not answer at once is left out: it may run on another machine, or not at all.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from clipper_agents.observability.exposition import Labels, Scrape, scrape
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import Latency

ANSWER_S = 1.0
MOST_AT_ONCE = 100
"""Of hundreds of hosts those that answer do it in milliseconds."""
READ_EVERY_S, MOST_READ = 10.0, 12
"""Between two readings of those who look again and again, and hosts of each."""
LATENCY = "clipper_batch_latency_seconds"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedMetrics:
    """By version: rows that a batch may have, the largest of its hosts; and how long batches took, over all of them."""

    batch_limits: Mapping[str, float] = field(default_factory=dict)
    batches: Mapping[str, Latency] = field(default_factory=dict)


class MetricsWatch:
    """Reads hosts of the deployment that `view` returns again and again, those first that were read longest ago."""

    def __init__(self, view: Callable[[], DeploymentView]) -> None:
        self._view = view
        self._found: dict[str, ServedMetrics] = {}

    @property
    def newest(self) -> ServedMetrics:
        """What was read last of each version."""
        limits = {ref: limit for one in self._found.values() for ref, limit in one.batch_limits.items()}
        batches = {ref: latency for one in self._found.values() for ref, latency in one.batches.items()}
        return ServedMetrics(batch_limits=limits, batches=batches)

    async def run(self) -> None:
        """Read until cancelled."""
        while True:
            await self.read()
            await asyncio.sleep(READ_EVERY_S)

    async def read(self) -> None:
        """Read some hosts."""
        reports = [one for one in self._view().hosts.reports.values() if one.metrics and one.model]
        refs = {one.model for one in reports}
        self._found = {ref: found for ref, found in self._found.items() if ref in refs}
        left = MOST_READ
        for ref in [*(refs - self._found.keys()), *self._found]:
            addresses = [one.metrics for one in reports if one.model == ref and one.metrics][:MOST_READ]
            if left > 0:
                self._found.pop(ref, None)
                self._found[ref] = await read_metrics(addresses)
            left -= len(addresses)


async def read_metrics(addresses: Iterable[str]) -> ServedMetrics:
    """What the hosts at these addresses (`host:port`) serve, taken together; silent ones are left out."""
    if not (asked := set(addresses)):
        return ServedMetrics()
    threads = ThreadPoolExecutor(min(len(asked), MOST_AT_ONCE))
    loop = asyncio.get_running_loop()
    done, _ = await asyncio.wait(
        [loop.run_in_executor(threads, _scraped, address) for address in asked], timeout=ANSWER_S
    )
    threads.shutdown(wait=False, cancel_futures=True)
    return metrics_of([one for one in (each.result() for each in done) if one is not None])


def _scraped(address: str) -> Scrape | None:
    host, _, port = address.rpartition(":")
    try:
        return scrape(int(port), host.strip("[]"), ANSWER_S)
    except Exception:  # noqa: BLE001 - whoever may write reports names addresses, and anything may answer there
        return None


def metrics_of(scrapes: Iterable[Scrape]) -> ServedMetrics:
    """Take the metrics of several hosts together."""
    sums: dict[tuple[str, Labels], float] = {}
    limits: dict[str, float] = {}
    for one in scrapes:
        for (name, labels), value in one.samples.items():
            if name == "clipper_batch_limit_rows":
                ref = _ref(dict(labels))
                limits[ref] = max(limits.get(ref, 0.0), value)
            sums[name, labels] = sums.get((name, labels), 0.0) + value
    whole, batches = Scrape(sums), {}
    for model in [dict(labels) for name, labels in sums if name == f"{LATENCY}_count"]:
        p50_s, p99_s = whole.quantile(0.5, LATENCY, **model), whole.quantile(0.99, LATENCY, **model)
        if p50_s is not None and p99_s is not None:
            batches[_ref(model)] = Latency(p50_ms=1000 * p50_s, p99_ms=1000 * p99_s)
    return ServedMetrics(batch_limits=limits, batches=batches)


def _ref(labels: Mapping[str, str]) -> str:
    return f"{labels.get('model', '')}:{labels.get('version', '')}"
