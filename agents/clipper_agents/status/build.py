"""How the status of a deployment follows from what was read: from its records, its brokers and the metrics of hosts."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import itemgetter
from typing import Any

import msgspec

from clipper_agents.control.plan import refs_of, wanted_hosts
from clipper_agents.status.deployment_view import DeploymentView, one_line
from clipper_agents.status.model import (
    ApplicationStatus,
    ClusterStatus,
    GroupStatus,
    Latency,
    Loss,
    ModelStatus,
    Stage,
    Status,
    Verdict,
    VersionStatus,
)
from clipper_agents.status.processes import NO_METRICS, ServedMetrics
from clipper_agents.status.traffic_window import (
    LEAST_ASKED,
    LONGEST_S,
    WINDOW_S,
    TrafficCounts,
    TrafficWindow,
    quantile,
)
from clipper_stream.errors import SetupError
from clipper_stream.intervals import wilson
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState
from clipper_topics.comparison import Comparison
from clipper_topics.drift import DriftEvent
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest, RolloutRule, Trial

SHOWN_CHANGES = 5
NOT_SHOWN: Mapping[str, Any] = {"before": None, "after": None, "feedback_ends": [], "rows": None}
"""Of a change: its manifests and the selection state of then."""
RETIRED_SHOWN_S = 86_400.0
JOINS_WITHIN_S = 15.0
"""A process that serves is a member; while its group divides the partitions anew it may be none."""
DRIFT_SHOWN_S = 7 * 86_400.0
"""As long as the logs are kept in which one can look why."""


@dataclass(frozen=True, kw_only=True)
class StatusBuilder:
    """Makes the status of a deployment of what was read.

    Attributes:
        facts: What is declared, changed and learned.
        recent: What flowed.
        now_s: The time, seconds since the epoch.
        cluster: What the brokers say; None: they were not asked yet.
        metrics: What hosts serve.
    """

    facts: DeploymentView
    recent: TrafficWindow
    now_s: float
    cluster: ClusterStatus | None = None
    metrics: ServedMetrics = NO_METRICS
    _models: dict[str, ModelStatus] = field(default_factory=dict, init=False)

    def status(self, prefix: str, applications: Mapping[str, ApplicationStatus] | None = None) -> Status:
        """The deployment whose topics have this prefix, with these applications, or with all as they are now."""
        found = self.applications() if applications is None else applications
        manifests, reports = self.facts.declared.manifests, self.facts.hosts.reports.values()
        return Status(
            prefix=prefix,
            at_s=self.now_s,
            applications={name: found[name] for name in sorted(manifests.applications.keys() & found.keys())},
            models={ref: self.model(ref, manifests.models[ref]) for ref in sorted(manifests.models)},
            unreadable={key: one.advice for key, one in manifests.unreadable.items()},
            cluster=self.cluster,
            processes={one.instance: tuple(map(one_line, one.problems)) for one in reports if one.problems},
            routers=tuple(sorted(one.instance for one in reports if not one.model and self._is_known(one))),
            pids={one.instance: one.pid for one in reports if one.pid is not None},
        )

    def applications(self, names: Iterable[str] | None = None) -> dict[str, ApplicationStatus]:
        """Every application, or those named, by name."""
        declared = self.facts.declared.manifests.applications
        wanted = sorted(declared if names is None else set(names) & declared.keys())
        return {name: self._application(declared[name]) for name in wanted}

    def _application(self, manifest: ApplicationManifest) -> ApplicationStatus:
        name = manifest.name
        counts = self.recent.window(name, self.now_s, WINDOW_S)
        if counts.queries < LEAST_ASKED:
            counts = self.recent.window(name, self.now_s, LONGEST_S)
        state, changes = self.facts.state(name), self.facts.changes_of(name)[:SHOWN_CHANGES]
        return ApplicationStatus(
            name=name,
            models=tuple(manifest.models),
            revision=manifest.revision,
            policy=manifest.policy.name,
            objective_ms=manifest.objective_ms,
            window_s=counts.seconds,
            is_estimate=counts.sampled,
            queries=round(counts.queries),
            defaults=_whole(counts.defaults),
            feedback=round(counts.feedback),
            latency=_latency(counts.latencies_ms),
            stages={stage: one for stage, ms in counts.stages_ms.items() if (one := _latency(ms)) is not None},
            versions=tuple(self._versions(manifest, state, counts)),
            changes=tuple(msgspec.structs.replace(one, **NOT_SHOWN) for one in changes),
        )

    # --- models and their hosts -------------------------------------------------------------------------------------
    def model(self, ref: str, manifest: ModelManifest) -> ModelStatus:
        """What is known of a declared version beside its applications."""
        if ref not in self._models:
            reports, group = self.facts.hosts_of(ref), self._groups.get(ref)
            is_known = not manifest.colocated and (group is not None or bool(self.facts.hosts.reports))
            self._models[ref] = ModelStatus(
                ref=ref,
                colocated=manifest.colocated,
                retired=manifest.retired,
                replicas=wanted_hosts(manifest),
                hosts=len(self._ready(ref)) if is_known else None,
                unheard=() if manifest.retired else tuple(sorted(self._unheard(ref))),
                starting=tuple(one.instance for one in reports if one.state in {"starting", "draining"}),
                failed={
                    one.instance: one_line(one.reason or "no reason given") for one in reports if one.state == "failed"
                },
                restarts=self.facts.restarts[ref],
                target_ms=manifest.batch.target_ms,
                batch_limit=self.metrics.batch_limits.get(ref),
                batches=self.metrics.batches.get(ref),
                lag=None if group is None else sum(group.lag.values()),
            )
        return self._models[ref]

    @cached_property
    def _groups(self) -> dict[str | None, GroupStatus]:
        return {} if self.cluster is None else {group.model: group for group in self.cluster.groups}

    def _members(self, ref: str) -> set[str] | None:
        group = self._groups.get(ref)
        return None if group is None else {member.instance for member in group.members}

    def _is_known(self, report: HostReport) -> bool:
        """Whether a process says that it is ready, and for so long that its group knew it when it was asked."""
        asked_s = math.inf if self.cluster is None else self.cluster.at_s
        return report.state == "ready" and report.at_ms / 1000 <= asked_s - JOINS_WITHIN_S

    def _ready(self, ref: str) -> set[str]:
        """Names of the hosts of a version that serve: they say so, and their group, where it was asked, hears of them.

        One that may not say anything serves where it is in the group.
        """
        reports, members = self.facts.hosts_of(ref), self._members(ref)
        ready = {report.instance for report in reports if report.state == "ready"}
        if members is None:
            return ready
        return members - {report.instance for report in reports} | ready - self._unheard(ref)

    def _unheard(self, ref: str) -> set[str]:
        """Names of the hosts of a version that say that they are ready, and of which their group does not hear."""
        members = self._members(ref)
        said = {one.instance for one in self.facts.hosts_of(ref) if self._is_known(one)}
        return set() if members is None else said - members

    # --- versions ---------------------------------------------------------------------------------------------------
    def _versions(
        self, manifest: ApplicationManifest, state: SelectionState, counts: TrafficCounts
    ) -> Iterable[VersionStatus]:
        models = self.facts.declared.manifests.models
        present = [ref for ref in manifest.models if ref in models and not models[ref].retired]
        weights = weights_of(manifest, state, present)
        trials = {trial.model: trial for trial in manifest.trials}
        changed_ms = {one.model: one.at_ms for one in reversed(self.facts.changes_of(manifest.name))}
        stages: dict[str, Stage] = dict.fromkeys(manifest.models, "live")
        stages |= {ref: trial.stage for ref, trial in trials.items()}
        stages |= dict.fromkeys(self._retired(manifest), "retired")
        for ref, stage in stages.items():
            counted, trial = counts.of(ref), trials.get(ref)
            had = counted.asked if stage == "shadow" else counted.served
            compared = self.facts.fresh_comparison((manifest.name, ref), self.now_s)
            yield VersionStatus(
                model=ref,
                stage=stage,
                declared=None if ref not in models else self.model(ref, models[ref]),
                declared_share=None if trial is None else trial.share,
                weight=weights.get(ref),
                loss=self._loss(compared, state.of(ref)),
                compared=compared,
                share=min(1.0, had / counts.queries) if counts.queries else None,
                queries=round(counted.asked),
                unanswered=_whole(counted.unanswered),
                said=one_line(counted.said),
                latency=_latency(counted.latencies_ms),
                cache_hit_ratio=counted.cached / counted.answered if counted.answered else None,
                drift=None if stage == "retired" else self._drift(manifest.name, ref),
                since_s=None if trial is None or ref not in changed_ms else changed_ms[ref] / 1000,
                verdict=None if trial is None else _verdict(manifest.rollout, compared),
                waits_for="" if trial is None else _waits_for(trial, compared),
            )

    def _retired(self, manifest: ApplicationManifest) -> list[str]:
        """Versions that left the application within the last day."""
        since_ms = 1000 * (self.now_s - RETIRED_SHOWN_S)
        recent = [each for each in self.facts.changes_of(manifest.name) if each.at_ms > since_ms]
        had = {ref for change in recent for ref in (change.model, *refs_of(change.before)) if ref is not None}
        models = self.facts.declared.manifests.models
        left = had.difference(refs_of(manifest)) & models.keys()
        return sorted(ref for ref in left if models[ref].retired)

    def _loss(self, compared: Comparison | None, totals: ModelTotals) -> Loss | None:
        """What a version loses: as the steward has it, where it does; else by the totals."""
        if compared is not None and compared.loss is not None:
            lower, upper = compared.loss_lower, compared.loss_upper
            return Loss(count=compared.feedbacks, mean=compared.loss, lower=lower, upper=upper)
        if totals.count <= 0:
            return None
        lower, upper = wilson(totals.loss, totals.count)
        return Loss(count=round(totals.count, 3), mean=totals.loss / totals.count, lower=lower, upper=upper)

    def _drift(self, application: str, ref: str) -> DriftEvent | None:
        found = self.facts.declared.drifts.get((application, ref))
        is_shown = found is not None and found.worse and self.now_s - found.at_ms / 1000 <= DRIFT_SHOWN_S
        return found if is_shown else None


def _verdict(rule: RolloutRule, compared: Comparison | None) -> Verdict:
    if compared is None:
        return "undecided"
    if compared.lower > rule.margin:
        return "worse"
    if compared.upper >= rule.margin or compared.feedbacks < rule.least:
        return "undecided"
    return "better" if compared.upper < 0 else "not worse"


def weights_of(manifest: ApplicationManifest | None, state: SelectionState, refs: Sequence[str]) -> dict[str, float]:
    """The policy's weight of each of these candidates; none where it cannot say any."""
    if manifest is None or not refs:
        return {}
    try:
        return make_policy(manifest.policy.name, manifest.policy.parameters).weights(state, refs)
    except (SetupError, TypeError):  # routers refuse such a manifest too, and say so
        return {}


def _whole(counts: Mapping[str, float]) -> dict[str, int]:
    """The counts as whole numbers, the largest first."""
    return {key: round(count) for key, count in sorted(counts.items(), key=itemgetter(1), reverse=True)}


def _waits_for(trial: Trial, compared: Comparison | None) -> str:
    decides = "" if trial.automatic else "somebody to decide, it is not automatic; "
    return decides + ("the steward's next report of its evidence" if compared is None else compared.waits_for)


def _latency(values: Sequence[float]) -> Latency | None:
    ordered = sorted(values)
    p50_ms, p99_ms = quantile(0.5, ordered), quantile(0.99, ordered)
    return None if p50_ms is None or p99_ms is None else Latency(p50_ms=p50_ms, p99_ms=p99_ms)
