"""What `status` shows: a deployment as tables."""

from collections.abc import Iterator, Sequence

from rich.console import RenderableType, group
from rich.text import Text

from clipper_agents.cli.registry_view import change_row
from clipper_agents.cli.terminal import TextTable
from clipper_agents.status.deployment_view import drift_described
from clipper_agents.status.model import (
    ApplicationStatus,
    ClusterStatus,
    GroupStatus,
    Status,
    VersionStatus,
)
from clipper_agents.status.texts import UNKNOWN, figure, span, when
from clipper_stream.selection.confidence import ExpectedLoss

STAGE_STYLE = {"live": "green", "canary": "yellow", "shadow": "cyan", "retired": "dim"}
COUNTS = ("batch limit", "p50 ms", "p99 ms", "lag")
HEADINGS = ("version", "stage", "weight", "share", "loss to date, 95 %", "hosts", *COUNTS)
_percent, _count = figure(".0f", " %", per=0.01, below=1, small=".1f"), figure(".0f")
_ms = figure(".0f", below=10, small=".1f")
_RIGHT = {"weight", "share", *COUNTS}


# --- the page -------------------------------------------------------------------------------------------------------
@group()
def page(status: Status, reasons: Sequence[str]) -> Iterator[RenderableType]:
    """Yield brokers, topics and groups, applications, dead letters, and a line for each thing that is wrong."""
    yield Text(f"{status.prefix} at {when(round(1000 * status.at_s))}")
    if status.cluster is not None:
        yield from _cluster_tables(status.cluster)
    for name, application in status.applications.items():
        yield from application_parts(name, application)
    named = {version.model for each in status.applications.values() for version in each.versions}
    if others := [ref for ref, one in status.models.items() if ref not in named and not one.retired]:
        yield Text(f"models of no application: {', '.join(others)}")
    if status.cluster is not None:
        dead_letters = status.cluster.dead_letters
        yield Text(f"dead letters within the last hour: {dead_letters}", "yellow" if dead_letters else "")
    for reason in reasons:
        yield Text(f"wrong: {reason}", "red", no_wrap=True, overflow="ignore")
    if not reasons:
        yield Text("nothing is wrong", "green")


def _cluster_tables(cluster: ClusterStatus) -> Iterator[RenderableType]:
    brokers = [(str(one.node_id), one.address, "yes" if one.reachable else "no") for one in cluster.brokers]
    troubled = [one for one in cluster.topics if one.leaderless or one.under_replicated]
    topics = [
        (one.name, str(one.partitions), _listed(one.leaderless), _listed(one.under_replicated)) for one in troubled
    ]
    if fine := [one for one in cluster.topics if one not in troubled]:
        topics.append((f"{len(fine)} without trouble", str(sum(one.partitions for one in fine)), "", ""))
    groups = [row for one in cluster.groups for row in _group_rows(one)]
    for columns, rows in (
        ("broker address answers", brokers),
        ("topic partitions leaderless under-replicated", topics),
        ("group state instance host reads lag", groups),
    ):
        yield TextTable(columns.split(), rows)


def _group_rows(status: GroupStatus) -> Iterator[tuple[str, ...]]:
    lag = str(sum(status.lag.values()))
    if not status.members:
        yield status.group, status.state, "none", "", "", lag
    for number, member in enumerate(status.members):
        head = ("", "") if number else (status.group, status.state)
        reads = sorted({one for topic in status.inputs for one in member.partitions.get(topic, ())})
        yield *head, member.instance, member.host, _listed(reads), "" if number else lag


def _listed(partitions: Sequence[int]) -> str:
    return ",".join(map(str, partitions))


# --- an application -------------------------------------------------------------------------------------------------
def application_parts(name: str, status: ApplicationStatus) -> Iterator[RenderableType]:
    """Return the tables and lines that show one application, with its last changes."""
    objective = "no objective" if status.objective_ms is None else f"objective {status.objective_ms} ms"
    yield Text(f"application {name}: {status.policy}, {objective}, revision {status.revision}", style="bold")
    yield Text("\n".join(flow_lines(status)))
    yield TextTable(HEADINGS, [[*_cells(version)] for version in status.versions], _RIGHT)
    for version in status.versions:
        for instance, reason in version.declared.failed.items() if version.declared else ():
            yield Text(f"host {instance} failed: {reason}", style="red")
    yield from (Text(_expected_line(one.model, one.expected)) for one in status.versions if one.expected is not None)
    for trial in status.trials:
        yield Text(trial_line(trial))
        for one in trial.compared.guardrails if trial.compared else ():
            mean = UNKNOWN if one.estimate is None else f"{one.estimate:.4g}"
            where = f"{mean} in [{one.lower:.4g} {one.upper:.4g}], bound {one.bound:.4g}"
            yield Text(f"  guardrail {one.name} {one.state}: {where}", "red" if one.state == "outside" else "")
    for version in status.versions:
        if version.drift is not None:
            yield Text(drift_described(version.drift), style="yellow")
    if changes := [change_row(one) for one in status.changes]:
        yield TextTable([*changes[0]], [row.values() for row in changes])


def flow_lines(status: ApplicationStatus) -> Iterator[str]:
    """Throughput, latency and defaults in a line, and where the latency comes from."""
    parts = [f"{status.queries_per_s:.1f} queries/s", f"{status.feedback_per_s:.1f} feedback/s"]
    if status.latency is not None:
        parts += [f"p50 {_ms(status.latency.p50_ms)} ms", f"p99 {_ms(status.latency.p99_ms)} ms"]
    defaults = ", ".join(f"{reason} {count}" for reason, count in status.defaults.items())
    parts.append(f"defaults: {defaults}" if defaults else "no defaults")
    yield f"last {status.window_s} s: {'; '.join(parts)}"
    if ends := [f"{name} {_ms(one.p50_ms)}, {_ms(one.p99_ms)}" for name, one in status.stages.items()]:
        yield f"p50, p99 ms by stage: {'; '.join(ends)}"


def _expected_line(model: str, found: ExpectedLoss) -> str:
    if found.mean is None:
        return f"expected loss of {model} is not shown: {found.refused}"
    return (
        f"expected loss of {model}, by the confidence of {found.answers:.0f} answers of the last minute: "
        f"{found.mean:.3f} [{found.lower:.3f} {found.upper:.3f}]; {found.error:+.3f} off over {found.labels:.0f} labels"
    )


def trial_line(trial: VersionStatus) -> str:
    """Return how a trial does by the steward's evidence, and what it waits for."""
    found, plan = trial.compared, f"; its plan {trial.plan}" if trial.plan else ""
    if found is None or found.since_s is None or not found.scores:
        return f"trial {trial.model} waits: {trial.waits_for}{plan}"
    waiting = f" ({found.waiting} wait for feedback)" if found.waiting else ""
    sides = (found.trial_loss, found.trial_feedbacks), (found.answer_loss, found.answer_feedbacks)
    own, answers = (f"{UNKNOWN if loss is None else f'{loss:.3f}'} of {count}" for loss, count in sides)
    difference = "" if found.difference is None else f": {found.difference:+.3f}"
    return (
        f"trial {trial.model}: loss {own} feedbacks, models {answers}{difference}; in [{found.lower:+.3f} "
        f"{found.upper:+.3f}] for all {found.scores} queries{waiting} from {span(found.since_s, found.upto_s)}; "
        f"waits: {trial.waits_for}{plan}"
    )


def _cells(version: VersionStatus) -> Iterator[Text]:
    latency, loss, model = version.latency, version.loss, version.declared
    dim = "dim" if version.stage == "retired" else ""
    yield Text(version.model, dim)
    yield Text(_stage(version), STAGE_STYLE[version.stage])
    yield Text(_percent(version.weight), dim)
    yield Text(_percent(version.share), dim)
    yield Text(UNKNOWN if loss is None else f"{loss.mean:.3f} [{loss.lower:.3f} {loss.upper:.3f}]", dim)
    yield Text(_hosts(version), "red" if model and model.hosts == 0 and model.replicas else dim)
    yield Text(_count(model.batch_limit if model else None), dim)
    yield Text(_ms(latency.p50_ms if latency else None), dim)
    yield Text(_ms(latency.p99_ms if latency else None), dim)
    yield Text(_count(model.lag if model else None), dim)


def _stage(version: VersionStatus) -> str:
    return version.stage if version.declared_share is None else f"{version.stage} {_percent(version.declared_share)}"


def _hosts(version: VersionStatus) -> str:
    if (model := version.declared) is None:
        return "undeclared"
    if version.stage == "retired":
        return UNKNOWN
    if model.colocated:
        return "router"
    return f"{'?' if model.hosts is None else model.hosts}/{model.replicas}"
