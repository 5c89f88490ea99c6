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
from clipper_stream.sequential_testing.rollout_rule import TrialRule
from clipper_topics.manifests import ApplicationManifest, DriftRule, Trial

_DRIFT = "drift"
"""In the place of a version: none is called so, without a colon."""


class TrialShare(NamedTuple):
    """With which probability a trial is asked under a revision, whether it serves then, and the other canaries' sum.

    `audited` is the share of the queries that ask all candidates.
    """

    share: float
    canary: bool
    others: float
    audited: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialSpec:
    """One trial of an application.

    Attributes:
        since: The revision at which it began.
        step_since: That of its present stage and share.
        shares: By revision, as far as they are known.
        attempt: Number of comparisons in which the version was on trial, this one included.
    """

    trial: Trial
    since: int
    step_since: int
    shares: Mapping[int, TrialShare]
    attempt: int = 1


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
    rule = TrialRule(confidence=said.confidence, margin=said.margin, steps=tuple(said.steps), least=said.least)
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
    )


def _trial(state: ControlState, manifest: ApplicationManifest, trial: Trial) -> TrialSpec:
    since = _since(state, manifest, partial(same_comparison, now=manifest, ref=trial.model))
    history = state.changes.get(manifest.name, {})
    then = {number: found.after for number in range(since, manifest.revision) if (found := history.get(number))}
    revisions = {**then, manifest.revision: manifest}
    return TrialSpec(
        trial=trial,
        since=since,
        step_since=_since(state, manifest, partial(same_step, now=manifest, trial=trial)),
        shares={number: _share_of(one, trial.model) for number, one in revisions.items() if one is not None},
        attempt=_attempts(state, manifest, trial.model),
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


def _share_of(manifest: ApplicationManifest, ref: str) -> TrialShare:
    (own,) = (one for one in manifest.trials if one.model == ref)
    others = sum(one.share for one in manifest.trials if one.stage == "canary" and one.model != ref)
    return TrialShare(own.share, own.stage == "canary", others, manifest.audit_ratio)


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
    same = any((one.model, one.stage, one.share) == (trial.model, trial.stage, trial.share) for one in then.trials)
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


def _intervals(manifest: ApplicationManifest) -> tuple[float, bool, int]:
    return manifest.rollout.confidence, manifest.rollout.sampled_feedback, len(manifest.rollout.steps)


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
            yield name, f"{one_trial.trial.model} within {one.rule.margin}", one_trial.since
