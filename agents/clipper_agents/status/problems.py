"""What is wrong with a deployment: the one table of conditions, each a line with its cause and a command that helps.

| looked at | wrong is |
|---|---|
| brokers, topics | what does not answer, is missing, has no leader, was made anew, or may not be read |
| groups | nobody in one, records that wait for longer than they may, partitions nobody reads, records deleted unread |
| manifests, hosts | what is not declared, cannot be read, has too few hosts, or hosts that failed |
| processes | what they say of their disk and their clock, and checks of the logs that failed |
| applications | answers later than the objective, defaults, versions that fail or are late, trials without feedback |

`status`, its JSON, `watch` and the console show these lines, and no others.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter

from clipper_agents.kafka.errors import wrong_partitions
from clipper_agents.kafka.topic_ids import stale_references
from clipper_agents.status.model import (
    ApplicationStatus,
    ClusterStatus,
    GroupStatus,
    Latency,
    ModelStatus,
    Status,
    TrialStatus,
    WaitingRecords,
)
from clipper_agents.status.traffic_window import LEAST_ASKED
from clipper_topics.prediction import LOW_CONFIDENCE, REASONS, REFUSALS

MOST_LAG = 10_000
"""Unread records of a group beyond which it does not keep up: a router clears as many in about a second."""
CLUSTER_AGE_S = 40.0
"""What brokers and groups said is no news after so long."""
QUIET_S = 600.0
"""A trial without feedback for so long is told: labels come back in minutes, or nobody sends any."""
MISSED_RATIO = 0.01
"""Of an application's queries: the promise is that 99 % are answered by a model within the objective."""
MOST_ERRORS_RATIO, MOST_LATE_RATIO = 0.01, 0.5
"""Of the queries that ask a version: one in a hundred may have an input that it cannot stand, and stragglers are left
out by design."""
MOST_DEAD_LETTERS = 100
"""Within an hour: some client sends what nobody can read."""
NOT_YET = "brokers and groups are not known yet: look again in a moment"
ROUTER = "`clipper-stream worker router --instance NAME`"


def reasons_of(status: Status, most_lag: int = MOST_LAG) -> list[str]:
    """What is wrong, a line each; `most_lag` unread records of one group are still fine."""
    groups = () if status.cluster is None else status.cluster.groups
    return [
        *([status.stale] if status.stale else []),
        *_of_cluster(status),
        *_of_topics(status),
        *(line for group in groups for line in _of_group(group, status, most_lag)),
        *_of_manifests(status),
        *(line for one in status.models.values() for line in _of_hosts(one, status)),
        *(f"{name}: {line}" for name, lines in status.processes.items() for line in lines),
        *(line for one in status.models.values() for line in _of_model(one, is_counted=status.cluster is not None)),
        *_of_applications(status.applications, status.at_s),
    ]


# --- brokers and topics ---------------------------------------------------------------------------------------------
def _of_cluster(status: Status) -> Iterator[str]:
    if (cluster := status.cluster) is None:
        yield status.cluster_refused or NOT_YET
        return
    if (age_s := status.at_s - cluster.at_s) > CLUSTER_AGE_S:
        yield f"brokers and groups said nothing for {age_s:.0f} s: is a broker slow? run `clipper-stream status`"
    for address in cluster.silent_addresses:
        yield f"address {address}: nobody takes a connection: start the broker, or correct the address"
    for one in cluster.brokers:
        if not one.reachable:
            yield f"broker {one.node_id} at {one.address} does not answer: look at its log, and start it again"
    if not cluster.controller:
        yield "the cluster has no controller: start the missing nodes"
    if cluster.dead_letters > MOST_DEAD_LETTERS:
        yield (
            f"{cluster.dead_letters} records could not be read within the last hour: "
            f"`clipper-stream dead-letters list` has them, with who sent what"
        )


def _of_topics(status: Status) -> Iterator[str]:
    if status.cluster is not None:
        yield from _of_described_topics(status.cluster)
    for topic in status.unread_topics:
        yield f"topic {topic}: not read to its end in time, so figures are incomplete: look again, is a broker slow?"
    for topic in status.refused_topics:
        yield f"topic {topic}: this user may not read it, so figures are missing: give it the right to Read"


def _of_described_topics(cluster: ClusterStatus) -> Iterator[str]:
    if missing := cluster.missing_topics:
        what = f"topic {missing[0]} does" if len(missing) == 1 else f"{len(missing)} topics ({', '.join(missing)}) do"
        yield f"{what} not exist: run `clipper-stream topics create`"
    if cluster.replaced_topics:
        yield str(stale_references(cluster.replaced_topics))
    for one in cluster.topics:
        if one.configured not in (None, one.partitions):
            yield wrong_partitions(one.name, one.partitions, one.configured)
        if one.leaderless:
            numbers = _listed(one.leaderless)
            yield f"topic {one.name}: partitions {numbers} have no leader: start the brokers that hold them"
    if thin := [one for one in cluster.topics if one.under_replicated]:
        count, names = sum(len(one.under_replicated) for one in thin), ", ".join(one.name for one in thin)
        yield f"{count} partitions have fewer copies than they should ({names}): is a broker down, or catching up?"


# --- groups ---------------------------------------------------------------------------------------------------------
def _of_group(group: GroupStatus, status: Status, most_lag: int) -> Iterator[str]:
    if group.model is None:
        yield from _of_routers(group, status)
    if group.members and group.state != "Stable":
        yield (
            f"group {group.group} is in state {group.state}: its processes divide the partitions anew; "
            f"if it stays so, two have one name: give each its own `--instance`"
        )
    elif group.members:
        yield from _of_readers(group, status)
    if (lag := sum(group.lag.values())) > most_lag:
        another = ROUTER if group.model is None else f"`clipper-stream worker host {group.model} --instance NAME`"
        yield f"group {group.group} is {lag} records behind, more than {most_lag}: add one by {another}, or ask less"
    if group.deleted:
        yield (
            f"{group.deleted} records were deleted before group {group.group} had read them, as it was away for longer "
            f"than they are kept: raise `retention.ms` of {', '.join(group.inputs)}"
        )


def _of_routers(group: GroupStatus, status: Status) -> Iterator[str]:
    """What is said of routers that are missing: one that is frozen has said before that it is ready."""
    waits, names = _waits(group.waiting, status.at_s), {member.instance for member in group.members}
    unheard = [name for name in status.routers if name not in names]
    if not names and not unheard:
        yield f"no router runs{', so ' + waits if waits else ''}: run {ROUTER}, or look at the log of `up`"
    elif unheard and not (names and not group.unowned and not group.waiting):
        how = "; ".join(_kill(name, status) for name in unheard)
        yield (
            f"router {', '.join(unheard)} says that it is ready, and its group does not hear of it"
            f"{', so ' + waits if waits else ''}: it is frozen, cut off or was killed: {how}, then {ROUTER}, which "
            f"`up` does by itself"
        )


def _kill(name: str, status: Status) -> str:
    return f"`kill -KILL {status.pids[name]}` on its machine" if name in status.pids else "kill it"


def _of_readers(group: GroupStatus, status: Status) -> Iterator[str]:
    for topic, partitions in group.unowned.items():
        numbers = _listed(partitions)
        yield f"group {group.group}: nobody reads partitions {numbers} of {topic}: restart its processes"
    kind = "router" if group.model is None else f"host of {group.model}"
    for member in group.members:
        waiting = [one for one in group.waiting if one.partition in member.partitions.get(one.topic, ())]
        if not waiting:
            continue
        who, waits = f"{kind} {member.instance} on {member.host}", _waits(waiting, status.at_s)
        if all(one.stands_still for one in waiting):
            how = _kill(member.instance, status)
            yield (
                f"{who} finishes nothing, and {waits}: do its models answer (`clipper-stream model list`)? If its "
                f"`/livez` does not answer either, it is frozen or cut off: {how}, and `up` starts it anew"
            )
        else:
            another = ROUTER if group.model is None else f"`clipper-stream worker host {group.model} --instance NAME`"
            yield f"{who} is behind, and {waits}: run another by {another}, or ask less"


def _waits(waiting: Iterable[WaitingRecords], at_s: float) -> str:
    """How many records of which topics wait, and for how long; empty of none."""
    topics: defaultdict[str, list[WaitingRecords]] = defaultdict(list)
    for one in waiting:
        topics[one.topic].append(one)
    return " and ".join(
        f"{sum(one.records for one in of)} records of {topic} wait, the oldest for "
        f"{at_s - min(one.since_s for one in of):.0f} s"
        for topic, of in topics.items()
    )


def _listed(partitions: tuple[int, ...]) -> str:
    return ",".join(map(str, partitions))


# --- manifests and hosts --------------------------------------------------------------------------------------------
def _of_manifests(status: Status) -> Iterator[str]:
    for name, application in status.applications.items():
        for version in application.versions:
            if version.declared is None:
                yield f"application {name}: model {version.model} is not declared: run `clipper-stream apply`"
    for key, why in status.unreadable.items():
        yield f"manifest {key} cannot be read: {why}"


def _of_hosts(one: ModelStatus, status: Status) -> Iterator[str]:
    if status.cluster is None:
        return  # who may not ask the groups does not know
    hosts = one.hosts or 0
    for name in one.unheard if hosts < one.replicas else ():
        yield (
            f"host {name} of model {one.ref} says that it is ready, and its group does not hear of it: it is frozen, "
            f"cut off or was killed: {_kill(name, status)}, then "
            f"`clipper-stream worker host {one.ref} --instance {name}`, which `up` does by itself"
        )
    if hosts < one.replicas - len(one.unheard) - len(one.failed):
        yield (
            f"model {one.ref} has {hosts} of {one.replicas} hosts: "
            f"run `clipper-stream worker host {one.ref} --instance NAME`, or look at the log of `up`"
        )


# --- applications ---------------------------------------------------------------------------------------------------
def application_reasons(application: ApplicationStatus, now_s: float) -> list[str]:
    """What is wrong with one application and the versions that it uses."""
    used = {one.model: one.declared for one in application.versions if one.declared is not None}
    return [
        *(line for _, model in sorted(used.items()) for line in _of_model(model, is_counted=False)),
        *_of_applications({application.name: application}, now_s),
    ]


def _of_applications(applications: Mapping[str, ApplicationStatus], now_s: float) -> Iterator[str]:
    for name, each in applications.items():
        yield from _of_answers(name, each)
    for name, each in applications.items():
        yield from _of_trials(name, each, now_s)


def _of_model(model: ModelStatus, *, is_counted: bool) -> Iterator[str]:
    """What its hosts say; whether enough of them serve is told by `_of_hosts` where these are counted."""
    if model.retired:
        return
    for instance, reason in model.failed.items():
        yield (
            f"host {instance} of model {model.ref} failed: {reason}: "
            f"correct the model or its manifest, then `clipper-stream apply`, or look at the host's log"
        )
    if model.hosts == 0 and model.replicas and not is_counted and not model.failed:
        waiting = f" ({', '.join(model.starting)} not yet)" if model.starting else ""
        yield (
            f"model {model.ref}: none of {model.replicas} hosts is ready{waiting}, so no query asks it: "
            f"wait for its start, or run `clipper-stream worker host {model.ref} --instance NAME`"
        )


def _of_answers(name: str, application: ApplicationStatus) -> Iterator[str]:
    """Answers that come too late or are defaults, and versions that answer too seldom."""
    seconds = f"in the last {application.window_s} s"
    for version in application.versions:
        errors, late = (version.unanswered.get(reason, 0) for reason in ("error", "late"))
        if errors > MOST_ERRORS_RATIO * version.queries:
            retire, abort = (
                f"`clipper-stream model retire {version.model} -a {name}`",
                f"`clipper-stream model abort {version.model} -a {name}`",
            )
            yield (
                f"application {name}: model {version.model} failed {errors} of {version.queries} queries {seconds}: "
                f"{version.said or 'no reason given'}: correct it, or take it out by "
                f"{retire if version.stage == 'live' else abort}"
            )
        elif version.queries >= LEAST_ASKED and late > MOST_LATE_RATIO * version.queries:
            yield (
                f"application {name}: model {version.model} was late {late} of {version.queries} times {seconds}: "
                f"{_slowness(name, application)}"
            )
    if application.queries < LEAST_ASKED:
        return
    own = {reason: count for reason, count in application.defaults.items() if reason not in {*REFUSALS, LOW_CONFIDENCE}}
    defaults, latency, objective_ms = sum(own.values()), application.latency, application.objective_ms
    if defaults > max(1.0, MISSED_RATIO * application.queries):
        counts = sorted(own.items(), key=itemgetter(1), reverse=True)
        reasons = "; ".join(f"{reason} {count}: {REASONS.get(reason, 'unknown here')}" for reason, count in counts)
        yield (
            f"application {name}: {defaults} of {application.queries} queries {seconds} got the default ({reasons}): "
            f"{_remedy(counts[0][0], name, application)}"
        )
    elif objective_ms is not None and latency is not None and latency.p99_ms > objective_ms:
        yield (
            f"application {name}: the 99th percentile of its answers is {latency.p99_ms:.0f} ms {seconds}, above its "
            f"objective of {objective_ms} ms: {_slowness(name, application)}"
        )


def _remedy(reason: str, name: str, application: ApplicationStatus) -> str:
    if reason == "errors":
        return f"`clipper-stream application show {name}` has its models: correct them, or retire what fails"
    if reason == "no_models":
        return f"deploy one by `clipper-stream model deploy REF -a {name} --uri FILE --stage live`, or start its hosts"
    return _slowness(name, application)


def _slowness(name: str, application: ApplicationStatus) -> str:
    """Where the time goes, by the stages of the answers, and what helps there."""
    stages = application.stages
    wait, models = (stages.get(stage, Latency(p50_ms=0.0, p99_ms=0.0)) for stage in ("wait", "models"))
    if wait.p50_ms > models.p50_ms:
        return f"queries wait {wait.p50_ms:.0f} ms before any model is asked (p50): run another router by {ROUTER}"
    slowest = max(application.versions, key=lambda one: one.latency.p99_ms if one.latency else 0.0, default=None)
    if slowest is None or slowest.latency is None:
        return "nothing came in time: `clipper-stream model list` shows which hosts there are"
    needed_ms = max(slowest.latency.p99_ms, application.objective_ms or 0) * 1.5
    return (
        f"model {slowest.model} takes {slowest.latency.p99_ms:.0f} ms (p99): give it more `replicas`, or the "
        f"application more time by `clipper-stream application update {name} --field objective_ms={needed_ms:.0f}`"
    )


def _of_trials(name: str, application: ApplicationStatus, now_s: float) -> Iterator[str]:
    asked = {version.model: version.queries for version in application.versions}
    for trial in application.trials:
        if not trial.feedbacks and _long_enough(trial, asked.get(trial.model, 0), now_s):
            since = f"for {(now_s - trial.since_s) / 60:.0f} min" if trial.since_s is not None else "so far"
            yield (
                f"application {name}: trial {trial.model} got no feedback {since}: send labels with the ids of its "
                f"queries, or end it by `clipper-stream model abort {trial.model} -a {name}`"
            )


def _long_enough(trial: TrialStatus, asked: int, now_s: float) -> bool:
    return asked >= LEAST_ASKED if trial.since_s is None else now_s - trial.since_s >= QUIET_S
