"""What is wrong with applications, versions and trials: one line each that says what to do."""

from collections.abc import Collection, Iterable, Iterator, Mapping

from clipper_agents.status.model import ApplicationStatus, TrialStatus, VersionStatus

QUIET_S = 600.0
"""A trial without feedback for so long is told: labels come back in minutes, or nobody sends any."""
LEAST_ASKED = 20
"""Queries that ask a trial, where no change says since when there is one."""


def refused_reason(topic: str) -> str:
    """What is missing when a user may not read a topic."""
    return f"topic {topic}: this user may not read it, so figures are missing: give it the right to Read"


def application_reasons(
    applications: Mapping[str, ApplicationStatus], now_s: float, told: Collection[str] = ()
) -> list[str]:
    """What is wrong, the versions first, each told once.

    Args:
        applications: By name.
        now_s: The time, seconds since the epoch.
        told: Versions of which it is told already that they have no process.
    """
    versions = {one.model: one for each in applications.values() for one in each.versions if one.stage != "retired"}
    return [
        *(line for _, version in sorted(versions.items()) for line in _of_version(version, version.model in told)),
        *(line for name, each in applications.items() for line in _of_trials(name, each, now_s)),
    ]


def _of_version(version: VersionStatus, told: bool) -> Iterator[str]:
    for instance, reason in version.failed.items():
        yield (
            f"host {instance} of model {version.model} failed: {reason}: "
            f"correct the model or its manifest, then `clipper-stream apply`, or look at the host's log"
        )
    if version.hosts == 0 and version.replicas and not told and not version.failed:
        waiting = f" ({', '.join(version.starting)} not yet)" if version.starting else ""
        yield (
            f"model {version.model}: none of {version.replicas} hosts is ready{waiting}, so no query asks it: "
            f"wait for its start, or run `clipper-stream worker host {version.model} --instance NAME`"
        )


def _of_trials(name: str, application: ApplicationStatus, now_s: float) -> Iterable[str]:
    asked = {version.model: version.queries for version in application.versions}
    for trial in application.trials:
        if not trial.feedbacks and _long_enough(trial, asked.get(trial.model, 0), now_s):
            since = f"for {(now_s - trial.since_s) / 60:.0f} min" if trial.since_s is not None else "so far"
            yield (
                f"application {name}: trial {trial.model} got no feedback {since}: "
                f"send labels with the ids of its queries, or abort it"
            )


def _long_enough(trial: TrialStatus, asked: int, now_s: float) -> bool:
    return asked >= LEAST_ASKED if trial.since_s is None else now_s - trial.since_s >= QUIET_S
