"""What there is to compare: trials, and candidates of applications that keep the best, each since a revision.

Rules of this file:
- Evidence is about queries that were decided at or after a revision, which each prediction names. No clock is asked
  what belongs to what; time says only where to begin to read.
- A trial began at the oldest revision since which it is on trial without a break, what the application answers with is
  the same (candidates, policy, combiner, default), and losses and intervals are made in the same way. Anything else is
  another comparison.
- Where an application's revisions have no changes on the control topic, its present revision is where it began.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import msgspec

from clipper_agents.control.state import ControlState
from clipper_stream.errors import SetupError
from clipper_stream.selection.registry import make_policy
from clipper_stream.selection.state import SelectionState
from clipper_stream.sequential_testing.planned_test import TrialPlan
from clipper_stream.sequential_testing.rollout_rule import TrialRule
from clipper_topics.manifests import ApplicationManifest, DriftRule, Trial

_DRIFT = "drift"
"""In the place of a version: none is called so, without a colon."""


class TrialShare(NamedTuple):
    """With which probability a trial is asked under a revision, whether it serves then, and the other canaries' sum.

    `audited` is the share of the queries that ask all candidates, `besides` of those that ask a canary as a shadow.
    Where contexts are drawn, those have the trial whose number, by `seed`, is below `part`; those below `before` had it
    at an earlier share.
    """

    share: float
    canary: bool
    others: float
    audited: float
    besides: float = 0.0
    seed: int = 0
    part: float = 0.0
    before: float = 0.0

    def probability(self, *, redrawn: bool) -> float:
        """Of asking it, if nobody else is tried; `redrawn`: of a context that did not have it at an earlier share."""
        new, rest = self.share, max(0.0, 1.0 - self.share - self.others - self.besides)
        if redrawn:
            new *= 1.0 - self.before / self.part if self.before < self.part else 0.0
        return new / (new + rest) if self.canary and new else new


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One trial of an application.

    Attributes:
        since: The revision at which it began.
        step_since: That of its present stage and share.
        shares: By revision, as far as they are known.
        attempt: Number of comparisons in which the version was on trial, this one included.
        at_once: The most automatic trials that were on at once with it, itself included.
    """

    trial: Trial
    since: int
    step_since: int
    shares: Mapping[int, TrialShare]
    attempt: int = 1
    at_once: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftSpec:
    """The detector of an application's losses, and the revision since which it is this one over these losses."""

    rule: DriftRule
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparisonSpec:
    """What is compared of one application.

    Attributes:
        loss: How a label is compared with an output.
        learns_scale: Whether the scale of the losses is to be set once trials have shown it.
        sampled: Whether feedback is about a random sample of the queries.
        lone: Whether the policy answers by one of them; otherwise by several together.
        objective_ms: Within which it is answered; None: nobody knows.
        candidates_since: Revision since which they are these.
        keep_best: How many candidates to keep; None: all.
        begins_ms: When the oldest of these comparisons began, milliseconds since the epoch.
        context_window_s: Seconds of a context's mean loss, where contexts are drawn; None: each query draws.
    """

    application: str
    revision: int
    rule: TrialRule
    loss: str
    learns_scale: bool
    trials: tuple[TrialSpec, ...]
    candidates: tuple[str, ...]
    sampled: bool
    lone: bool
    objective_ms: float | None
    candidates_since: int
    keep_best: int | None
    drift: DriftSpec | None
    begins_ms: int
    context_window_s: float | None = None

    @property
    def since(self) -> int:
        """The first revision of which predictions matter."""
        drift = [] if self.drift is None else [self.drift.since]
        return min([self.candidates_since, *(trial.since for trial in self.trials), *drift])


def comparison_specs(state: ControlState, *, drift: bool = True) -> dict[str, ComparisonSpec]:
    """The applications of which something is compared, or watched for `drift`, by name; `state` has to keep changes."""
    found = {}
    for name, manifest in state.manifests.applications.items():
        watches = drift and manifest.drift is not None
        if manifest.trials or manifest.keep_best is not None or watches:
            with contextlib.suppress(SetupError):  # routers refuse such a manifest too, and say so
                found[name] = _spec(state, manifest, drift=watches)
    return found


def _spec(state: ControlState, manifest: ApplicationManifest, *, drift: bool) -> ComparisonSpec:
    said = manifest.scaled_rollout
    plan = None if said.plan is None else TrialPlan(**msgspec.structs.asdict(said.plan))
    alike = {name: getattr(said, name) for name in ("confidence", "margin", "least", "least_days")}
    rule = TrialRule(**alike, steps=tuple(said.steps), relative=said.relative_margin or 0.0, plan=plan)
    trials = tuple(_trial(state, manifest, trial) for trial in manifest.trials)
    candidates_since = _since(state, manifest, partial(same_candidates, now=manifest))
    watches = _drift(state, manifest) if drift else None
    begins = [trial.since for trial in trials]
    begins += [] if manifest.keep_best is None else [candidates_since]
    first = min(begins if watches is None else [*begins, watches.since])
    return ComparisonSpec(
        application=manifest.name,
        revision=manifest.revision,
        rule=rule,
        loss=manifest.scaled_loss,
        learns_scale=manifest.loss != "zero_one" and manifest.loss_scale is None,
        trials=trials,
        candidates=tuple(manifest.models),
        sampled=said.sampled_feedback,
        lone=_answers_by_one(manifest),
        objective_ms=manifest.objective_ms,
        candidates_since=candidates_since if manifest.keep_best is not None else max(first, candidates_since),
        keep_best=manifest.keep_best,
        drift=watches,
        begins_ms=_began_ms(state, manifest, first),
        context_window_s=manifest.context_window_s if manifest.assign == "context" else None,
    )


def _trial(state: ControlState, manifest: ApplicationManifest, trial: Trial) -> TrialSpec:
    since = _since(state, manifest, partial(same_comparison, now=manifest, ref=trial.model))
    history = state.changes.get(manifest.name, {})
    then = {number: found.after for number in range(since, manifest.revision) if (found := history.get(number))}
    revisions = {**then, manifest.revision: manifest}
    others = ([one.automatic for one in each.trials if one.model != trial.model] for each in revisions.values() if each)
    return TrialSpec(
        trial=trial,
        since=since,
        step_since=_since(state, manifest, partial(same_step, now=manifest, trial=trial)),
        shares=_shares({number: one for number, one in revisions.items() if one is not None}, trial.model),
        attempt=_attempts(state, manifest, trial.model),
        at_once=1 + max(map(sum, others)),
    )


def _attempts(state: ControlState, manifest: ApplicationManifest, ref: str) -> int:
    """How often a version was put to the test.

    A scale where there was none is part of the same test; a trial that ended without its first answer was none.
    """
    past = [found for number, found in state.history(manifest.name).items() if number < manifest.revision]
    count, then = -sum(found.model == ref and found.numbers.get("since_s", 0) is None for found in past), None
    for now in [*(found.after for found in past), manifest]:
        if now is not None and any(trial.model == ref for trial in now.trials):
            unscaled = then is not None and then.loss_scale is None
            compared = msgspec.structs.replace(now, loss_scale=None) if unscaled else now
            count += then is None or not same_comparison(then, compared, ref)
        then = now
    return count


def _shares(revisions: Mapping[int, ApplicationManifest], ref: str) -> dict[int, TrialShare]:
    found: dict[int, TrialShare] = {}
    for number, manifest in revisions.items():
        now = _share_of(manifest, ref)
        earlier = [was.part for was in found.values() if was.seed == now.seed and was.part != now.part]
        found[number] = now._replace(before=max(earlier, default=0.0))
    return found


def _share_of(manifest: ApplicationManifest, ref: str) -> TrialShare:
    (at,) = (number for number, one in enumerate(manifest.trials) if one.model == ref)
    own, shares = manifest.trials[at], [one.share if one.stage == "canary" else 0.0 for one in manifest.trials]
    others, is_canary = sum(shares[:at] + shares[at + 1 :]), own.stage == "canary"
    besides = max(0.0, min(own.shadow_share, 1.0 - others - own.share)) if is_canary else 0.0
    part = own.share / (1.0 - sum(shares[:at])) if is_canary and own.share else 0.0
    return TrialShare(own.share, is_canary, others, manifest.audit_ratio, besides, manifest.seed, part)


def _answers_by_one(manifest: ApplicationManifest) -> bool:
    policy = make_policy(manifest.policy.name, manifest.policy.parameters)
    choice = policy.prepare(SelectionState(), list(manifest.models))
    return all(len(one.served) <= 1 for one in choice.decisions)


def _drift(state: ControlState, manifest: ApplicationManifest) -> DriftSpec | None:
    if manifest.drift is None:
        return None
    return DriftSpec(rule=manifest.drift, since=_since(state, manifest, partial(same_losses, now=manifest)))


def _since(
    state: ControlState, manifest: ApplicationManifest, equivalent: Callable[[ApplicationManifest], bool]
) -> int:
    """The oldest revision from which on all revisions are equivalent to the present one."""
    history = state.changes.get(manifest.name, {})
    revision = manifest.revision
    while (before := history.get(revision - 1)) is not None and before.after and equivalent(before.after):
        revision -= 1
    return revision


def _began_ms(state: ControlState, manifest: ApplicationManifest, revision: int) -> int:
    found = state.changes.get(manifest.name, {}).get(revision)
    return found.at_ms if found else state.declared_ms.get(manifest.name, 0)


# --- when two revisions ask the same question -----------------------------------------------------------------------
def same_comparison(then: ApplicationManifest, now: ApplicationManifest, ref: str) -> bool:
    """Whether a trial is compared with the same answers, by intervals of the same kind."""
    tried = any(trial.model == ref for trial in then.trials)
    return tried and _answers_with(then) == _answers_with(now) and _intervals(then) == _intervals(now)


def same_step(then: ApplicationManifest, now: ApplicationManifest, trial: Trial) -> bool:
    """Whether a trial has the same stage and share, in the same comparison."""
    same = any(msgspec.structs.replace(one, automatic=trial.automatic) == trial for one in then.trials)
    return same and same_comparison(then, now, trial.model)


def same_candidates(then: ApplicationManifest, now: ApplicationManifest) -> bool:
    """Whether the same candidates are compared with each other."""
    same = set(then.models) == set(now.models) and then.scaled_loss == now.scaled_loss
    return same and _intervals(then)[:2] == _intervals(now)[:2]


def same_losses(then: ApplicationManifest, now: ApplicationManifest) -> bool:
    """Whether the same detector reads the same losses."""
    return then.drift == now.drift and then.scaled_loss == now.scaled_loss


def _answers_with(manifest: ApplicationManifest) -> tuple[Any, ...]:
    return (
        set(manifest.models),
        manifest.policy,
        manifest.combiner,
        manifest.default_output,
        manifest.confidence_threshold,
        manifest.scaled_loss,
    )


def _intervals(manifest: ApplicationManifest) -> tuple[Any, ...]:
    rule, window_s = manifest.rollout, manifest.context_window_s if manifest.assign == "context" else None
    return rule.confidence, rule.sampled_feedback, len(rule.steps), rule.plan, window_s


# --- what has to be read again --------------------------------------------------------------------------------------
def needs_history(
    before: Mapping[str, ComparisonSpec], now: Mapping[str, ComparisonSpec], revisions: Mapping[str, int]
) -> bool:
    """Whether something is compared now that began before it was compared, so that what was read already is needed.

    `revisions` are the highest of each application that were followed before.
    """
    known = set(_spans(before))
    return any(
        since <= revisions.get(name, 0) for name, model, since in _spans(now) if (name, model, since) not in known
    )


def _spans(specs: Mapping[str, ComparisonSpec]) -> Iterator[tuple[str, str, int]]:
    for name, one in specs.items():
        yield name, "", one.candidates_since
        if one.drift is not None:
            yield name, _DRIFT, one.drift.since
        for one_trial in one.trials:
            yield name, f"{one_trial.trial.model} within {one.rule.margin}, {one.rule.relative}", one_trial.since
