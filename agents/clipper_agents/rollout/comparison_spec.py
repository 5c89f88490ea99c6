"""What there is to compare: trials, and candidates of applications that keep the best, each since a revision.

Rules of this file:
- Evidence is about queries that were decided at or after a revision, which each prediction names. No clock is asked
  what belongs to what; time says only where to begin to read.
- A trial began at the oldest revision since which it is on trial without a break, what the application answers with is
  the same (candidates, policy, combiner, default), and losses and intervals are made in the same way. Anything else is
  another comparison.
- Where an application's revisions have no changes on the control topic, its present revision is where it began.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

from aiokafka import ConsumerRecord

from clipper_agents.control.state import ControlState
from clipper_agents.rollout.revision_equivalence import compared_alike, same_candidates, same_losses, same_step
from clipper_stream.errors import InvalidSetting
from clipper_stream.sequential_testing.rollout_rule import Rollout
from clipper_topics.drift import DriftEvent
from clipper_topics.manifests import ApplicationManifest, DriftRule

_DRIFT = "drift"
"""In the place of a version: none is called so, without a colon."""
Stage: TypeAlias = Literal["shadow", "canary"]


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedTrial:
    """One trial.

    Attributes:
        model: The version.
        stage: Its stage.
        share: Its share.
        automatic: Whether the rule may change it.
        since: Revision at which it began.
        step_since: Revision at which the present stage and share began.
    """

    model: str
    stage: Stage
    share: float
    automatic: bool
    since: int
    step_since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedDrift:
    """What watches the losses of an application's versions.

    Attributes:
        rule: The detector.
        since: Revision since which it is this one, over these losses.
    """

    rule: DriftRule
    since: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """One application of which something is compared.

    Attributes:
        application: Its name.
        revision: Of its manifest now.
        rule: How its trials are judged.
        loss: How a label is compared with an output.
        trials: Its trials.
        candidates: Its candidates.
        candidates_since: Revision since which they are these.
        keep_best: How many candidates to keep; None: all.
        drift: What watches its losses; None: nothing.
        begins_ms: When the oldest of these comparisons began, milliseconds since the epoch.
    """

    application: str
    revision: int
    rule: Rollout
    loss: str
    trials: tuple[WatchedTrial, ...]
    candidates: tuple[str, ...]
    candidates_since: int
    keep_best: int | None
    drift: WatchedDrift | None
    begins_ms: int

    @property
    def since(self) -> int:
        """The first revision of which predictions matter."""
        drift = [] if self.drift is None else [self.drift.since]
        return min([self.candidates_since, *(trial.since for trial in self.trials), *drift])


class Control:
    """What the control topic says of applications, and what there is to compare by it.

    Attributes:
        state: The topic as it was followed so far.
    """

    def __init__(self, state: ControlState | None = None) -> None:
        self.state = ControlState(notes=("change", "drift"), saved_rows=False) if state is None else state

    def take(self, records: Iterable[ConsumerRecord[Any, Any]]) -> None:
        """Take in records of the control topic."""
        self.state.take(records)

    @property
    def version(self) -> int:
        """Grows with each record."""
        return self.state.version

    @property
    def drifts(self) -> dict[tuple[str, str], DriftEvent]:
        """The newest detection by application and version."""
        return self.state.drifts

    def revision(self, application: str) -> int:
        """Of the application's manifest; 0: there is none."""
        return self.state.current(application)

    @property
    def revisions(self) -> dict[str, int]:
        """Of all applications, by name."""
        return {name: manifest.revision for name, manifest in self.state.manifests.applications.items()}

    def watched(self, *, drift: bool = True) -> dict[str, Watched]:
        """The applications of which something is compared, or watched for drift, by name.

        Args:
            drift: Whether drift is of interest; else an application of which nothing is compared is left out.
        """
        found = {}
        for name, manifest in self.state.manifests.applications.items():
            watches = drift and manifest.drift is not None
            if manifest.trials or manifest.keep_best is not None or watches:
                rule = _rule(manifest)
                if rule is not None:
                    found[name] = self._watched(manifest, rule, drift=watches)
        return found

    def _watched(self, manifest: ApplicationManifest, rule: Rollout, *, drift: bool) -> Watched:
        trials = tuple(
            WatchedTrial(
                model=trial.model,
                stage=trial.stage,
                share=trial.share,
                automatic=trial.automatic,
                since=self._since(manifest, partial(compared_alike, now=manifest, ref=trial.model)),
                step_since=self._since(manifest, partial(same_step, now=manifest, trial=trial)),
            )
            for trial in manifest.trials
        )
        candidates_since = self._since(manifest, partial(same_candidates, now=manifest))
        watches = self._drift(manifest) if drift else None
        begins = [trial.since for trial in trials]
        begins += [] if manifest.keep_best is None else [candidates_since]
        first = min(begins if watches is None else [*begins, watches.since])
        return Watched(
            application=manifest.name,
            revision=manifest.revision,
            rule=rule,
            loss=manifest.loss,
            trials=trials,
            candidates=tuple(manifest.models),
            candidates_since=candidates_since if manifest.keep_best is not None else max(first, candidates_since),
            keep_best=manifest.keep_best,
            drift=watches,
            begins_ms=self._began_ms(manifest, first),
        )

    def _drift(self, manifest: ApplicationManifest) -> WatchedDrift | None:
        if manifest.drift is None:
            return None
        return WatchedDrift(rule=manifest.drift, since=self._since(manifest, partial(same_losses, now=manifest)))

    def _since(self, manifest: ApplicationManifest, alike: Callable[[ApplicationManifest], bool]) -> int:
        history = self.state.changes.get(manifest.name, {})
        revision = manifest.revision
        while (before := history.get(revision - 1)) is not None and before.after and alike(before.after):
            revision -= 1
        return revision

    def _began_ms(self, manifest: ApplicationManifest, revision: int) -> int:
        found = self.state.changes.get(manifest.name, {}).get(revision)
        return found.at_ms if found else self.state.declared_ms.get(manifest.name, 0)


def _rule(manifest: ApplicationManifest) -> Rollout | None:
    said = manifest.rollout
    try:
        return Rollout(confidence=said.confidence, margin=said.margin, steps=tuple(said.steps), least=said.least)
    except InvalidSetting:
        return None


def needs_history(before: Mapping[str, Watched], now: Mapping[str, Watched], revisions: Mapping[str, int]) -> bool:
    """Whether something is compared now that began before it was, so that what was read already is needed.

    Args:
        before: What was compared.
        now: What is.
        revisions: The highest revision of each application that was followed then.
    """
    known = set(_spans(before))
    return any(
        since <= revisions.get(name, 0) for name, model, since in _spans(now) if (name, model, since) not in known
    )


def _spans(watched: Mapping[str, Watched]) -> Iterator[tuple[str, str, int]]:
    for name, one in watched.items():
        yield name, "", one.candidates_since
        if one.drift is not None:
            yield name, _DRIFT, one.drift.since
        for trial in one.trials:
            yield name, trial.model, trial.since
