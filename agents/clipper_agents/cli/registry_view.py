"""Models, applications and their changes as tables for people."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence

from clipper_agents.cli.terminal import console, say, table
from clipper_agents.control.plan import stated
from clipper_agents.control.state import Manifests
from clipper_agents.status.texts import numbers_of, when
from clipper_topics.change import Change
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest

PIPE_COLUMNS = 132
"""Where no terminal says how wide it is."""


def print_models(published: Manifests) -> None:
    """A row a version: how it runs, and its stage at each application."""
    rows = [
        (
            ref,
            model.runtime,
            "in routers" if model.colocated else str(model.replicas),
            ", ".join(stages_of(published, ref)) or "-",
        )
        for ref, model in sorted(published.models.items())
    ]
    _print("model runtime hosts stages", rows, "no models")


def print_applications(applications: Iterable[ApplicationManifest]) -> None:
    """Print a row an application."""
    rows = [
        (
            each.name,
            str(each.revision),
            ", ".join(each.models),
            ", ".join(f"{trial.model} {trial.stage} {trial.share:.0%}" for trial in each.trials) or "-",
            each.policy.name,
            "-" if each.objective_ms is None else f"{each.objective_ms} ms",
        )
        for each in applications
    ]
    _print("application revision models trials policy objective", rows, "no applications")


def print_history(changes: Iterable[Change]) -> None:
    """Print a row a change, oldest first."""
    rows = [
        (
            str(each.revision),
            when(each.at_ms),
            each.by,
            f"{each.command} {each.model or ''}".strip(),
            each.why or "-",
            numbers_of(each) or "-",
        )
        for each in changes
    ]
    _print("revision when who what why numbers", rows, "no changes")


def print_manifest(manifest: ApplicationManifest | ModelManifest) -> None:
    """A line a field, as it is published; what is left out has its default."""
    fields = stated(manifest)
    width = max(map(len, fields))
    for name, value in fields.items():
        say(f"{name:<{width}}  {value if isinstance(value, str) else json.dumps(value)}")


def stages_of(published: Manifests, ref: str) -> Iterator[str]:
    """Return where a version stands, as `digits: canary 10%` or `digits: live`, or that it is retired."""
    for name, each in sorted(published.applications.items()):
        if ref in each.models:
            yield f"{name}: live"
        for trial in each.trials:
            if trial.model == ref:
                yield f"{name}: {trial.stage} {trial.share:.0%}{' automatic' if trial.automatic else ''}"
    if ref in published.models and published.models[ref].retired:
        yield "retired"


def report_line(report: HostReport) -> str:
    """A host's state, and why it failed."""
    reason = f": {report.reason}" if report.reason else ""
    return f"host {report.instance} {report.state}{reason}"


def _print(columns: str, rows: Collection[Sequence[str]], otherwise: str) -> None:
    headings = columns.split()
    shown = table(headings, rows, wrapped={*headings}.difference(("revision", "when", "who", "what")))
    console(PIPE_COLUMNS).print(shown if rows else otherwise)
