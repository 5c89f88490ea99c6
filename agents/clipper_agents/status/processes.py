"""What hosts serve as metrics, at the addresses that they report: batch limits, and latencies since they started.

A host that does not answer at once is left out: it may run on another machine, or not at all.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from clipper_agents.observability.exposition import Labels, Scrape, scrape
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import Latency

ANSWER_S = 1.0
MOST_AT_ONCE = 100
"""Of hundreds of hosts those that answer do it in milliseconds."""
READ_EVERY_S, MOST_READ, PAUSE_S = 10.0, 12, 1.0
"""Between two readings of those who look again and again, hosts that they read at once, and the pause before the next
ones: reading a host takes some milliseconds of a processor."""
LIMIT, LATENCY = "clipper_batch_limit_rows", "clipper_batch_latency_seconds"
BUCKET = f"{LATENCY}_bucket"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedMetrics:
    """By version: rows that a batch may have, the largest of its hosts; and how long batches took, over all of them."""

    batch_limits: Mapping[str, float] = field(default_factory=dict)
    batches: Mapping[str, Latency] = field(default_factory=dict)


class MetricsWatch:
    """Reads the hosts of the deployment that `view` returns again and again; `newest` is what was read last."""

    def __init__(self, view: Callable[[], DeploymentView]) -> None:
        self._view, self.newest = view, ServedMetrics()

    async def run(self) -> None:
        while True:
            await self.read()
            await asyncio.sleep(READ_EVERY_S)

    async def read(self) -> None:
        addresses, found = [*self._view().metrics_addresses], list[Scrape]()
        for first in range(0, len(addresses), MOST_READ):
            await asyncio.sleep(PAUSE_S if first else 0.0)
            found += await _scrapes(addresses[first : first + MOST_READ])
        self.newest = metrics_of(found)


async def read_metrics(addresses: Iterable[str]) -> ServedMetrics:
    """What the hosts at these addresses (`host:port`) serve, taken together; silent ones are left out."""
    return metrics_of(await _scrapes(addresses))


async def _scrapes(addresses: Iterable[str]) -> list[Scrape]:
    if not (asked := set(addresses)):
        return []
    threads = ThreadPoolExecutor(min(len(asked), MOST_AT_ONCE))
    loop = asyncio.get_running_loop()
    done, _ = await asyncio.wait(
        [loop.run_in_executor(threads, _scraped, address) for address in asked], timeout=ANSWER_S
    )
    threads.shutdown(wait=False, cancel_futures=True)
    return [one for one in (each.result() for each in done) if one is not None]


def _scraped(address: str) -> Scrape | None:
    host, _, port = address.rpartition(":")
    try:
        samples = scrape(int(port), host.strip("[]"), ANSWER_S).samples
        return Scrape({key: value for key, value in samples.items() if key[0] in (LIMIT, BUCKET)})
    except Exception:  # noqa: BLE001 - whoever may write reports names addresses, and anything may answer there
        return None


def metrics_of(scrapes: Iterable[Scrape]) -> ServedMetrics:
    """Take the metrics of several hosts together."""
    limits: defaultdict[str, float] = defaultdict(float)
    buckets: defaultdict[str, defaultdict[tuple[str, Labels], float]] = defaultdict(lambda: defaultdict(float))
    for one in scrapes:
        for (name, labels), value in one.samples.items():
            of = dict(labels)
            ref = f"{of.get('model', '')}:{of.get('version', '')}"
            if name == LIMIT:
                limits[ref] = max(limits[ref], value)
            elif name == BUCKET:
                buckets[ref][name, labels] += value
    batches = {}
    for ref, sums in buckets.items():
        p50_s, p99_s = (Scrape(sums).quantile(q, LATENCY) for q in (0.5, 0.99))
        if p50_s is not None and p99_s is not None:
            batches[ref] = Latency(p50_ms=1000 * p50_s, p99_ms=1000 * p99_s)
    return ServedMetrics(batch_limits=limits, batches=batches)
