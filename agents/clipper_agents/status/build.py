"""How the status of applications follows from what was read.

[facts: what is declared, changed, learned] + [recent: what flowed] + [processes: what workers serve] -> [applications]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter

from clipper_agents.control.plan import refs_of, wanted_hosts
from clipper_agents.status.deployment_view import DeploymentView, one_line
from clipper_agents.status.model import (
    ApplicationStatus,
    ChangeStatus,
    DriftStatus,
    Latency,
    Loss,
    Stage,
    TrialStatus,
    VersionStatus,
    WorkerMetrics,
)
from clipper_agents.status.traffic_window import (
    LEAST_ASKED,
    LONGEST_S,
    WINDOW_S,
    TrafficCounts,
    TrafficWindow,
    quantile,
)
from clipper_stream.errors import SetupError
from clipper_stream.intervals import newcombe, wilson
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState
from clipper_topics.comparison import Comparison
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, Trial

SHOWN_CHANGES = 5
RETIRED_SHOWN_S = 86_400.0
JOINS_WITHIN_S = 15.0
"""A process that serves is a member; while its group divides the partitions anew it may be none."""
DRIFT_SHOWN_S = 7 * 86_400.0
"""As long as the logs are kept in which one can look why."""


def is_known(report: HostReport, asked_s: float) -> bool:
    """Whether a process says that it is ready, and for so long that its group knew it when it was asked."""
    return report.state == "ready" and report.at_ms / 1000 <= asked_s - JOINS_WITHIN_S


@dataclass(frozen=True, kw_only=True)
class StatusBuilder:
    """Makes the status of applications of what was read.

    Attributes:
        facts: What is declared, changed and learned.
        recent: What flowed.
        now_s: The time, seconds since the epoch.
        window_s: Seconds that figures of what flowed are of; an application's are of the last minute where it has fewer
            than `LEAST_ASKED` queries in these.
        context: Whose weights and losses are wanted.
        comparisons: What the logs say of trials of which the steward wrote nothing lately; one of which neither says
            anything is compared by totals.
    """

    facts: DeploymentView
    recent: TrafficWindow
    now_s: float
    window_s: int = WINDOW_S
    context: str | None = None
    comparisons: Sequence[Comparison] = ()
    workers: WorkerMetrics = field(default_factory=WorkerMetrics)

    def applications(self, names: Iterable[str] | None = None) -> dict[str, ApplicationStatus]:
        """Every application, or those named, by name."""
        declared = self.facts.declared.manifests.applications
        wanted = sorted(declared if names is None else set(names) & declared.keys())
        contexts = self.facts.context_counts() if self.facts.contexts_read else None
        return {
            name: self._application(declared[name], None if contexts is None else contexts[name]) for name in wanted
        }

    def _application(self, manifest: ApplicationManifest, contexts: int | None) -> ApplicationStatus:
        name = manifest.name
        counts = self.recent.window(name, self.now_s, self.window_s)
        if counts.queries < LEAST_ASKED:
            counts = self.recent.window(name, self.now_s, LONGEST_S)
        state = self.facts.state(name, self.context)
        return ApplicationStatus(
            models=tuple(manifest.models),
            revision=manifest.revision,
            policy=manifest.policy.name,
            objective_ms=manifest.objective_ms,
            window_s=counts.seconds,
            queries=round(counts.queries),
            defaults=_whole(counts.defaults),
            feedback=round(counts.feedback),
            latency=_latency(counts.latencies_ms),
            stages={stage: one for stage, ms in counts.stages_ms.items() if (one := _latency(ms)) is not None},
            versions=tuple(self._versions(manifest, state, counts)),
            trials=tuple(self._trial(manifest, trial, state) for trial in manifest.trials),
            contexts=contexts,
            contexts_whole=self.facts.contexts_whole,
            context=self.context,
            changes=tuple(self._changes(name)),
        )

    # --- versions ---------------------------------------------------------------------------------------------------
    def _versions(
        self, manifest: ApplicationManifest, state: SelectionState, counts: TrafficCounts
    ) -> Iterable[VersionStatus]:
        models = self.facts.declared.manifests.models
        present = [ref for ref in manifest.models if ref in models and not models[ref].retired]
        weights = weights_of(manifest, state, present)
        for ref in manifest.models:
            drift = self._drift(manifest.name, ref)
            yield self._version(manifest.name, ref, "live", state, counts, weight=weights.get(ref), drift=drift)
        for trial in manifest.trials:
            drift = self._drift(manifest.name, trial.model)
            share = trial.share
            yield self._version(
                manifest.name, trial.model, trial.stage, state, counts, declared_share=share, drift=drift
            )
        for ref in self._retired(manifest):
            yield self._version(manifest.name, ref, "retired", state, counts)

    def _retired(self, manifest: ApplicationManifest) -> list[str]:
        """Versions that left the application within the last day."""
        since_ms = 1000 * (self.now_s - RETIRED_SHOWN_S)
        recent = [each for each in self.facts.changes_of(manifest.name) if each.at_ms > since_ms]
        had = {ref for change in recent for ref in (change.model, *refs_of(change.before)) if ref is not None}
        models = self.facts.declared.manifests.models
        left = had.difference(refs_of(manifest)) & models.keys()
        return sorted(ref for ref in left if models[ref].retired)

    def _version(
        self,
        application: str,
        ref: str,
        stage: Stage,
        state: SelectionState,
        counts: TrafficCounts,
        *,
        weight: float | None = None,
        declared_share: float | None = None,
        drift: DriftStatus | None = None,
    ) -> VersionStatus:
        model = self.facts.declared.manifests.models.get(ref)
        reports = self.facts.hosts_of(ref)
        has_hosts = model is not None and not model.colocated
        counted, totals = counts.of(ref), state.of(ref)
        had = counted.asked if stage == "shadow" else counted.served
        return VersionStatus(
            model=ref,
            stage=stage,
            declared_share=declared_share,
            weight=weight,
            loss=self._loss(application, ref, totals),
            share=min(1.0, had / counts.queries) if counts.queries else None,
            queries=round(counted.asked),
            unanswered=_whole(counted.unanswered),
            said=one_line(counted.said),
            hosts=len(self.ready_hosts(ref)) if has_hosts and self._hosts_known(ref) else None,
            replicas=0 if model is None else wanted_hosts(model),
            colocated=model is not None and model.colocated,
            declared=model is not None,
            starting=tuple(report.instance for report in reports if report.state in {"starting", "draining"}),
            failed={
                report.instance: one_line(report.reason or "no reason given")
                for report in reports
                if report.state == "failed"
            },
            batch_limit=self.workers.batch_limits.get(ref),
            latency=_latency(counted.latencies_ms),
            lag=self.workers.lag.get(ref),
            drift=drift,
        )

    def _hosts_known(self, ref: str) -> bool:
        """Whether the hosts of the version, or its group, say anything about how many there are."""
        return bool(self.facts.hosts.reports) or ref in self.workers.members

    def _loss(self, application: str, ref: str, totals: ModelTotals) -> Loss | None:
        """What a version loses: as the steward has it, where it does; else, and in a context, by the totals."""
        found = None if self.context is not None else self.facts.fresh_comparison((application, ref), self.now_s)
        if found is None or found.loss is None:
            return _loss(totals.loss, totals.count)
        return Loss(count=found.feedbacks, mean=found.loss, lower=found.loss_lower, upper=found.loss_upper)

    def _drift(self, application: str, ref: str) -> DriftStatus | None:
        """The newest detection, when it was a rise, and of the last week: a fall after it ends it."""
        found = self.facts.declared.drifts.get((application, ref))
        if found is None or not found.worse or self.now_s - found.at_ms / 1000 > DRIFT_SHOWN_S:
            return None
        return DriftStatus(
            at_s=found.at_ms / 1000,
            ago_s=self.now_s - found.at_ms / 1000,
            loss_before=found.loss_before,
            loss_after=found.loss_after,
            context=None if found.context is None else one_line(found.context),
            detector=one_line(found.detector),
        )

    def ready_hosts(self, ref: str) -> frozenset[str]:
        """Names of the hosts of a version that serve: they say so, and their group, where it was asked, hears of them.

        One that may not say anything serves where it is in the group.
        """
        reports, members = self.facts.hosts_of(ref), self.workers.members.get(ref)
        ready = frozenset(report.instance for report in reports if report.state == "ready")
        if members is None:
            return ready
        return members - {report.instance for report in reports} | ready - self.unheard_hosts(ref)

    def unheard_hosts(self, ref: str) -> frozenset[str]:
        """Names of the hosts of a version that say that they are ready, and of which their group does not hear."""
        members = self.workers.members.get(ref)
        said = (one for one in self.facts.hosts_of(ref) if is_known(one, self.workers.members_at_s))
        return frozenset() if members is None else frozenset({one.instance for one in said} - members)

    # --- trials and changes -----------------------------------------------------------------------------------------
    def _trial(self, manifest: ApplicationManifest, trial: Trial, state: SelectionState) -> TrialStatus:
        key = manifest.name, trial.model
        found = self.facts.fresh_comparison(key, self.now_s) or next(
            (one for one in self.comparisons if (one.application, one.model) == key), None
        )
        if found is None:
            mine, others = state.of(trial.model), sum(map(state.of, manifest.models), ModelTotals())
            difference, (lower, upper) = newcombe((mine.loss, mine.count), (others.loss, others.count))
            feedbacks = int(mine.count)
            loss, answers = _loss(mine.loss, mine.count), _loss(others.loss, others.count)
        else:
            difference, lower, upper, feedbacks = found.difference or 0.0, found.lower, found.upper, found.feedbacks
            loss = _loss((found.trial_loss or 0.0) * found.trial_feedbacks, found.trial_feedbacks)
            answers = _loss((found.answer_loss or 0.0) * found.answer_feedbacks, found.answer_feedbacks)
        changed_ms = (one.at_ms for one in self.facts.changes_of(manifest.name) if one.model == trial.model)
        return TrialStatus(
            model=trial.model,
            feedbacks=feedbacks,
            difference=difference,
            lower=lower,
            upper=upper,
            source="totals" if found is None else "steward",
            since_s=next((at_ms / 1000 for at_ms in changed_ms), None),
            automatic=trial.automatic,
            scores=0 if found is None else found.scores,
            waiting=0 if found is None else found.waiting,
            from_s=None if found is None else found.since_s,
            upto_s=None if found is None or not found.scores else found.upto_s,
            waits_for=("" if trial.automatic else "somebody to decide, it is not automatic; ")
            + ("the steward's next report of its evidence" if found is None else found.waits_for),
            loss=loss,
            answers=answers,
        )

    def _changes(self, application: str) -> Iterable[ChangeStatus]:
        for change in self.facts.changes_of(application)[:SHOWN_CHANGES]:
            yield ChangeStatus(
                revision=change.revision,
                at_s=change.at_ms / 1000,
                by=one_line(change.by),
                command=change.command,
                model=change.model,
                why=one_line(change.why),
            )


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


def _loss(total: float, count: float) -> Loss | None:
    if count <= 0:
        return None
    lower, upper = wilson(total, count)
    return Loss(count=round(count, 3), mean=total / count, lower=lower, upper=upper)


def _latency(values: Sequence[float]) -> Latency | None:
    p50_ms, p99_ms = quantile(0.5, values), quantile(0.99, values)
    if p50_ms is None or p99_ms is None:
        return None
    return Latency(p50_ms=p50_ms, p99_ms=p99_ms)
