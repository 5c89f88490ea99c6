"""How the compared versions of one application stand, and what its rules say of that: a fold over scored queries.

Which evidence a query belongs to is said by the revision under which it was decided, not by when it was read: so what
is known at a place in the logs is the same whether it was read live or again after a restart.

A candidate's record begins with its first answer: before it, a host is starting, and that is no reason to retire it.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from clipper_agents.rollout.comparison_spec import Watched, WatchedTrial
from clipper_agents.rollout.decisions import Decision
from clipper_agents.rollout.query_losses import QueryLosses
from clipper_stream.sequential_testing.empirical_bernstein import EmpiricalBernstein
from clipper_stream.sequential_testing.keep_best import losses_of_candidates, worst
from clipper_stream.sequential_testing.rollout_rule import Rollout, TrialEvidence, judge

LIVE = "live"
"""Stage of a candidate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What feedback says about one version of an application, with intervals that hold at all times at once.

    Attributes:
        application: Its name.
        model: The version, `name:version`.
        stage: `shadow`, `canary`, or `live` for a candidate.
        feedbacks: About the version.
        difference: Loss minus that of the answers, of a trial; None: not known, or a candidate.
        lower: Lower end of the difference's interval, -1 when nothing is known.
        upper: Upper end of the difference's interval, 1 when nothing is known.
        loss: Mean of its own losses, in [0, 1]; None: not known.
        loss_lower: Lower end of its interval.
        loss_upper: Upper end of its interval.
    """

    application: str
    model: str
    stage: str
    feedbacks: int
    difference: float | None
    lower: float
    upper: float
    loss: float | None
    loss_lower: float
    loss_upper: float


@dataclass(slots=True)
class _Trial:
    watched: WatchedTrial
    made_with: tuple[float, int]
    evidence: TrialEvidence


class Standings:
    """Evidence about one application."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._trials: dict[str, _Trial] = {}
        self._losses: dict[str, EmpiricalBernstein] = {}
        self.follow(watched)

    @property
    def watched(self) -> Watched:
        """What is compared."""
        return self._watched

    def follow(self, watched: Watched) -> None:
        """The application is another now: what is compared as before keeps its evidence."""
        before = self._watched
        self._watched = watched
        trials = {trial.model: self._trial(trial, watched.rule) for trial in watched.trials}
        self._trials = trials
        if _candidates_of(before) != _candidates_of(watched) or not self._losses:
            first = losses_of_candidates(max(1, len(watched.candidates)), watched.rule.confidence)
            self._losses = dict.fromkeys(watched.candidates, first)

    def observe(self, revision: int, losses: QueryLosses) -> None:
        """One query, decided under this revision."""
        for ref, trial in self._trials.items():
            if revision >= trial.watched.since:
                of_step = revision >= trial.watched.step_since
                trial.evidence = trial.evidence.observe(losses.models.get(ref), losses.answer, of_step=of_step)
        if revision >= self._watched.candidates_since:
            for ref in losses.models.keys() & self._losses.keys():
                if self._losses[ref].count or ref not in losses.silent:
                    self._losses[ref] = self._losses[ref].observe(losses.models[ref])

    def decision(self) -> Decision | None:
        """The first change that a rule asks for: of trials in their order, then of candidates."""
        watched = self._watched
        for ref, trial in self._trials.items():
            if trial.watched.automatic:
                verdict = judge(watched.rule, trial.watched.stage, trial.watched.share, trial.evidence)
                if verdict.action != "wait":
                    return Decision(
                        command=verdict.action,
                        application=watched.application,
                        model=ref,
                        revision=watched.revision,
                        share=verdict.share,
                        why=verdict.why,
                        numbers=verdict.numbers,
                    )
        return self._retirement()

    def comparisons(self) -> list[Comparison]:
        """How each version stands, trials first."""
        name = self._watched.application
        trials = [_of_trial(name, trial) for trial in self._trials.values()]
        return [*trials, *(_of_candidate(name, ref, losses) for ref, losses in self._losses.items())]

    def _retirement(self) -> Decision | None:
        watched = self._watched
        if watched.keep_best is None:
            return None
        found = worst(self._losses, watched.keep_best, watched.rule.confidence)
        if found is None:
            return None
        return Decision(
            command="retire",
            application=watched.application,
            model=found.model,
            revision=watched.revision,
            why=found.why,
            numbers=found.numbers,
        )

    def _trial(self, trial: WatchedTrial, rule: Rollout) -> _Trial:
        made_with = rule.alpha_of_trial, len(rule.steps)
        known = self._trials.get(trial.model)
        if known is None or known.watched.since != trial.since or known.made_with != made_with:
            return _Trial(trial, made_with, TrialEvidence.of(rule))
        if known.watched.step_since != trial.step_since:
            return _Trial(trial, made_with, known.evidence.at_next_step(rule))
        return _Trial(trial, made_with, known.evidence)


def _candidates_of(watched: Watched) -> tuple[object, ...]:
    return watched.candidates_since, watched.candidates, watched.rule.confidence


def _of_trial(application: str, trial: _Trial) -> Comparison:
    difference, own = trial.evidence.whole.difference, trial.evidence.losses
    return Comparison(
        application=application,
        model=trial.watched.model,
        stage=trial.watched.stage,
        feedbacks=difference.feedbacks,
        difference=difference.difference,
        lower=difference.lower,
        upper=difference.upper,
        loss=own.mean if own.count else None,
        loss_lower=own.lower,
        loss_upper=own.upper,
    )


def _of_candidate(application: str, ref: str, losses: EmpiricalBernstein) -> Comparison:
    return Comparison(
        application=application,
        model=ref,
        stage=LIVE,
        feedbacks=losses.count,
        difference=None,
        lower=-1.0,
        upper=1.0,
        loss=losses.mean if losses.count else None,
        loss_lower=losses.lower,
        loss_upper=losses.upper,
    )


def by_application(known: Mapping[str, Standings], watched: Mapping[str, Watched]) -> dict[str, Standings]:
    """Standings of what is watched now; those that were known go on."""
    found = {}
    for name, one in watched.items():
        before = known.get(name)
        if before is None or before.watched.revision > one.revision:  # a deleted application begins anew
            found[name] = Standings(one)
        else:
            before.follow(one)
            found[name] = before
    return found
