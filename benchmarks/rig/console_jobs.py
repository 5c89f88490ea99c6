"""What a console or its view is asked to do, in a process of its own: `rig.console_jobs JOB`; both sides are JSON."""

import asyncio
import gc
import json
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import uvloop
from rig.processes import cpu_s_by_process

from clipper_gateway.console.follower import LiveView
from clipper_gateway.console.history import SPANS_S, SeriesHistory
from clipper_topics import codec
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.comparison import Comparison, comparison_key
from clipper_topics.connection import KafkaConnection
from clipper_topics.control_keys import change_key, key_of
from clipper_topics.feedback import Feedback
from clipper_topics.host_report import HostReport, report_key
from clipper_topics.manifests import ApplicationManifest, ModelManifest, PolicySpec
from clipper_topics.prediction import REASONS, ModelAnswer, Prediction
from clipper_topics.selection_rows import ROW_VERSION, ModelTotalsRecord, RowKey, SelectionRow, encode_key, encode_row

APPLICATION_FIGURES = ("queries_per_s", "feedback_per_s", *(f"default:{reason}" for reason in REASONS))
VERSION_FIGURES = (
    *("weight", "share", "loss", "loss_lower", "loss_upper", "difference", "difference_lower", "difference_upper"),
    *("p50_ms", "p99_ms", "batch_limit", "batch_p99_ms", "cache_hit_ratio"),
)
PAGES = ["/console", "/console/models", *(f"/console/applications/app-{number}" for number in range(8))]
OK, POLL_S, WAIT_S, SETTLE_S, LEAST_BYTES = 200, 0.2, 60.0, 1.0, 2_000
Entry = tuple[str, bytes, bytes]
"""Topic, by its name in the catalogue, key and value."""


# --- records --------------------------------------------------------------------------------------------------------
def refs_of(number: int, versions: int) -> list[str]:
    return [f"model-{number}:{version}" for version in range(versions)]


def declared(applications: int, versions: int) -> Iterator[Entry]:
    """Manifests, a host of each version, and how it compares."""
    for number in range(applications):
        refs = refs_of(number, versions)
        for ref in refs:
            name, _, version = ref.partition(":")
            model = ModelManifest(name=name, version=version, uri="shop:model")
            yield "control", key_of(model), codec.models.encode(model)
            report = HostReport(model=ref, instance=f"host.{ref}", state="ready", pid=number + 1)
            yield "hosts", report_key(ref, report.instance), codec.host_reports.encode(report)
        manifest = ApplicationManifest(name=f"app-{number}", models=refs, policy=PolicySpec(name="exp3"))
        yield "control", key_of(manifest), codec.applications.encode(manifest)
        at_ms = int(time.time() * 1000)
        made = Change(application=manifest.name, revision=1, command="create", at_ms=at_ms, by="benchmark")
        yield "control", change_key(manifest.name, 1), codec.changes.encode(made)


def compared(applications: int, versions: int) -> Iterator[Entry]:
    """A comparison of each version."""
    for number in range(applications):
        for ref in refs_of(number, versions):
            mean = random.uniform(0.01, 0.3)
            found = Comparison(
                application=f"app-{number}",
                model=ref,
                stage="live",
                feedbacks=100,
                difference=mean - 0.1,
                lower=mean - 0.2,
                upper=mean,
                loss=mean,
                loss_lower=mean / 2,
                loss_upper=2 * mean,
            )
            yield "comparisons", comparison_key(found.application, ref), codec.comparisons.encode(found)


def totals(number: int, versions: int) -> Entry:
    """Totals of an application, as a router publishes them."""
    sums = [
        ModelTotalsRecord(model=ref, count=900.0, loss=random.uniform(9, 200), weighted_count=900.0, weighted_loss=90.0)
        for ref in refs_of(number, versions)
    ]
    row = SelectionRow(version=ROW_VERSION, offset=1, applied=1, totals=sums)
    return "selection", encode_key(RowKey(f"app-{number}", None, 0)), encode_row(row)


def prediction(number: int, versions: int) -> Prediction:
    """An answer by two versions."""
    asked = random.sample(range(versions), 2)
    answers = [
        ModelAnswer(
            model=f"model-{number}", version=str(one), propensity=0.2, output=1, latency_ms=random.expovariate(0.1)
        )
        for one in asked
    ]
    late = random.random() < 0.02
    at_ms = int(time.time() * 1000)
    latency_ms = 2.0 + max(one.latency_ms for one in answers)
    return Prediction(
        query_id=f"0-{random.getrandbits(128):032x}",
        application=f"app-{number}",
        models=answers,
        default=late,
        reason="late" if late else None,
        latency_ms=latency_ms,
        queried_at_ms=at_ms,
        predicted_at_ms=at_ms,
    )


def flowing(applications: int, versions: int, count: int) -> list[Entry]:
    """So many records as they come: predictions, a feedback to each, and totals after each."""
    found: list[Entry] = []
    for _ in range(count // 3):
        number = random.randrange(applications)
        one = prediction(number, versions)
        found.append(("predictions", b"k", codec.predictions.encode(one)))
        told = Feedback(query_id=one.query_id, application=one.application, label=1)
        found.append(("feedback", b"k", codec.feedback.encode(told)))
        found.append(totals(number, versions))
    return found


# --- jobs -----------------------------------------------------------------------------------------------------------
def look(url: str, pid: int, seconds: float, firsts: int, pages: int | None) -> dict[str, Any]:
    """Look at a gateway's console with so many pages, None: it has none; its CPU, and how long a first page takes."""
    with httpx.Client(base_url=url, timeout=WAIT_S, trust_env=False) as client:
        while client.get("/readyz").status_code != OK or "aria-busy" in client.get("/console").text:
            time.sleep(POLL_S)
    firsts_ms = sorted(_first_ms(url) for _ in range(0 if pages is None else firsts))
    cpu_percent, events_per_s = asyncio.run(_look(url, pid, seconds, PAGES[: pages or 0]))
    found = {"cpu_percent": cpu_percent, "events_per_s": events_per_s}
    return (
        {**found, "first_page_ms": firsts_ms[-1], "first_page_p50_ms": firsts_ms[firsts // 2]} if firsts_ms else found
    )


def _first_ms(url: str) -> float:
    """Milliseconds until a browser that has no connection yet has all of the overview, at any time of a second."""
    time.sleep(random.random())
    with httpx.Client(base_url=url, timeout=WAIT_S, trust_env=False) as browser:
        began_s = time.perf_counter()
        assert len(browser.get("/console").content) > LEAST_BYTES
        return round(1_000 * (time.perf_counter() - began_s), 1)


async def _look(url: str, pid: int, seconds: float, pages: list[str]) -> tuple[float, float]:
    events = [0]
    async with httpx.AsyncClient(base_url=url, timeout=WAIT_S, trust_env=False) as client:
        watching = [asyncio.create_task(_watch(client, page, events)) for page in pages]
        await asyncio.sleep(SETTLE_S)
        before, began_s, cpu_s = events[0], time.monotonic(), sum(cpu_s_by_process([pid]).values())
        await asyncio.sleep(seconds)
        took_s, used_s = time.monotonic() - began_s, sum(cpu_s_by_process([pid]).values()) - cpu_s
        for page in watching:
            assert not page.done()
            page.cancel()
    return round(100 * used_s / took_s, 3), round((events[0] - before) / took_s, 2)


async def _watch(client: httpx.AsyncClient, page: str, events: list[int]) -> None:
    """Read what changes on a page, and count."""
    async with client.stream("GET", "/console/live", params={"page": page}) as response:
        async for line in response.aiter_lines():
            events[0] += line.startswith("event: regions")


def follow(bootstrap: str, prefix: str, partitions: int, folder: str, seconds: float) -> dict[str, Any]:
    """Follow a deployment on a Kafka, with all pages open: how old what is shown is."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_follow(bootstrap, prefix, partitions, Path(folder), seconds))


async def _follow(bootstrap: str, prefix: str, partitions: int, folder: Path, seconds: float) -> dict[str, Any]:
    history = SeriesHistory(folder, time.time)
    view = LiveView(KafkaConnection(bootstrap), Catalogue(prefix=prefix, partitions=partitions), history)
    running = asyncio.create_task(view.run())
    while not view.is_read:
        await view.next_tick(view.tick)
    ages_s, rates, began_s, cpu_s = [], [], time.monotonic(), time.process_time()
    while time.monotonic() < began_s + seconds:
        await _page(view)
        now_s = time.time()
        ages_s.append(now_s - int(min(now_s, view.recent.until_s)))
        rates.append(sum(one.queries_per_s for one in view.applications()))
    took_s, used_s = time.monotonic() - began_s, time.process_time() - cpu_s
    running.cancel()
    await asyncio.wait([running])
    history.close()
    assert not view.stale_reason, view.stale_reason
    return {
        "cpu_percent": round(100 * used_s / took_s, 3),
        "age_s": round(max(ages_s), 3),
        "age_p50_s": round(sorted(ages_s)[len(ages_s) // 2], 3),
        "queries_per_s": round(sum(rates) / len(rates), 1),
        "sampled": view.recent.window("app-0", time.time(), 10).sampled,
        "applications": len(view.facts.declared.manifests.applications),
    }


async def _page(view: LiveView) -> None:
    """The next second, in which every page asks for what it shows: the overview, the models, and applications."""
    await view.next_tick(view.tick)
    _ = view.applications(), view.problems(), view.status().models
    for number in range(len(PAGES) - 2):
        view.application(f"app-{number}")


def keep(folder: str, applications: int, versions: int, seconds: int, per_s: int, steps: float) -> dict[str, Any]:
    """Two days of points of every value, then so many simulated seconds: size on disk, and memory."""
    return asyncio.run(_keep(Path(folder), applications, versions, seconds, per_s, steps))


async def _keep(
    folder: Path, applications: int, versions: int, seconds: int, per_s: int, steps: float
) -> dict[str, Any]:
    began_s, random_s = 1_800_000_000, random.Random(1)
    now = [float(began_s)]
    history = SeriesHistory(folder, lambda: now[0])
    view = LiveView(KafkaConnection("127.0.0.1:1"), Catalogue(), history, lambda: now[0])
    took = _filled(history, random_s, applications, versions, began_s, steps)
    filled_mib, largest_mib = _size_mib(folder), _size_mib(folder)
    for _, key, value in declared(applications, versions):
        (view.facts.host if b"/host." in key else view.facts.control)(key, value)
    pool = [prediction(number % applications, versions) for number in range(4_096)]
    view.is_read, view.stale_reason, samples = True, "", []
    for second in range(seconds):
        now[0] = began_s + second + 1.25
        for _ in range(per_s):
            one = random_s.choice(pool)
            view.recent.predicted(
                msgspec.structs.replace(one, predicted_at_ms=int(1000 * now[0])), now[0], now[0], 16.0
            )
            view.recent.fed_back(one.application, now[0], now[0], 16.0)
        view.recent.forget(now[0])
        if second % 60 == 0:
            for _, key, value in compared(applications, versions):
                view.facts.comparison(key, value, (), now[0])
        _, key, value = totals(second % applications, versions)
        view.facts.totals(key, value)
        view.look()
        _ = view.applications(), view.problems(), view.status().models
        await view.keep(int(now[0]))
        if second % 10 == 0:
            largest_mib = max(largest_mib, _size_mib(folder))
        if second % 60 == 59 or second == seconds - 1:
            gc.collect()
            samples.append(_rss_mib())
    known = [_known(history, now[0], span_s - 2 * step_s) for step_s, span_s in SPANS_S.items()]
    history.close()
    return {
        "us_a_point": round(1e6 * took, 1),
        "filled_mib": round(filled_mib, 2),
        "largest_mib": round(largest_mib, 2),
        "closed_mib": round(_size_mib(folder), 2),
        "known_percent": round(100 * min(known), 1),
        "rss_mib": [round(one, 1) for one in samples],
    }


def _filled(
    history: SeriesHistory, source: random.Random, applications: int, versions: int, until_s: int, steps: float
) -> float:
    """Fill the history, the oldest steps first, with noise in every value; seconds of the processor a point."""
    span_s, step_s = max(SPANS_S.values()), min(SPANS_S)
    count, cpu_s = 0, time.process_time()
    for at_s in range(until_s - int(span_s * steps), until_s, step_s):
        points = {}
        for number in range(applications):
            points[f"app-{number}"] = {"": {name: source.lognormvariate(2.0, 1.0) for name in APPLICATION_FIGURES}} | {
                ref: {name: source.lognormvariate(-1.0, 1.0) for name in VERSION_FIGURES}
                for ref in refs_of(number, versions)
            }
        history.add(at_s, points)
        count += len(points)
    return (time.process_time() - cpu_s) / count


def _known(history: SeriesHistory, now_s: float, span_s: int) -> float:
    """Share of the steps of a time of which there is a point."""
    found = history.series("app-0", now_s - span_s).values.get("queries_per_s", [0.0])
    return sum(one is not None for one in found) / len(found)


def _size_mib(folder: Path) -> float:
    found = 0
    for path in folder.rglob("*"):
        try:
            found += path.stat().st_size
        except FileNotFoundError:  # the oldest file went meanwhile
            continue
    return found / 2**20


def _rss_mib() -> float:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:")) / 1024


JOBS: dict[str, Callable[..., dict[str, Any]]] = {"look": look, "follow": follow, "keep": keep}

if __name__ == "__main__":
    job = json.loads(sys.argv[1])
    print(json.dumps(JOBS[job.pop("job")](**job)))
