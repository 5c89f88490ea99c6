"""What is wrong with a deployment: the one table of conditions, each with its cause, its effect and what helps.

| looked at | wrong is |
|---|---|
| brokers, topics | what does not answer, is missing, has no leader, or may not be read |
| groups | nobody in one, records that wait for longer than they may, partitions nobody reads, records deleted unread |
| manifests, hosts | what is not declared, cannot be read, has too few hosts, or hosts that failed |
| processes | what they say of their disk and their clock, and checks of the logs that failed |
| applications | answers later than the objective, defaults, versions that fail, are late or drift, silent trials |

`status`, its JSON, `up` and the console show these, and no others. A cause quotes what anybody wrote; a remedy has
commands to copy, and never a text of others in them.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from operator import itemgetter
from typing import NamedTuple

from clipper_agents.status.model import (
    ApplicationStatus,
    ClusterStatus,
    GroupStatus,
    Latency,
    ModelStatus,
    Status,
    VersionStatus,
    WaitingRecords,
)
from clipper_agents.status.traffic_window import LEAST_ASKED
from clipper_topics.prediction import REASONS

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
DRIFTED_S = 3600.0
"""A loss that has risen is told for so long, as it is by the alert."""
UNKNOWN = "whether routers and hosts serve is not known"
ROUTER = "`clipper-stream worker router --instance NAME`"
ARGUMENT = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


class StatusProblem(NamedTuple):
    """Something that is wrong; as a text it is one line.

    Attributes:
        cause: What is not as it should be.
        effect: What follows from it for answers, for learning, or for whoever looks.
        remedy: What helps, with commands in backticks.
        application: Whose problem it is, and `model` of which version; empty: the whole deployment's.
        action: What would end it at once: `retire`, `abort` or nothing.

    >>> str(StatusProblem("no router runs", "no query is answered", "start one"))
    'no router runs, so no query is answered: start one'
    """

    cause: str
    effect: str = ""
    remedy: str = ""
    application: str = ""
    model: str = ""
    action: str = ""

    def __str__(self) -> str:
        whose = f"application {self.application}: " if self.application else ""
        effect, remedy = self.effect and f", so {self.effect}", self.remedy and f": {self.remedy}"
        return f"{whose}{self.cause}{effect}{remedy}"


def problems_of(status: Status, most_lag: int = MOST_LAG) -> list[StatusProblem]:
    """What is wrong; `most_lag` unread records of one group are still fine."""
    groups, models = () if status.cluster is None else status.cluster.groups, status.models.values()
    return [
        *([StatusProblem(status.stale, "figures are those of before")] if status.stale else []),
        *_of_cluster(status),
        *_of_topics(status),
        *(found for group in groups for found in _of_group(group, status, most_lag)),
        *_of_manifests(status),
        *(found for one in models for found in _of_hosts(one, status)),
        *(StatusProblem(f"{name}: {line}") for name, lines in status.processes.items() for line in lines),
        *(found for one in models for found in _of_model(one, is_counted=status.cluster is not None)),
        *_of_applications(status.applications, status.at_s),
    ]


# --- brokers and topics ---------------------------------------------------------------------------------------------
def _of_cluster(status: Status) -> Iterator[StatusProblem]:
    if (cluster := status.cluster) is None:
        missing = StatusProblem("brokers and groups are not known yet", UNKNOWN, "look again in a moment")
        yield StatusProblem(status.cluster_refused, UNKNOWN) if status.cluster_refused else missing
        return
    if (age_s := status.at_s - cluster.at_s) > CLUSTER_AGE_S:
        remedy = "is a broker slow? run `clipper-stream status`"
        yield StatusProblem(f"brokers and groups said nothing for {age_s:.0f} s", UNKNOWN, remedy)
    for one in cluster.brokers:
        if not one.reachable:
            effect, remedy = "partitions that it leads wait", "look at its log, and start it again"
            yield StatusProblem(f"broker {one.node_id} at {one.address} does not answer", effect, remedy)
    if cluster.dead_letters > MOST_DEAD_LETTERS:
        yield StatusProblem(
            f"{cluster.dead_letters} records could not be read within the last hour",
            "what they ask is not answered, and what they say not learned",
            "`clipper-stream dead-letters list` has them, with who sent what",
        )


def _of_topics(status: Status) -> Iterator[StatusProblem]:
    if status.cluster is not None:
        yield from _of_described_topics(status.cluster)
    for topic in status.unread_topics:
        cause = f"topic {topic}: not read to its end in time"
        yield StatusProblem(cause, "figures are incomplete", "look again, is a broker slow?")
    for topic in status.refused_topics:
        yield StatusProblem(
            f"topic {topic}: this user may not read it", "figures are missing", "give it the right to Read"
        )


def _of_described_topics(cluster: ClusterStatus) -> Iterator[StatusProblem]:
    if missing := cluster.missing_topics:
        what = f"topic {missing[0]} does" if len(missing) == 1 else f"{len(missing)} topics ({', '.join(missing)}) do"
        yield StatusProblem(f"{what} not exist", "who needs it waits", "run `clipper-stream topics create`")
    for one in cluster.topics:
        if one.configured not in (None, one.partitions):
            cause = f"topic {one.name} has {one.partitions} partitions, {one.configured} are configured"
            remedy = f"configure {one.partitions}, or delete it and run `clipper-stream topics create`"
            yield StatusProblem(cause, "no process starts", remedy)
        if one.leaderless:
            cause = f"topic {one.name}: partitions {_listed(one.leaderless)} have no leader"
            yield StatusProblem(cause, "their records wait", "start the brokers that hold them")
    if thin := [one for one in cluster.topics if one.under_replicated]:
        count, names = sum(len(one.under_replicated) for one in thin), ", ".join(one.name for one in thin)
        cause = f"{count} partitions have fewer copies than they should ({names})"
        yield StatusProblem(cause, "they may not outlast another broker", "is a broker down, or catching up?")


# --- groups ---------------------------------------------------------------------------------------------------------
def _of_group(group: GroupStatus, status: Status, most_lag: int) -> Iterator[StatusProblem]:
    if group.model is None:
        yield from _of_routers(group, status)
    if group.members and group.state != "Stable":
        yield StatusProblem(
            f"group {group.group} is in state {group.state}",
            "its processes divide the partitions anew, and read nothing meanwhile",
            "if it stays so, two have one name: give each its own `--instance`",
            model=group.model or "",
        )
    elif group.members:
        yield from _of_readers(group, status)
    if (lag := sum(group.lag.values())) > most_lag:
        cause, remedy = f"group {group.group} is {lag} records behind, more than {most_lag}", _another(group)
        yield StatusProblem(cause, "answers come late", f"add one by {remedy}, or ask less", model=group.model or "")
    if group.deleted:
        cause = f"{group.deleted} records were deleted before group {group.group} had read them"
        remedy = f"it was away for longer than they are kept: raise `retention.ms` of {', '.join(group.inputs)}"
        yield StatusProblem(cause, "nobody answers these", remedy, model=group.model or "")


def _another(group: GroupStatus) -> str:
    return ROUTER if group.model is None else _host(group.model)


def _host(ref: str, name: str = "NAME") -> str:
    """The command that starts a host; a name that a shell, or a reader, takes for more than a name is left open."""
    return f"`clipper-stream worker host {ref} --instance {name if ARGUMENT.fullmatch(name) else 'NAME'}`"


def _of_routers(group: GroupStatus, status: Status) -> Iterator[StatusProblem]:
    """What is said of routers that are missing: one that is frozen has said before that it is ready."""
    waits, names = _waits(group.waiting, status.at_s), {member.instance for member in group.members}
    unheard = [name for name in status.routers if name not in names]
    if not names and not unheard:
        yield StatusProblem(
            "no router runs", waits or "no query is answered", f"run {ROUTER}, or look at the log of `up`"
        )
    elif unheard and not (names and not group.unowned and not group.waiting):
        how = "; ".join(_kill(name, status) for name in unheard)
        cause = f"router {', '.join(unheard)} says that it is ready, and its group does not hear of it"
        remedy = f"it is frozen, cut off or was killed: {how}, then {ROUTER}, which `up` does by itself"
        yield StatusProblem(cause, waits or "what it should answer waits", remedy)


def _kill(name: str, status: Status) -> str:
    return f"`kill -KILL {status.pids[name]}` on its machine" if name in status.pids else "kill it"


def _of_readers(group: GroupStatus, status: Status) -> Iterator[StatusProblem]:
    for topic, partitions in group.unowned.items():
        numbers = _listed(partitions)
        cause = f"group {group.group}: nobody reads partitions {numbers} of {topic}"
        yield StatusProblem(cause, "their records wait", "restart its processes", model=group.model or "")
    kind = "router" if group.model is None else f"host of {group.model}"
    for member in group.members:
        waiting = [one for one in group.waiting if one.partition in member.partitions.get(one.topic, ())]
        if not waiting:
            continue
        who, waits = f"{kind} {member.instance} on {member.host}", _waits(waiting, status.at_s)
        if all(one.stands_still for one in waiting):
            remedy = (
                f"do its models answer (`clipper-stream model list`)? If its `/livez` does not answer either, it is "
                f"frozen or cut off: {_kill(member.instance, status)}, and `up` starts it anew"
            )
            yield StatusProblem(f"{who} finishes nothing", waits, remedy, model=group.model or "")
        else:
            remedy = f"run another by {_another(group)}, or ask less"
            yield StatusProblem(f"{who} is behind", waits, remedy, model=group.model or "")


def _waits(waiting: Iterable[WaitingRecords], at_s: float) -> str:
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
def _of_manifests(status: Status) -> Iterator[StatusProblem]:
    for name, application in status.applications.items():
        for version in application.versions:
            if version.declared is None:
                cause, remedy = f"model {version.model} is not declared", "run `clipper-stream apply`"
                yield StatusProblem(cause, "no query asks it", remedy, name, version.model)
    for key, why in status.unreadable.items():
        yield StatusProblem(f"manifest {key} cannot be read: {why}", "nothing is shown of it")


def _of_hosts(one: ModelStatus, status: Status) -> Iterator[StatusProblem]:
    if status.cluster is None:
        return  # who may not ask the groups does not know
    hosts = one.hosts or 0
    for name in one.unheard if hosts < one.replicas else ():
        yield StatusProblem(
            f"host {name} of model {one.ref} says that it is ready, and its group does not hear of it",
            "it answers nothing",
            f"it is frozen, cut off or was killed: {_kill(name, status)}, then {_host(one.ref, name)}, which `up` does "
            f"by itself",
            model=one.ref,
        )
    yield from _of_missing_hosts(one, one.replicas - hosts - len(one.unheard) - len(one.failed))


def _of_missing_hosts(one: ModelStatus, missing: int) -> Iterator[StatusProblem]:
    if missing > 0:
        cause, remedy = f"model {one.ref} has {one.hosts or 0} of {one.replicas} hosts", f"run {_host(one.ref)}"
        if missing <= len(one.starting):
            cause, remedy = f"{cause} (starting: {', '.join(one.starting)})", "wait until the model is loaded"
        effect = "its queries wait for fewer hosts" if one.hosts else "no query asks it"
        yield StatusProblem(cause, effect, f"{remedy}, or look at the log of `up`", model=one.ref)


# --- applications ---------------------------------------------------------------------------------------------------
def application_problems(application: ApplicationStatus, now_s: float) -> list[StatusProblem]:
    """What is wrong with one application and the versions that it uses."""
    used = {one.model: one.declared for one in application.versions if one.declared is not None}
    return [
        *(found for _, model in sorted(used.items()) for found in _of_model(model, is_counted=False)),
        *_of_applications({application.name: application}, now_s),
    ]


def _of_applications(applications: Mapping[str, ApplicationStatus], now_s: float) -> Iterator[StatusProblem]:
    for name, each in applications.items():
        yield from _of_answers(name, each)
        yield from _of_drift(name, each, now_s)
    for name, each in applications.items():
        yield from _of_trials(name, each, now_s)


def _of_model(model: ModelStatus, *, is_counted: bool) -> Iterator[StatusProblem]:
    """What its hosts say; whether enough of them serve is told by `_of_hosts` where these are counted."""
    if model.retired:
        return
    for instance, reason in model.failed.items():
        remedy = "correct the model or its manifest, then `clipper-stream apply`, or look at the host's log"
        cause = f"host {instance} of model {model.ref} failed: {reason}"
        yield StatusProblem(cause, "it answers nothing", remedy, model=model.ref)
    if model.hosts == 0 and not is_counted and not model.failed:
        yield from _of_missing_hosts(model, model.replicas)


def _of_answers(name: str, application: ApplicationStatus) -> Iterator[StatusProblem]:
    seconds = f"in the last {application.window_s} s"
    for version in application.versions:
        errors, late = (version.unanswered.get(reason, 0) for reason in ("error", "late"))
        if errors > MOST_ERRORS_RATIO * version.queries:
            said = version.said or "no reason given"
            cause = f"model {version.model} failed {errors} of {version.queries} queries {seconds}: {said}"
            yield _to_take_out(name, version, cause, "others answer these, or the default does", "correct it, or")
        elif version.queries >= LEAST_ASKED and late > MOST_LATE_RATIO * version.queries:
            cause = f"model {version.model} was late {late} of {version.queries} times {seconds}"
            yield StatusProblem(cause, "answers come without it", _slowness(name, application), name, version.model)
    if application.queries < LEAST_ASKED:
        return
    own, latency, objective_ms = application.unanswered, application.latency, application.objective_ms
    if (defaults := sum(own.values())) > max(1.0, MISSED_RATIO * application.queries):
        counts = sorted(own.items(), key=itemgetter(1), reverse=True)
        reasons = "; ".join(f"{reason} {count}: {REASONS.get(reason, 'unknown here')}" for reason, count in counts)
        cause = f"{defaults} of {application.queries} queries {seconds} got the default ({reasons})"
        yield StatusProblem(cause, "no model answered them", _remedy(counts[0][0], name, application), name)
    elif objective_ms is not None and latency is not None and latency.p99_ms > objective_ms:
        cause = (
            f"the 99th percentile of its answers is {latency.p99_ms:.0f} ms {seconds}, above its objective of "
            f"{objective_ms} ms"
        )
        yield StatusProblem(cause, "one caller in a hundred waits too long", _slowness(name, application), name)


def _of_drift(name: str, application: ApplicationStatus, now_s: float) -> Iterator[StatusProblem]:
    for version in application.versions:
        if (drift := version.drift) is not None and now_s - drift.at_ms / 1000 < DRIFTED_S:
            risen = f"has risen from {drift.loss_before:.3f} to {drift.loss_after:.3f} within the last hour"
            remedy = f"`clipper-stream application history {name}` has what changed: put a newer one on trial, or"
            cause = f"the loss of model {version.model} {risen}"
            yield _to_take_out(name, version, cause, "more of its answers are wrong", remedy)


def _to_take_out(name: str, version: VersionStatus, cause: str, effect: str, remedy: str) -> StatusProblem:
    retire, abort = (
        f"`clipper-stream model retire {version.model} -a {name}`",
        f"`clipper-stream model abort {version.model} -a {name}`",
    )
    action, command = ("retire", retire) if version.stage == "live" else ("abort", abort)
    return StatusProblem(cause, effect, f"{remedy} take it out by {command}", name, version.model, action)


def _remedy(reason: str, name: str, application: ApplicationStatus) -> str:
    if reason == "errors":
        return f"`clipper-stream application show {name}` has its models: correct them, or retire what fails"
    if reason == "no_models":
        return f"deploy one by `clipper-stream model deploy REF -a {name} --uri FILE --stage live`, or start its hosts"
    return _slowness(name, application)


def _slowness(name: str, application: ApplicationStatus) -> str:
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


def _of_trials(name: str, application: ApplicationStatus, now_s: float) -> Iterator[StatusProblem]:
    for trial in application.trials:
        feedbacks = trial.loss is not None if trial.compared is None else trial.compared.feedbacks
        if not feedbacks and _long_enough(trial, now_s):
            since = f"for {(now_s - trial.since_s) / 60:.0f} min" if trial.since_s is not None else "so far"
            abort = f"`clipper-stream model abort {trial.model} -a {name}`"
            remedy = f"send labels with the ids of its queries, or end it by {abort}"
            cause = f"trial {trial.model} got no feedback {since}"
            yield StatusProblem(cause, "nothing can be decided", remedy, name, trial.model, "abort")


def _long_enough(trial: VersionStatus, now_s: float) -> bool:
    return trial.queries >= LEAST_ASKED if trial.since_s is None else now_s - trial.since_s >= QUIET_S
