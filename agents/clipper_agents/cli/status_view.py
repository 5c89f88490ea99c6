"""What `status` and `watch` show: a deployment as tables of at most 100 columns, as lines, and as an object."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime

import msgspec
from rich.console import Console, RenderableType, group
from rich.text import Text

from clipper_agents.cli.terminal import TextTable, table
from clipper_agents.status.deployment_view import DeploymentEvent
from clipper_agents.status.model import (
    ApplicationStatus,
    DriftStatus,
    GroupStatus,
    Loss,
    Status,
    TopicStatus,
    TrialStatus,
    VersionStatus,
)
from clipper_agents.status.watch import Snapshot

COLUMNS = 100
"""Where there is no terminal that says how wide it is."""
SHOWN_EVENTS = 8
DAY_S = 86_400
STAGE_STYLE = {"live": "green", "canary": "yellow", "shadow": "cyan", "retired": "dim"}
HEADINGS = ("version", "stage", "weight", "share", "loss to date, 95 %", "hosts", "batch", "p50 ms", "p99 ms", "lag")
UNKNOWN = "-"
_OPTIONAL = {"batch", "lag"}
"""Left out where nothing is known of any version."""
_RIGHT = {"weight", "share", "batch", "p50 ms", "p99 ms", "lag"}


# --- the page of `status` -------------------------------------------------------------------------------------------
def show(console: Console, status: Status, reasons: Sequence[str]) -> None:
    """Print the whole page: brokers, topics, groups, applications, dead letters, and a line for each thing wrong."""
    console.print(_status_page(status))
    for reason in reasons:
        console.print(Text(f"wrong: {reason}", "red"), soft_wrap=True)
    if not reasons:
        console.print(Text("nothing is wrong", "green"))


@group()
def _status_page(status: Status) -> Iterator[RenderableType]:
    yield Text(f"{status.prefix} at {instant(status.at_s)}")
    brokers = [(str(one.node_id), one.address, "yes" if one.reachable else "no") for one in status.brokers]
    topics = [row for one in status.topics for row in _topic_row(one)]
    if fine := [one for one in status.topics if not (one.leaderless or one.under_replicated)]:
        topics.append((f"{len(fine)} without trouble", str(sum(one.partitions for one in fine)), "", ""))
    groups = [row for one in status.groups for row in _group_rows(one)]
    for columns, rows in (
        ("broker address answers", brokers),
        ("topic partitions leaderless under-replicated", topics),
        ("group state instance host reads lag", groups),
    ):
        headings = columns.split()
        yield table(headings, rows, wrapped=headings)
    for name, application in status.applications.items():
        yield from application_parts(name, application)
    named = {version.model for each in status.applications.values() for version in each.versions}
    if others := [one.ref for one in status.models if one.ref not in named and not one.retired]:
        yield Text(f"models of no application: {', '.join(others)}")
    yield Text(f"dead letters within the last hour: {status.dead_letters}", "yellow" if status.dead_letters else "")


def _topic_row(topic: TopicStatus) -> Iterator[tuple[str, ...]]:
    """Yield a row when the topic has a problem."""
    if topic.leaderless or topic.under_replicated:
        lists = (",".join(map(str, partitions)) for partitions in (topic.leaderless, topic.under_replicated))
        yield (topic.name, str(topic.partitions), *lists)


def _group_rows(status: GroupStatus) -> Iterator[tuple[str, ...]]:
    lag = str(sum(status.lag.values()))
    if not status.members:
        yield status.group, status.state, "none", "", "", lag
    for number, member in enumerate(status.members):
        head = ("", "") if number else (status.group, status.state)
        reads = sorted({one for topic in status.inputs for one in member.partitions.get(topic, ())})
        yield *head, member.instance, member.host, ",".join(map(str, reads)), "" if number else lag


# --- the page and the lines of `watch` ------------------------------------------------------------------------------
@group()
def page(look: Snapshot, prefix: str, curves: Mapping[str, TextTable]) -> Iterator[RenderableType]:
    """Yield the whole page for a terminal: of a deployment with this prefix, with these curves by application."""
    yield Text(f"{prefix} at {clock(look.at_s)}; Ctrl-C ends it")
    for name, status in look.applications.items():
        yield Text()
        yield from application_parts(name, status, changes=False)
        if name in curves:
            yield curves[name]
    if look.latest:
        yield Text()
    for event in look.latest[-SHOWN_EVENTS:]:
        yield Text(event_line(event), style="dim", no_wrap=True, overflow="ellipsis")
    for reason in look.reasons:
        yield Text(f"wrong: {reason}", style="red")


def lines(look: Snapshot, told: Sequence[str]) -> Iterator[str]:
    """For a pipe: what happened, what is wrong now and was not told before, and a line an application."""
    yield from map(event_line, look.events)
    yield from (f"{clock(look.at_s)} wrong: {reason}" for reason in look.reasons if reason not in told)
    for name, status in look.applications.items():
        yield line_of(name, status, look.at_s)


def json_line(look: Snapshot) -> str:
    """Return one JSON object, with the events since the snapshot before."""
    content = msgspec.to_builtins(look)
    del content["latest"], content["kafka_answers"]  # events and reasons tell both
    return msgspec.json.encode(content).decode()


def event_line(event: DeploymentEvent) -> str:
    """Return the time and text of an event.

    >>> event_line(DeploymentEvent(at_s=1_700_000_000.0, text="host h of svm:2 is ready"))
    '22:13:20Z event: host h of svm:2 is ready'
    """
    return f"{clock(event.at_s)} event: {event.text}"


def line_of(name: str, status: ApplicationStatus, at_s: float) -> str:
    """An application in a line: what flows, then each version but the retired ones."""
    parts = [f"{clock(at_s)} {name} {status.queries_per_s:.1f} q/s"]
    if status.latency is not None:
        parts.append(f"p50={status.latency.p50_ms:.0f}ms p99={status.latency.p99_ms:.0f}ms")
    parts += [f"default:{reason}={count}" for reason, count in status.defaults.items()]
    versions = [_version(one) for one in status.versions if one.stage != "retired"]
    return " | ".join([" ".join(parts), *versions])


def _version(version: VersionStatus) -> str:
    drift = version.drift
    parts = (
        version.model,
        _stage(version).replace(" %", "%").replace(" ", "@"),
        "" if version.share is None else f"share={version.share:.0%}",
        "" if version.weight is None else f"weight={version.weight:.2f}",
        "" if version.loss is None else f"loss={version.loss.mean:.3f}",
        "" if drift is None else f"drift={drift.loss_before:.3f}->{drift.loss_after:.3f}",
    )
    return " ".join(filter(None, parts))


# --- an application -------------------------------------------------------------------------------------------------
def application_parts(name: str, status: ApplicationStatus, *, changes: bool = True) -> Iterator[RenderableType]:
    """Return the tables and lines that show one application, with its last changes if they are wanted."""
    objective = "no objective" if status.objective_ms is None else f"objective {status.objective_ms} ms"
    context = f", context {status.context}" if status.context is not None else ""
    yield Text(f"application {name}: {status.policy}, {objective}, revision {status.revision}{context}", style="bold")
    yield Text("\n".join([flow_line(status), *stage_lines(status)]))
    yield _versions(status)
    for version in status.versions:
        for instance, reason in version.failed.items():
            yield Text(f"host {instance} failed: {reason}", style="red")
    for trial in status.trials:
        yield Text(trial_line(trial))
    for version in status.versions:
        if version.drift is not None:
            yield Text(drift_line(version.model, version.drift), style="yellow")
    if status.contexts:
        least = "" if status.contexts_whole else "at least "
        yield Text(f"contexts with weights of their own: {least}{status.contexts}")
    if changes and status.changes:
        headings = ("revision", "changed at", "by", "what", "why")
        rows = (
            (str(one.revision), instant(one.at_s), one.by, f"{one.command} {one.model or ''}".strip(), one.why)
            for one in status.changes
        )
        yield table(headings, rows, wrapped=headings)


def instant(at_s: float) -> str:
    """A moment in UTC, to the second.

    >>> instant(1_700_000_000.0)
    '2023-11-14T22:13:20Z'
    """
    return datetime.fromtimestamp(at_s, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def clock(at_s: float) -> str:
    """The time of day of a moment in UTC.

    >>> clock(1_700_000_000.0)
    '22:13:20Z'
    """
    return instant(at_s)[11:]


def flow_line(status: ApplicationStatus) -> str:
    """Throughput, latency and defaults in a line."""
    parts = [f"{status.queries_per_s:.1f} queries/s", f"{status.feedback / max(1, status.window_s):.1f} feedback/s"]
    if status.latency is not None:
        parts += [f"p50 {_ms(status.latency.p50_ms)} ms", f"p99 {_ms(status.latency.p99_ms)} ms"]
    defaults = ", ".join(f"{reason} {count}" for reason, count in status.defaults.items())
    parts.append(f"defaults: {defaults}" if defaults else "no defaults")
    return f"last {status.window_s} s: {'; '.join(parts)}"


def stage_lines(status: ApplicationStatus) -> list[str]:
    """Where the latency comes from, in a line; none without answers."""
    ends = (f"{name} {_ms(one.p50_ms)}, {_ms(one.p99_ms)}" for name, one in status.stages.items())
    return [f"p50, p99 ms by stage: {'; '.join(ends)}"] if status.stages else []


def trial_line(trial: TrialStatus) -> str:
    """Return how a trial does, by which evidence, and what it waits for."""
    if trial.from_s is not None and trial.upto_s is not None:
        waiting = f" ({trial.waiting} wait for feedback)" if trial.waiting else ""
        made_of = f"for all {trial.scores} queries{waiting} from {span(trial.from_s, trial.upto_s)}"
    elif trial.feedbacks and trial.source == "totals":
        made_of = "by these totals"
    else:
        return f"trial {trial.model} waits: {trial.waits_for}"
    known = f"loss {_of_feedback(trial.loss)} feedbacks, models {_of_feedback(trial.answers)}"
    if trial.loss is not None and trial.answers is not None:
        known += f": {trial.difference:+.3f}"
    return (
        f"trial {trial.model}: {known}; in [{trial.lower:+.3f} {trial.upper:+.3f}] {made_of}; waits: {trial.waits_for}"
    )


def _of_feedback(loss: Loss | None) -> str:
    return f"{UNKNOWN} of 0" if loss is None else f"{loss.mean:.3f} of {loss.count:.0f}"


def drift_line(model: str, drift: DriftStatus) -> str:
    """Return how a version's loss has changed, and when.

    >>> drift = DriftStatus(at_s=0.0, ago_s=750.0, loss_before=0.04, loss_after=0.31, context=None, detector="adwin")
    >>> drift_line("svm:1", drift)
    'drift svm:1: loss 0.040 -> 0.310, 12 min ago (adwin)'
    """
    context = "" if drift.context is None else f", context {drift.context}"
    return (
        f"drift {model}: loss {drift.loss_before:.3f} -> {drift.loss_after:.3f}, "
        f"{ago(drift.ago_s)} ({drift.detector}{context})"
    )


def span(from_s: float, upto_s: float) -> str:
    """Two moments in UTC, with their dates when a day or more lies between them.

    >>> span(1_700_000_000.0, 1_700_000_060.0)
    '22:13:20Z to 22:14:20Z'
    """
    said = clock if upto_s - from_s < DAY_S else instant
    return f"{said(from_s)} to {said(upto_s)}"


def ago(seconds: float) -> str:
    """Return how long ago, in the unit that fits.

    >>> ago(7.0), ago(750.0), ago(7_300.0), ago(200_000.0)
    ('7 s ago', '12 min ago', '2 h ago', '2 d ago')
    """
    for unit, size_s in (("d", DAY_S), ("h", 3_600), ("min", 60)):
        if seconds >= size_s:
            return f"{seconds // size_s:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def _versions(status: ApplicationStatus) -> TextTable:
    rows = [[*_cells(version)] for version in status.versions]
    shown = [
        at for at, name in enumerate(HEADINGS) if name not in _OPTIONAL or any(row[at].plain != UNKNOWN for row in rows)
    ]
    headings = [HEADINGS[at] for at in shown]
    return table(headings, ([row[at] for at in shown] for row in rows), right=_RIGHT, wrapped={"version"})


def _cells(version: VersionStatus) -> Iterator[Text]:
    latency, loss = version.latency, version.loss
    dim = "dim" if version.stage == "retired" else ""
    yield Text(version.model, dim)
    yield Text(_stage(version), STAGE_STYLE[version.stage])
    yield Text(_percent(version.weight), dim)
    yield Text(_percent(version.share), dim)
    yield Text(UNKNOWN if loss is None else f"{loss.mean:.3f} [{loss.lower:.3f} {loss.upper:.3f}]", dim)
    yield Text(_hosts(version), "red" if version.hosts == 0 and version.replicas else dim)
    yield Text(_count(version.batch_limit), dim)
    yield Text(_ms(None if latency is None else latency.p50_ms), dim)
    yield Text(_ms(None if latency is None else latency.p99_ms), dim)
    yield Text(_count(version.lag), dim)


def _stage(version: VersionStatus) -> str:
    return version.stage if version.declared_share is None else f"{version.stage} {_percent(version.declared_share)}"


def _hosts(version: VersionStatus) -> str:
    if not version.declared:
        return "undeclared"
    if version.stage == "retired":
        return UNKNOWN
    if version.colocated:
        return "routers"
    return f"{'?' if version.hosts is None else version.hosts}/{version.replicas}"


def _percent(share: float | None) -> str:
    """A share as a percentage, two digits of small ones.

    >>> _percent(0.714), _percent(0.004), _percent(None)
    ('71 %', '0.4 %', '-')
    """
    if share is None:
        return UNKNOWN
    return f"{100 * share:.1f} %" if 0.0 < share < 0.01 else f"{100 * share:.0f} %"  # noqa: PLR2004 (a percent)


def _count(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.0f}"


def _ms(value: float | None) -> str:
    """Milliseconds, with a digit behind the point where there is one before it; a dash of none.

    >>> _ms(3.14159), _ms(41.7), _ms(None)
    ('3.1', '42', '-')
    """
    if value is None:
        return UNKNOWN
    return f"{value:.1f}" if value < 10 else f"{value:.0f}"  # noqa: PLR2004 (two digits)
