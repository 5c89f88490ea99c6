"""Whether two revisions of an application ask the same question, so that evidence of one is evidence of the other."""

from typing import Any

from clipper_topics.manifests import ApplicationManifest, Trial


def _answers_with(manifest: ApplicationManifest) -> tuple[Any, ...]:
    return (
        set(manifest.models),
        manifest.policy,
        manifest.combiner,
        manifest.default_output,
        manifest.confidence_threshold,
        manifest.loss,
    )


def _intervals(manifest: ApplicationManifest) -> tuple[float, int]:
    return manifest.rollout.confidence, len(manifest.rollout.steps)


def compared_alike(then: ApplicationManifest, now: ApplicationManifest, ref: str) -> bool:
    """Whether a trial is compared with the same answers, in the same way."""
    tried = any(trial.model == ref for trial in then.trials)
    return tried and _answers_with(then) == _answers_with(now) and _intervals(then) == _intervals(now)


def same_step(then: ApplicationManifest, now: ApplicationManifest, trial: Trial) -> bool:
    """Whether a trial has the same stage and share, in the same comparison."""
    same = any((one.model, one.stage, one.share) == (trial.model, trial.stage, trial.share) for one in then.trials)
    return same and compared_alike(then, now, trial.model)


def same_candidates(then: ApplicationManifest, now: ApplicationManifest) -> bool:
    """Whether the same candidates are compared with each other."""
    same = set(then.models) == set(now.models) and then.loss == now.loss
    return same and then.rollout.confidence == now.rollout.confidence


def same_losses(then: ApplicationManifest, now: ApplicationManifest) -> bool:
    """Whether the same detector reads the same losses."""
    return then.drift == now.drift and then.loss == now.loss
