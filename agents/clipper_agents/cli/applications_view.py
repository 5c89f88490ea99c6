"""Applications and their versions as tables of at most 100 columns, for `status` and `watch`."""

from collections.abc import Iterator
from datetime import UTC, datetime

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from clipper_agents.status.model import (
    ApplicationStatus,
    DriftStatus,
    Latency,
    TrialStatus,
    VersionStatus,
)

COLUMNS = 100
"""Where there is no terminal that says how wide it is."""
STAGE_STYLE = {"live": "green", "canary": "yellow", "shadow": "cyan", "retired": "dim"}
HEADINGS = ("version", "stage", "weight", "share", "loss, 95 %", "hosts", "batch", "p50 ms", "p99 ms", "lag")
UNKNOWN = "-"
_OPTIONAL = {"batch", "lag"}
"""Left out where nothing is known of any version."""
_RIGHT = {"weight", "share", "batch", "p50 ms", "p99 ms", "lag"}


def application_parts(
    name: str, status: ApplicationStatus, *, changes: bool = True, width: int = COLUMNS
) -> Iterator[RenderableType]:
    """Return the tables and lines that show one application.

    Args:
        name: Its name.
        status: Its status.
        changes: Whether its last changes are wanted.
        width: Columns that there are.
    """
    yield Text(_declared(name, status), style="bold")
    yield Text(flow_line(status))
    yield _versions(status, gap=2 if width >= COLUMNS else 1)
    for version in status.versions:
        for instance, reason in version.failed.items():
            yield Text(f"host {instance} failed: {reason}", style="red")
    for trial in status.trials:
        yield Text(trial_line(trial))
    for version in status.versions:
        if version.drift is not None:
            yield Text(drift_line(version.model, version.drift), style="yellow")
    if contexts := _contexts(status):
        yield Text(contexts)
    if changes and status.changes:
        yield _changes(status)


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


def trial_line(trial: TrialStatus) -> str:
    """Return how a trial does, and what it waits for."""
    if not trial.feedbacks:
        return f"trial {trial.model}: no feedback; waits for {trial.waits_for}"
    said = "" if trial.source == "steward" else " (of totals)"
    return (
        f"trial {trial.model}: {trial.feedbacks} feedbacks, loss {trial.difference:+.3f} "
        f"[{trial.lower:+.3f} {trial.upper:+.3f}]{said}; waits for {trial.waits_for}"
    )


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


def ago(seconds: float) -> str:
    """Return how long ago, in the unit that fits.

    >>> ago(7.0), ago(750.0), ago(7_300.0), ago(200_000.0)
    ('7 s ago', '12 min ago', '2 h ago', '2 d ago')
    """
    for unit, size_s in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size_s:
            return f"{seconds // size_s:.0f} {unit} ago"
    return f"{max(0.0, seconds):.0f} s ago"


def stage_of(version: VersionStatus) -> str:
    """Its stage, with the declared share of a trial."""
    return version.stage if version.declared_share is None else f"{version.stage} {_percent(version.declared_share)}"


def hosts_of(version: VersionStatus) -> str:
    """Ready hosts of those that there should be."""
    if not version.declared:
        return "undeclared"
    if version.stage == "retired":
        return UNKNOWN
    if version.colocated:
        return "routers"
    return f"{'?' if version.hosts is None else version.hosts}/{version.replicas}"


def _declared(name: str, status: ApplicationStatus) -> str:
    objective = "no objective" if status.objective_ms is None else f"objective {status.objective_ms} ms"
    context = f", context {status.context}" if status.context is not None else ""
    return f"application {name}: {status.policy}, {objective}, revision {status.revision}{context}"


def _versions(status: ApplicationStatus, gap: int) -> Table:
    rows = [[*_cells(version)] for version in status.versions]
    shown = [at for at, name in enumerate(HEADINGS) if name not in _OPTIONAL or any(row[at] != UNKNOWN for row in rows)]
    table = Table(box=None, pad_edge=False, padding=(0, gap, 0, 0))
    for heading in (HEADINGS[at] for at in shown):
        table.add_column(
            heading,
            justify="right" if heading in _RIGHT else "left",
            overflow="fold",
            no_wrap=heading != "version",
        )
    for version, row in zip(status.versions, rows, strict=True):
        table.add_row(*(row[at] for at in shown), style="dim" if version.stage == "retired" else "")
    return table


def _cells(version: VersionStatus) -> Iterator[RenderableType]:
    latency: Latency | None = version.latency
    loss = version.loss
    yield version.model
    yield Text(stage_of(version), style=STAGE_STYLE[version.stage])
    yield _percent(version.weight)
    yield _percent(version.share)
    yield UNKNOWN if loss is None else f"{loss.mean:.3f} [{loss.lower:.3f} {loss.upper:.3f}]"
    hosts = hosts_of(version)
    yield Text(hosts, style="red" if version.hosts == 0 and version.replicas else "")
    yield _count(version.batch_limit)
    yield _ms(None if latency is None else latency.p50_ms)
    yield _ms(None if latency is None else latency.p99_ms)
    yield _count(version.lag)


def _contexts(status: ApplicationStatus) -> str:
    if not status.contexts:
        return ""
    least = "" if status.contexts_whole else "at least "
    return f"contexts with weights of their own: {least}{status.contexts}"


def _changes(status: ApplicationStatus) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("revision", "changed at", "by", "what", "why"):
        table.add_column(heading, overflow="fold")
    for change in status.changes:
        what = f"{change.command} {change.model}" if change.model else change.command
        table.add_row(str(change.revision), instant(change.at_s), Text(change.by), what, Text(change.why))
    return table


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
