"""How the status of a deployment follows from what was read: from its records, its brokers and the metrics of hosts."""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np

from clipper_agents.control.host_reports import one_line
from clipper_agents.control.plan import refs_of, wanted_hosts
from clipper_agents.status.deployment_view import DeploymentView
from clipper_agents.status.model import (
    ApplicationStatus,
    ClusterStatus,
    GroupStatus,
    Latency,
    Loss,
    ModelStatus,
    Stage,
    Status,
    VersionStatus,
)
from clipper_agents.status.processes import ServedMetrics
from clipper_agents.status.traffic_window import (
    LEAST_ASKED,
    LONGEST_S,
    WINDOW_S,
    TrafficCounts,
    TrafficWindow,
)
from clipper_stream.errors import SetupError
from clipper_stream.selection.confidence import BINS, Z, expected_loss
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState
from clipper_stream.sequential_testing.planned_test import TrialPlan, outlook
from clipper_topics.comparison import Comparison
from clipper_topics.drift import DriftEvent
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest, Trial

SHOWN_CHANGES = 5
NOT_SHOWN: Mapping[str, Any] = {"before": None, "after": None, "feedback_ends": [], "rows": None}
"""Of a change: its manifests and the selection state of then."""
RETIRED_SHOWN_S = 86_400.0
STARTS_WITHIN_S = 150.0
"""So long `up` waits for a host; one that has said for longer that it starts was killed meanwhile."""
JOINS_WITHIN_S = 15.0
"""A process that serves is a member; while its group divides the partitions anew it may be none."""
ENDED = {"promote": "promoted", "abort": "aborted", "retire": "retired"}
"""Verdict about a trial that a change ended."""
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
    metrics: ServedMetrics = field(default_factory=ServedMetrics)
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
        if counts.amounts["queries",] < LEAST_ASKED:
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
            queries=round(counts.amounts["queries",]),
            defaults=counts.by("default"),
            feedback=round(counts.amounts["feedback",]),
            latency=_latency(counts.samples_ms["answers",]),
            stages={
                stage: found
                for stage in ("wait", "models", "record")
                if (found := _latency(counts.samples_ms["stage", stage])) is not None
            },
            versions=tuple(self._versions(manifest, state, counts)),
            changes=tuple(msgspec.structs.replace(one, **NOT_SHOWN) for one in changes),
        )

    # --- models and their hosts -------------------------------------------------------------------------------------
    def model(self, ref: str, manifest: ModelManifest) -> ModelStatus:
        """What is known of a declared version beside its applications.

        A host serves when it says so and its group, where that was asked, hears of it; one that may not say anything,
        when it is in the group.
        """
        if ref not in self._models:
            reports, group = self._reports.get(ref, ()), self._groups.get(ref)
            ready, unheard = {one.instance for one in reports if one.state == "ready"}, set[str]()
            if group is not None:
                members = {member.instance for member in group.members}
                unheard = {one.instance for one in reports if self._is_known(one)} - members
                ready = members - {one.instance for one in reports} | ready - unheard
            recent_ms = 1000 * (self.now_s - STARTS_WITHIN_S)
            is_known = not manifest.colocated and (group is not None or bool(self.facts.hosts.reports))
            self._models[ref] = ModelStatus(
                ref=ref,
                colocated=manifest.colocated,
                retired=manifest.retired,
                replicas=wanted_hosts(manifest),
                hosts=len(ready) if is_known else None,
                unheard=() if manifest.retired else tuple(sorted(unheard)),
                starting=tuple(one.instance for one in reports if one.state == "starting" and one.at_ms > recent_ms),
                failed={
                    one.instance: one_line(one.reason or "no reason given") for one in reports if one.state == "failed"
                },
                target_ms=manifest.batch.target_ms,
                batch_limit=self.metrics.batch_limits.get(ref),
                batches=self.metrics.batches.get(ref),
                lag=None if group is None else sum(group.lag.values()),
            )
        return self._models[ref]

    @cached_property
    def _reports(self) -> Mapping[str, Sequence[HostReport]]:
        found = defaultdict[str, list[HostReport]](list)
        for report in sorted(self.facts.hosts.reports.values(), key=attrgetter("instance")):
            found[report.model].append(report)
        return found

    @cached_property
    def _groups(self) -> dict[str | None, GroupStatus]:
        return {} if self.cluster is None else {group.model: group for group in self.cluster.groups}

    def _is_known(self, report: HostReport) -> bool:
        """Whether a process says that it is ready, and for so long that its group knew it when it was asked."""
        asked_s = math.inf if self.cluster is None else self.cluster.at_s
        return report.state == "ready" and report.at_ms / 1000 <= asked_s - JOINS_WITHIN_S

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
        last, bins = self.recent.window(manifest.name, self.now_s, LONGEST_S), [*map(str, range(BINS))]
        for ref, stage in stages.items():
            counted, trial = counts.amounts, trials.get(ref)
            had = counted["asked" if stage == "shadow" else "served", ref]
            answered, queries = counted["answered", ref], counted["queries",]
            compared = self.facts.fresh_comparison((manifest.name, ref), self.now_s)
            yield VersionStatus(
                model=ref,
                stage=stage,
                declared=None if ref not in models else self.model(ref, models[ref]),
                declared_share=None if trial is None else trial.share,
                weight=weights.get(ref),
                loss=self._loss(compared, state.of(ref)),
                expected=expected_loss(
                    state.of(ref).calibration, [last.amounts["confidence", ref, one] for one in bins]
                ),
                compared=compared,
                share=min(1.0, had / queries) if queries else None,
                queries=round(counted["asked", ref]),
                unanswered=counts.by("unanswered", ref),
                said=one_line(counts.said.get(ref, "")),
                latency=_latency(counts.samples_ms["version", ref]),
                cache_hit_ratio=counted["cached", ref] / answered if answered else None,
                drift=None if stage == "retired" else self._drift(manifest.name, ref),
                since_s=None if trial is None or ref not in changed_ms else changed_ms[ref] / 1000,
                verdict=None if trial is None else _finding(compared),
                waits_for="" if trial is None else _waits_for(trial, compared),
                plan="" if trial is None else self._plan(manifest, trial, compared, counts),
            )

    def _plan(
        self, manifest: ApplicationManifest, trial: Trial, compared: Comparison | None, counts: TrafficCounts
    ) -> str:
        """How long a planned trial takes, by what it has shown, or else by what the live models lose."""
        rule, share = manifest.scaled_rollout, trial.share
        if rule.plan is None:
            return ""
        if compared is not None and compared.standard_error and compared.scores:
            variance, drawn = compared.standard_error**2 * compared.scores, not compared.paired
            if manifest.assign == "context" and compared.trial_feedbacks:  # a score is the mean of a context's losses
                variance *= compared.feedbacks / compared.trial_feedbacks
        else:
            state, drawn = self.facts.state(manifest.name), trial.stage == "canary"
            losses = [one.mean for ref in manifest.models if (one := self._loss(None, state.of(ref)))]
            mean = sum(losses) / len(losses) if losses else 0.5
            variance = mean * (1.0 - mean) / (share * (1.0 - share) if drawn and 0.0 < share < 1.0 else 1.0)
        per_s = counts.amounts["feedback",] / max(1, counts.seconds) * (1.0 if drawn else share + trial.shadow_share)
        plan, margin = TrialPlan(**msgspec.structs.asdict(rule.plan)), 0.0 if rule.relative_margin else rule.margin
        return outlook(plan, (1.0 - rule.confidence) / 2, margin, per_s, variance, share if drawn else None)

    def _retired(self, manifest: ApplicationManifest) -> list[str]:
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


def trial_verdict(facts: DeploymentView, name: str, ref: str, now_s: float) -> dict[str, Any]:
    """How the trial of a version for an application stands, or ended; empty where there was none."""
    manifest = facts.declared.manifests.applications[name]
    for trial in [one for one in manifest.trials if one.model == ref]:
        compared = facts.fresh_comparison((name, ref), now_s)
        finding, why = _finding(compared).replace(" ", "_"), _waits_for(trial, compared)
        return {"verdict": finding, "why": why, "stage": trial.stage, "share": trial.share, "evidence": compared}
    for change in facts.changes_of(name):
        if change.model == ref and (verdict := ENDED.get(change.command, "")):
            has_left = verdict == "promoted" and ref not in manifest.models
            return {"verdict": "retired" if has_left else verdict, "why": change.why, "numbers": change.numbers}
    return {}


def weights_of(manifest: ApplicationManifest | None, state: SelectionState, refs: Sequence[str]) -> dict[str, float]:
    """The policy's weight of each of these candidates; none where it cannot say any."""
    if manifest is None or not refs:
        return {}
    try:
        return make_policy(manifest.policy.name, manifest.policy.parameters).weights(state, refs)
    except (SetupError, TypeError):  # routers refuse such a manifest too, and say so
        return {}


def _finding(compared: Comparison | None) -> str:
    return "undecided" if compared is None else compared.finding


def _waits_for(trial: Trial, compared: Comparison | None) -> str:
    decides = "" if trial.automatic else "somebody to decide, it is not automatic; "
    return decides + ("the steward's next report of its evidence" if compared is None else compared.waits_for)


def _latency(values_ms: Sequence[float]) -> Latency | None:
    if not values_ms:
        return None
    p50_ms, p99_ms = np.quantile(values_ms, (0.5, 0.99), method="inverted_cdf").tolist()
    return Latency(p50_ms=p50_ms, p99_ms=p99_ms)


def wilson(wrong: float, count: float) -> tuple[float, float]:
    """95 % interval of a mean loss, right for one look; it stays within [0, 1] and is not empty at 0 errors.

    Of losses between 0 and 1 it is wider than it need be: no loss with this mean varies more than one of 0 and 1.

    Args:
        wrong: Sum of the losses, each in [0, 1].
        count: How many they are, >= 0; with a discount no whole number.

    >>> tuple(round(bound, 4) for bound in wilson(5, 100))
    (0.0215, 0.1118)

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.
    """
    if count <= 0:
        return 0.0, 1.0
    share, ratio = min(1.0, max(0.0, wrong / count)), Z * Z / count
    centre = (share + ratio / 2) / (1 + ratio)
    half = Z * math.sqrt(share * (1 - share) / count + ratio / (4 * count)) / (1 + ratio)
    return max(0.0, centre - half), min(1.0, centre + half)
