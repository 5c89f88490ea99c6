"""Applications and their versions at one moment: records, and how they follow from what was read.

[facts: what is declared, changed, learned] + [recent: what flowed] + [processes: what workers serve] -> [applications]
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

from clipper_agents.admin.facts import Facts, one_line
from clipper_agents.admin.intervals import newcombe, wilson
from clipper_agents.admin.recent import Counts, Recent, quantile
from clipper_stream.errors import SetupError
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import ModelTotals, SelectionState
from clipper_topics.manifests import ApplicationManifest, ModelManifest, RolloutRule, Trial

Stage = Literal["live", "canary", "shadow", "retired"]
SHOWN_CHANGES = 5


class Comparison(Protocol):
    """A trial beside what the application's models answered; the steward's are paired and hold at all times at once."""

    @property
    def application(self) -> str:
        """The application."""
        ...

    @property
    def model(self) -> str:
        """The version on trial, `name:version`."""
        ...

    @property
    def feedbacks(self) -> int:
        """How many feedbacks were about it."""
        ...

    @property
    def difference(self) -> float:
        """Its mean loss less theirs."""
        ...

    @property
    def lower(self) -> float:
        """Lower end of the interval of the difference."""
        ...

    @property
    def upper(self) -> float:
        """Upper end of it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """Mean loss of a version over the feedback about it.

    Attributes:
        count: Feedbacks; with a half-life those that still weigh, which is no whole number.
        mean: In [0, 1].
        lower: Lower end of its 95 % interval.
        upper: Upper end of it.
    """

    count: float
    mean: float
    lower: float
    upper: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long answers took.

    Attributes:
        p50_ms: Half of them at most so long.
        p99_ms: 99 % of them at most so long.
        source: `metrics`: batches, or answers, since the processes started. `predictions`: what the log has lately.
    """

    p50_ms: float
    p99_ms: float
    source: Literal["metrics", "predictions"]


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionStatus:
    """One version of an application.

    Attributes:
        model: `name:version`.
        stage: `live`: one of its models. `retired`: it was, and its manifest is still there.
        declared_share: Of a trial: the share of queries that it is to have.
        weight: The policy's trust in it, in [0, 1]; None when the policy does not choose it.
        loss: None without feedback.
        share: Share of the queries that it answered lately; of a shadow, for which it was asked. None without queries.
        queries: For how many queries it was asked in that time.
        hosts: How many of its hosts are ready; None: it runs in the routers, or nobody said.
        replicas: How many hosts it should have; 0 when it runs in the routers.
        colocated: Whether it runs in the routers.
        declared: Whether its manifest exists.
        starting: Names of hosts that are not ready yet, or not any more.
        failed: Why a host failed, by its name.
        batch_limit: Rows that a batch may have now; None where no metrics are known.
        latency: Of its answers.
        lag: Requests that its hosts have not finished; None when unknown.
    """

    model: str
    stage: Stage
    declared_share: float | None = None
    weight: float | None = None
    loss: Loss | None = None
    share: float | None = None
    queries: int = 0
    hosts: int | None = None
    replicas: int = 0
    colocated: bool = False
    declared: bool = True
    starting: tuple[str, ...] = ()
    failed: Mapping[str, str] = field(default_factory=dict)
    batch_limit: float | None = None
    latency: Latency | None = None
    lag: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialStatus:
    """How a version on trial compares with the application's models.

    Attributes:
        model: `name:version`.
        feedbacks: About it.
        difference: Its mean loss less theirs.
        lower: Lower end of the interval of the difference.
        upper: Upper end of it.
        source: `steward`: paired, and holds at all times at once. `totals`: of two means, a look at one moment.
        since_s: When it was put into its stage, seconds since the epoch; None when no change says so.
        automatic: Whether the rule moves it.
        waits_for: What has to come before the next step.
    """

    model: str
    feedbacks: int
    difference: float
    lower: float
    upper: float
    source: Literal["steward", "totals"]
    since_s: float | None = None
    automatic: bool = False
    waits_for: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeStatus:
    """A change, without the manifests: the control topic has those.

    Attributes:
        revision: After it.
        at_s: When, seconds since the epoch.
        by: Who.
        command: What.
        model: About which version.
        why: Why.
    """

    revision: int
    at_s: float
    by: str
    command: str
    model: str | None = None
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationStatus:
    """One application.

    Attributes:
        models: Its models, as declared.
        revision: Of its manifest.
        policy: Name of its policy.
        objective_ms: None: no deadline.
        window_s: Seconds that the figures of what flowed are of.
        queries: Answered in that time.
        defaults: Default answers among them, by reason.
        feedback: Feedback records that name the application in that time.
        latency: Of its answers.
        versions: Live ones first, then trials, then what is retired.
        trials: By version.
        contexts: How many contexts have weights of their own; None: not read.
        contexts_whole: Whether there may be more of them, which changed longer ago.
        context: The context whose weights and losses these are; None: of queries without one.
        changes: The last ones, the newest first.
    """

    models: tuple[str, ...]
    revision: int = 1
    policy: str = ""
    objective_ms: int | None = None
    window_s: int = 0
    queries: int = 0
    defaults: Mapping[str, int] = field(default_factory=dict)
    feedback: int = 0
    latency: Latency | None = None
    versions: tuple[VersionStatus, ...] = ()
    trials: tuple[TrialStatus, ...] = ()
    contexts: int | None = None
    contexts_whole: bool = True
    context: str | None = None
    changes: tuple[ChangeStatus, ...] = ()

    @property
    def queries_per_s(self) -> float:
        """Answered queries a second."""
        return self.queries / self.window_s if self.window_s else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Workers:
    """What is known of processes besides records.

    Attributes:
        members: Processes in the group of a version's hosts.
        lag: Requests that the hosts of a version have not finished.
        batch_limits: Of a version.
        batches: Latency of a version's batches.
        answers: Latency of an application's answers.
    """

    members: Mapping[str, int] = field(default_factory=dict)
    lag: Mapping[str, int] = field(default_factory=dict)
    batch_limits: Mapping[str, float] = field(default_factory=dict)
    batches: Mapping[str, Latency] = field(default_factory=dict)
    answers: Mapping[str, Latency] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Looking:
    """Makes the status of applications of what was read.

    Attributes:
        facts: What is declared, changed and learned.
        recent: What flowed.
        now_s: The time, seconds since the epoch.
        window_s: Seconds that figures of what flowed are of.
        context: Whose weights and losses are wanted.
        comparisons: The steward's; absent: of totals.
        workers: What is known of processes.
    """

    facts: Facts
    recent: Recent
    now_s: float
    window_s: int
    context: str | None = None
    comparisons: Sequence[Comparison] = ()
    workers: Workers = field(default_factory=Workers)

    def applications(self, names: Iterable[str] | None = None) -> dict[str, ApplicationStatus]:
        """Every application, or those named, by name."""
        declared = self.facts.manifests.applications
        wanted = sorted(declared if names is None else set(names) & declared.keys())
        return {name: self._application(declared[name]) for name in wanted}

    def _application(self, manifest: ApplicationManifest) -> ApplicationStatus:
        name = manifest.name
        counts = self.recent.window(name, self.now_s, self.window_s)
        state = self.facts.state(name, self.context)
        return ApplicationStatus(
            models=tuple(manifest.models),
            revision=manifest.revision,
            policy=manifest.policy.name,
            objective_ms=manifest.objective_ms,
            window_s=counts.seconds,
            queries=counts.queries,
            defaults=dict(counts.defaults.most_common()),
            feedback=counts.feedback,
            latency=self.workers.answers.get(name) or _latency(counts.latencies_ms),
            versions=tuple(self._versions(manifest, state, counts)),
            trials=tuple(self._trial(manifest, trial, state) for trial in manifest.trials),
            contexts=self.facts.contexts_of(name),
            contexts_whole=self.facts.contexts_whole,
            context=self.context,
            changes=tuple(self._changes(name)),
        )

    # --- versions ---------------------------------------------------------------------------------------------------
    def _versions(
        self, manifest: ApplicationManifest, state: SelectionState, counts: Counts
    ) -> Iterable[VersionStatus]:
        weights = _weights(manifest, state, self._present(manifest.models))
        for ref in manifest.models:
            yield self._version(ref, "live", state, counts, weight=weights.get(ref))
        for trial in manifest.trials:
            yield self._version(trial.model, trial.stage, state, counts, declared_share=trial.share)
        for ref in self._retired(manifest, state):
            yield self._version(ref, "retired", state, counts)

    def _present(self, refs: Iterable[str]) -> list[str]:
        models = self.facts.manifests.models
        return [ref for ref in refs if ref in models and not models[ref].retired]

    def _retired(self, manifest: ApplicationManifest, state: SelectionState) -> list[str]:
        """Versions that the application had once and that wait for a rollback."""
        had = set(state.totals)
        for change in self.facts.changes_of(manifest.name):
            for then in (change.before, change.after):
                had |= {*then.models, *(trial.model for trial in then.trials)} if then else set()
        has = {*manifest.models, *(trial.model for trial in manifest.trials)}
        models = self.facts.manifests.models
        return sorted(ref for ref in had - has if ref in models and models[ref].retired)

    def _version(
        self,
        ref: str,
        stage: Stage,
        state: SelectionState,
        counts: Counts,
        *,
        weight: float | None = None,
        declared_share: float | None = None,
    ) -> VersionStatus:
        model = self.facts.manifests.models.get(ref)
        reports = [*self.facts.hosts_of(ref)]
        has_hosts = model is not None and not model.colocated
        of = counts.asked if stage == "shadow" else counts.served
        return VersionStatus(
            model=ref,
            stage=stage,
            declared_share=declared_share,
            weight=weight,
            loss=_loss(state.of(ref)),
            share=of[ref] / counts.queries if counts.queries else None,
            queries=counts.asked[ref],
            hosts=self._ready(ref, [report.state for report in reports]) if has_hosts else None,
            replicas=_replicas(model),
            colocated=model is not None and model.colocated,
            declared=model is not None,
            starting=tuple(report.instance for report in reports if report.state in {"starting", "draining"}),
            failed={
                report.instance: one_line(report.reason or "no reason given")
                for report in reports
                if report.state == "failed"
            },
            batch_limit=self.workers.batch_limits.get(ref),
            latency=self.workers.batches.get(ref) or _latency(counts.model_latencies_ms.get(ref, ())),
            lag=self.workers.lag.get(ref),
        )

    def _ready(self, ref: str, states: Sequence[str]) -> int | None:
        """Hosts that say so; where no host of the deployment says anything, those in the group."""
        if self.facts.reports:
            return sum(state == "ready" for state in states)
        return self.workers.members.get(ref)

    # --- trials and changes -----------------------------------------------------------------------------------------
    def _trial(self, manifest: ApplicationManifest, trial: Trial, state: SelectionState) -> TrialStatus:
        found = next(
            (one for one in self.comparisons if (one.application, one.model) == (manifest.name, trial.model)), None
        )
        if found is None:
            mine, others = state.of(trial.model), _sum(state.of(ref) for ref in manifest.models)
            difference, (lower, upper) = newcombe((mine.loss, mine.count), (others.loss, others.count))
            feedbacks = int(mine.count)
        else:
            difference, lower, upper, feedbacks = found.difference, found.lower, found.upper, found.feedbacks
        return TrialStatus(
            model=trial.model,
            feedbacks=feedbacks,
            difference=difference,
            lower=lower,
            upper=upper,
            source="totals" if found is None else "steward",
            since_s=self._since_s(manifest.name, trial.model),
            automatic=trial.automatic,
            waits_for=waits_for(trial, manifest.rollout, feedbacks, lower, upper),
        )

    def _since_s(self, application: str, ref: str) -> float | None:
        """When the version got its stage and share: the last change about it."""
        times = (change.at_ms for change in self.facts.changes_of(application) if change.model == ref)
        return next((at_ms / 1000 for at_ms in times), None)

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


def waits_for(trial: Trial, rule: RolloutRule, feedbacks: int, lower: float, upper: float) -> str:
    """What has to come before a trial makes its next step.

    Args:
        trial: The trial.
        rule: The application's.
        feedbacks: About it.
        lower: Lower end of the interval of the difference of losses, the trial's less the others'.
        upper: Upper end of it.

    >>> waits_for(Trial(model="svm:2", automatic=True), RolloutRule(least=50), 12, -0.1, 0.1)
    '38 more feedbacks (12 of 50)'
    """
    if not trial.automatic:
        return "somebody to decide: it is not automatic"
    if lower > rule.margin:
        return f"nothing: it is to be aborted, its loss is higher by more than {rule.margin:g}"
    if feedbacks < rule.least:
        return f"{rule.least - feedbacks} more feedbacks ({feedbacks} of {rule.least})"
    if upper < rule.margin:
        return f"nothing: it is to be {_next_step(trial, rule)}"
    return f"the upper end {upper:+.3f} to fall below {rule.margin:g}, or the lower {lower:+.3f} to rise above it"


def _next_step(trial: Trial, rule: RolloutRule) -> str:
    higher = [step for step in rule.steps if trial.stage == "shadow" or step > trial.share]
    return f"a canary of {higher[0]:.0%}" if higher else "promoted"


def _weights(manifest: ApplicationManifest, state: SelectionState, refs: list[str]) -> dict[str, float]:
    if not refs:
        return {}
    try:
        return make_policy(manifest.policy.name, manifest.policy.parameters).weights(state, refs)
    except (SetupError, TypeError):  # routers refuse such a manifest too, and say so
        return {}


def _loss(totals: ModelTotals) -> Loss | None:
    if totals.count <= 0:
        return None
    lower, upper = wilson(totals.loss, totals.count)
    return Loss(count=round(totals.count, 3), mean=totals.loss / totals.count, lower=lower, upper=upper)


def _latency(values: Sequence[float]) -> Latency | None:
    p50_ms, p99_ms = quantile(0.5, values), quantile(0.99, values)
    if p50_ms is None or p99_ms is None:
        return None
    return Latency(p50_ms=p50_ms, p99_ms=p99_ms, source="predictions")


def _sum(totals: Iterable[ModelTotals]) -> ModelTotals:
    return sum(totals, ModelTotals())


def _replicas(model: ModelManifest | None) -> int:
    return 0 if model is None or model.colocated or model.retired else model.replicas


