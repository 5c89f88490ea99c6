"""What workers serve as metrics, where their ports are known: batch limits and latencies since they started.

Rules of this file:
- An address is known when a host reports it, the configuration fixes the port, or somebody names it; the free ports
  of routers stand in their ready lines.
- A worker that does not answer at once is left out: it may run on another machine, or not at all.
"""

import asyncio
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

from clipper_agents.control.plan import wanted_hosts
from clipper_agents.observability.exposition import Labels, Scrape, scrape
from clipper_agents.settings import Settings
from clipper_agents.status.model import Latency, WorkerMetrics

ANSWER_S = 1.0
MOST_AT_ONCE = 100
"""Of hundreds of hosts those that answer do it in milliseconds."""
ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 (what a worker listens on)
"""Where a worker is that listens on every address of this machine."""


def configured_addresses(settings: Settings) -> list[str]:
    """Addresses of the metrics of the workers that `up` starts from this configuration, where it fixes their ports.

    >>> from clipper_agents.settings import RouterSection
    >>> configured_addresses(Settings(router=RouterSection(metrics_port=9100, processes=2)))
    ['127.0.0.1:9100', '127.0.0.1:9101']
    """
    sections = (settings.router, settings.router.processes), (settings.host, sum(map(wanted_hosts, settings.models)))
    return [
        f"{ANYWHERE.get(section.metrics_address, section.metrics_address)}:{section.metrics_port + number}"
        for section, count in sections
        if section.metrics_port
        for number in range(count)
    ]


async def read_metrics(addresses: Iterable[str]) -> WorkerMetrics:
    """What the workers at these addresses serve, taken together; whoever is silent for `ANSWER_S` is left out."""
    if not (asked := set(addresses)):
        return WorkerMetrics()
    threads = ThreadPoolExecutor(min(len(asked), MOST_AT_ONCE))
    loop = asyncio.get_running_loop()
    done, _ = await asyncio.wait(
        [loop.run_in_executor(threads, _scraped, address) for address in asked], timeout=ANSWER_S
    )
    threads.shutdown(wait=False, cancel_futures=True)
    return workers_of([one for one in (each.result() for each in done) if one is not None])


def _scraped(address: str) -> Scrape | None:
    host, _, port = address.rpartition(":")
    try:
        return scrape(int(port), host.strip("[]"), ANSWER_S)
    except (OSError, ValueError):
        return None


def workers_of(scrapes: Iterable[Scrape]) -> WorkerMetrics:
    """Batch limits (the largest of a version's hosts) and latencies (over all of them) of several processes."""
    sums: dict[tuple[str, Labels], float] = {}
    limits: dict[str, float] = {}
    for one in scrapes:
        for (name, labels), value in one.samples.items():
            if name == "clipper_batch_limit_rows":
                ref = _ref(dict(labels))
                limits[ref] = max(limits.get(ref, 0.0), value)
            sums[name, labels] = sums.get((name, labels), 0.0) + value
    whole = Scrape(sums)
    models = [dict(labels) for name, labels in sums if name == "clipper_batch_latency_seconds_count"]
    batches = {_ref(labels): _latency(whole, "clipper_batch_latency_seconds", labels) for labels in models}
    return WorkerMetrics(batch_limits=limits, batches=_known(batches))


def _latency(
    whole: Scrape,
    name: Literal["clipper_batch_latency_seconds", "clipper_prediction_latency_seconds"],
    labels: Mapping[str, str],
) -> Latency | None:
    p50_s, p99_s = whole.quantile(0.5, name, **labels), whole.quantile(0.99, name, **labels)
    if p50_s is None or p99_s is None:
        return None
    return Latency(p50_ms=1000 * p50_s, p99_ms=1000 * p99_s)


def _known(found: Mapping[str, Latency | None]) -> dict[str, Latency]:
    return {name: latency for name, latency in found.items() if latency is not None}


def _ref(labels: Mapping[str, str]) -> str:
    return f"{labels.get('model', '')}:{labels.get('version', '')}"
