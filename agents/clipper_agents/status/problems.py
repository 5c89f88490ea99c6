"""What is wrong with a deployment: one line each that says what to do."""

from collections.abc import Collection, Iterator, Mapping
from operator import itemgetter

from clipper_agents.kafka.errors import wrong_partitions
from clipper_agents.kafka.topic_ids import stale_references
from clipper_agents.status.model import ApplicationStatus, GroupStatus, Status, TrialStatus, VersionStatus
from clipper_topics.prediction import REASONS

MOST_LAG = 10_000
"""Unread records of a group beyond which it does not keep up: a router clears as many in about a second."""
QUIET_S = 600.0
"""A trial without feedback for so long is told: labels come back in minutes, or nobody sends any."""
LEAST_ASKED = 20
"""Queries from which on something is said: of a trial, where no change says since when there is one; of late answers,
and of defaults."""
MOST_ERRORS_RATIO, MOST_LATE_RATIO = 0.01, 0.5
"""Of the queries that ask a version: one in a hundred may have an input that it cannot stand, and stragglers are left
out by design."""


def reasons_of(status: Status, most_lag: int = MOST_LAG) -> list[str]:
    """What is wrong, a line each with what to do; `most_lag` unread records of one group are still fine."""
    absent = [one.ref for one in status.models if one.replicas and not one.live]
    return [
        *_of_brokers(status),
        *_of_topics(status),
        *(line for group in status.groups for line in _of_group(group, most_lag)),
        *_of_manifests(status),
        *application_reasons(status.applications, status.at_s, told=absent),
    ]


def _of_brokers(status: Status) -> Iterator[str]:
    for address in status.silent_addresses:
        yield f"address {address}: nobody takes a connection: start the broker, or correct the address"
    for one in status.brokers:
        if not one.reachable:
            yield f"broker {one.node_id} at {one.address} does not answer: look at its log"
    if not status.controller:
        yield "the cluster has no controller: start the missing nodes"


def _of_topics(status: Status) -> Iterator[str]:
    if missing := status.missing_topics:
        what = f"topic {missing[0]} does" if len(missing) == 1 else f"{len(missing)} topics ({', '.join(missing)}) do"
        yield f"{what} not exist: run `clipper-stream topics create`"
    if status.replaced_topics:
        yield str(stale_references(status.replaced_topics))
    for one in status.topics:
        if one.configured not in (None, one.partitions):
            yield wrong_partitions(one.name, one.partitions, one.configured)
        if one.leaderless:
            numbers = _listed(one.leaderless)
            yield f"topic {one.name}: partitions {numbers} have no leader: start the brokers that hold them"
    if thin := [one for one in status.topics if one.under_replicated]:
        count, names = sum(len(one.under_replicated) for one in thin), ", ".join(one.name for one in thin)
        yield f"{count} partitions have fewer copies than they should ({names}): is a broker down, or catching up?"
    for topic in status.unread_topics:
        yield f"topic {topic}: not read to its end in time, so figures are incomplete: look again, is a broker slow?"
    yield from map(refused_reason, status.refused_topics)


def _of_manifests(status: Status) -> Iterator[str]:
    declared = {model.ref for model in status.models}
    for name, application in status.applications.items():
        for version in application.versions:
            if version.stage != "retired" and version.model not in declared:
                yield f"application {name}: model {version.model} is not declared: run `clipper-stream apply`"
    for one in status.models:
        if one.live < one.replicas:
            yield (
                f"model {one.ref} has {one.live} of {one.replicas} hosts: "
                f"run `clipper-stream worker host {one.ref} --instance NAME`, or look at the log of `up`"
            )
    for key, why in status.unreadable.items():
        yield f"manifest {key} cannot be read: {why}"


def _of_group(group: GroupStatus, most_lag: int) -> Iterator[str]:
    if not group.members:
        if group.model is None:
            yield "no router runs: run `clipper-stream worker router --instance NAME`, or look at the log of `up`"
    elif group.state != "Stable":
        yield f"group {group.group} is in state {group.state}: if it stays so, do two processes have one name?"
    else:
        for topic, partitions in group.unowned.items():
            numbers = _listed(partitions)
            yield f"group {group.group}: nobody reads partitions {numbers} of {topic}: restart its processes"
    if (lag := sum(group.lag.values())) > most_lag:
        yield f"group {group.group} is {lag} records behind, more than {most_lag}: add processes, or ask less"


def _listed(partitions: tuple[int, ...]) -> str:
    return ",".join(map(str, partitions))


def refused_reason(topic: str) -> str:
    """What is missing when a user may not read a topic."""
    return f"topic {topic}: this user may not read it, so figures are missing: give it the right to Read"


def application_reasons(
    applications: Mapping[str, ApplicationStatus], now_s: float, told: Collection[str] = ()
) -> list[str]:
    """What is wrong, the versions first, each once; of those in `told` it is known that they have no process."""
    versions = {one.model: one for each in applications.values() for one in each.versions if one.stage != "retired"}
    return [
        *(line for _, version in sorted(versions.items()) for line in _of_version(version, version.model in told)),
        *(line for name, each in applications.items() for line in _of_answers(name, each)),
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


def _of_answers(name: str, application: ApplicationStatus) -> Iterator[str]:
    """Versions that answer too seldom, and an application that gives little but its default output."""
    seconds = f"in the last {application.window_s} s"
    for version in application.versions:
        errors, late = (version.unanswered.get(reason, 0) for reason in ("error", "late"))
        if errors > MOST_ERRORS_RATIO * version.queries:
            yield (
                f"application {name}: model {version.model} failed {errors} of {version.queries} queries {seconds}: "
                f"{version.said or 'no reason given'}: look at the log of its host, and correct the model"
            )
        elif version.queries >= LEAST_ASKED and late > MOST_LATE_RATIO * version.queries:
            yield (
                f"application {name}: model {version.model} was late {late} of {version.queries} times {seconds}: "
                f"give it more hosts, or the application more time"
            )
    defaults = sum(application.defaults.values())
    if application.queries >= LEAST_ASKED and defaults > MOST_LATE_RATIO * application.queries:
        counts = sorted(application.defaults.items(), key=itemgetter(1), reverse=True)
        reasons = "; ".join(f"{reason} {count}: {REASONS.get(reason, 'unknown here')}" for reason, count in counts)
        yield f"application {name}: {defaults} of {application.queries} queries {seconds} got the default ({reasons})"


def _of_trials(name: str, application: ApplicationStatus, now_s: float) -> Iterator[str]:
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
