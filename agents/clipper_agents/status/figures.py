"""Figures of applications and versions in short: a line of a list each, or a point of a curve."""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from clipper_agents.control.plan import wanted_hosts
from clipper_agents.status.build import StatusBuilder, weights_of
from clipper_agents.status.model import Latency
from clipper_agents.status.traffic_window import quantile
from clipper_stream.intervals import confidence_sequence
from clipper_stream.selection.state import ModelTotals
from clipper_topics.comparison import Comparison
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.prediction import REASONS

STARTING = frozenset({"starting", "draining"})
"""States of a host that is not ready yet, or not any more."""
Point = dict[str, float]
"""Figures by name; what is not known is left out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationSummary:
    """One application in a line.

    Attributes:
        defaults: Share of the queries that got the default output, by reason.
        models: How many versions it has, and how many of them are on trial (`trials`).
        problems: How many things are wrong with it.
        is_estimate: Whether the figures are of a sample of the records.
    """

    name: str
    policy: str
    objective_ms: int | None
    queries_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    defaults: Mapping[str, float]
    feedback_per_s: float
    models: int
    trials: int
    problems: int
    revision: int
    is_estimate: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSummary:
    """One declared version.

    Attributes:
        ref: `name:version`.
        applications: Those that use it, and its stage in each (`stages`).
        hosts_ready: None where it runs in the routers.
        target_ms: How long a batch should take at most.
        batch_limit: Rows that a batch may have now; None: unknown.
        batch_latency: Of its hosts' batches; None: unknown.
        cache_hit_ratio: Of its answers lately; None: it gave none.
        restarts: How often one of its hosts began anew while it was followed.
        failed: Why a host failed, by its name.
        starting: Names of hosts that are not ready yet, or not any more.
    """

    ref: str
    applications: tuple[str, ...]
    stages: tuple[str, ...]
    hosts_ready: int | None
    replicas: int
    colocated: bool
    retired: bool
    batch_limit: float | None
    target_ms: float
    batch_latency: Latency | None
    cache_hit_ratio: float | None
    restarts: int
    failed: Mapping[str, str]
    starting: tuple[str, ...]


def application_summaries(builder: StatusBuilder, problems: Mapping[str, int]) -> list[ApplicationSummary]:
    """Every application, in the order of the names, with how many things are wrong with it as far as that is known."""
    declared = builder.facts.declared.manifests.applications
    return [_summary(builder, name, declared[name], problems.get(name, 0)) for name in sorted(declared)]


def _summary(builder: StatusBuilder, name: str, manifest: ApplicationManifest, problems: int) -> ApplicationSummary:
    counts = builder.recent.window(name, builder.now_s, builder.window_s)
    (p50_ms, p99_ms), seconds, queries = _quantiles(counts.latencies_ms), counts.seconds or 1, counts.queries
    return ApplicationSummary(
        name=name,
        policy=manifest.policy.name,
        objective_ms=manifest.objective_ms,
        queries_per_s=queries / seconds,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        defaults={reason: count / queries for reason, count in counts.defaults.items()} if queries else {},
        feedback_per_s=counts.feedback / seconds,
        models=len(manifest.models) + len(manifest.trials),
        trials=len(manifest.trials),
        problems=problems,
        revision=manifest.revision,
        is_estimate=counts.sampled,
    )


def version_summaries(builder: StatusBuilder, restarts: Mapping[str, int]) -> list[VersionSummary]:
    """Every declared version, with how often its hosts began anew."""
    manifests, workers = builder.facts.declared.manifests, builder.workers
    uses: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    answers: defaultdict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for name, application in sorted(manifests.applications.items()):
        for ref in application.models:
            uses[ref].append((name, "live"))
        for trial in application.trials:
            uses[trial.model].append((name, trial.stage))
        for ref, counts in builder.recent.window(name, builder.now_s, builder.window_s).versions.items():
            answers[ref][0] += counts.cached
            answers[ref][1] += counts.answered
    found = []
    for ref, model in sorted(manifests.models.items()):
        hosts, users, (cached, answered) = builder.facts.hosts_of(ref), uses.get(ref, ()), answers.get(ref, (0, 0))
        ready = len(builder.ready_hosts(ref))
        found.append(
            VersionSummary(
                ref=ref,
                applications=tuple([name for name, _ in users]),
                stages=tuple([stage for _, stage in users]),
                hosts_ready=None if model.colocated else ready,
                replicas=wanted_hosts(model),
                colocated=model.colocated,
                retired=model.retired,
                batch_limit=workers.batch_limits.get(ref),
                target_ms=model.batch.target_ms,
                batch_latency=workers.batches.get(ref),
                cache_hit_ratio=cached / answered if answered else None,
                restarts=restarts.get(ref, 0),
                failed=_failed(hosts) if ready < len(hosts) else {},
                starting=tuple([one.instance for one in hosts if one.state in STARTING]),
            )
        )
    return found


def _failed(hosts: Iterable[HostReport]) -> dict[str, str]:
    return {one.instance: one.reason or "no reason given" for one in hosts if one.state == "failed"}


def point_of(builder: StatusBuilder, name: str, seconds: int | None = None) -> tuple[Point, dict[str, Point]]:
    """Figures of a declared application, and of each version that it names.

    Args:
        builder: What is known.
        name: The application's name.
        seconds: That rates are of; None: those of the builder's window.
    """
    manifest, state = builder.facts.declared.manifests.applications[name], builder.facts.state(name)
    counts = builder.recent.window(name, builder.now_s, builder.window_s)
    models = builder.facts.declared.manifests.models
    known_s, queries = seconds or counts.seconds or 1, counts.queries
    p50_ms, p99_ms = _quantiles(counts.latencies_ms)
    values = _known(
        queries_per_s=queries / known_s,
        feedback_per_s=counts.feedback / known_s,
        p50_ms=p50_ms,
        p99_ms=p99_ms,
        **{f"{stage}_ms": quantile(0.5, latencies_ms) for stage, latencies_ms in counts.stages_ms.items()},
        **{f"default:{reason}": counts.defaults.get(reason, 0.0) / queries for reason in REASONS if queries},
    )
    weights = weights_of(
        manifest,
        state,
        [ref for ref in manifest.models if (model := models.get(ref)) is not None and not model.retired],
    )
    shadows = {trial.model for trial in manifest.trials if trial.stage == "shadow"}
    versions = {}
    for ref in manifest.refs:
        counted, batches, totals = counts.of(ref), builder.workers.batches.get(ref), state.of(ref)
        p50_ms, p99_ms = _quantiles(counted.latencies_ms)
        versions[ref] = _known(
            weight=weights.get(ref),
            share=min(1.0, (counted.asked if ref in shadows else counted.served) / queries) if queries else None,
            p50_ms=p50_ms,
            p99_ms=p99_ms,
            batch_limit=builder.workers.batch_limits.get(ref),
            batch_p99_ms=None if batches is None else batches.p99_ms,
            cache_hit_ratio=counted.cached / counted.answered if counted.answered else None,
            **_losses(totals, builder.facts.fresh_comparison((name, ref), builder.now_s)),
        )
    return values, versions


def _losses(totals: ModelTotals, comparison: Comparison | None) -> dict[str, float | None]:
    """Loss and difference of a version: the steward's, or its loss by totals, with intervals that hold at all times."""
    found: dict[str, float | None] = {}
    if comparison is not None and comparison.difference is not None:
        ends = {"difference_lower": comparison.lower, "difference_upper": comparison.upper}
        found = {"difference": comparison.difference, **ends}
    if comparison is not None and comparison.loss is not None:
        mean, lower, upper = comparison.loss, comparison.loss_lower, comparison.loss_upper
    elif totals.count > 0:
        mean, (lower, upper) = totals.loss / totals.count, confidence_sequence(totals.loss, totals.count)
    else:
        return found
    return {**found, "loss": mean, "loss_lower": lower, "loss_upper": upper}


def _quantiles(latencies_ms: Iterable[float]) -> tuple[float | None, float | None]:
    ordered = sorted(latencies_ms)
    return quantile(0.5, ordered), quantile(0.99, ordered)


def _known(**figures: float | None) -> Point:
    return {name: value for name, value in figures.items() if value is not None}
