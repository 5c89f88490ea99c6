"""Models, applications and their changes as tables for people."""

import json
from collections.abc import Iterator

from clipper_agents.cli.terminal import print_fields
from clipper_agents.control.host_reports import one_line
from clipper_agents.control.plan import stated
from clipper_agents.control.state import Manifests
from clipper_agents.status.texts import numbers_of, when
from clipper_topics.change import Change
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest


def model_row(published: Manifests, model: ModelManifest) -> dict[str, str]:
    """How a version runs, and its stage at each application."""
    return {
        "model": model.ref,
        "runtime": model.runtime,
        "hosts": "in routers" if model.colocated else str(model.replicas),
        "stages": ", ".join(stages_of(published, model.ref)) or "-",
    }


def application_row(application: ApplicationManifest) -> dict[str, str]:
    """An application in short."""
    trials = (f"{trial.model} {trial.stage} {trial.share:.0%}" for trial in application.trials)
    return {
        "application": application.name,
        "revision": str(application.revision),
        "models": ", ".join(application.models),
        "trials": ", ".join(trials) or "-",
        "policy": application.policy.name,
        "objective": "-" if application.objective_ms is None else f"{application.objective_ms} ms",
    }


def change_row(change: Change) -> dict[str, str]:
    """A change of an application."""
    return {
        "revision": str(change.revision),
        "when": when(change.at_ms),
        "who": one_line(change.by),
        "what": f"{change.command} {change.model or ''}".strip(),
        "why": one_line(change.why) or "-",
    }


def decision_row(change: Change) -> dict[str, str]:
    """A change of an application with the evidence of an automatic one."""
    return change_row(change) | {"numbers": numbers_of(change) or "-"}


def print_manifest(manifest: ApplicationManifest | ModelManifest) -> None:
    """A line a field, as it is published; what is left out has its default."""
    print_fields({name: each if isinstance(each, str) else json.dumps(each) for name, each in stated(manifest).items()})


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
