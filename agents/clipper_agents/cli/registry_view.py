"""Models, applications and their changes as tables for people."""

import json
from collections.abc import Iterator

from clipper_agents.cli.status_view import span
from clipper_agents.cli.terminal import say, when
from clipper_agents.control.plan import stated
from clipper_agents.control.state import Manifests
from clipper_topics.change import Change
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest

NUMBER_DIGITS = 2
TOLD_ELSEWHERE = {
    *("feedbacks", "scores", "waiting", "since_s", "upto_s"),
    *("trial_feedbacks", "trial_loss", "answer_feedbacks", "answer_loss"),
    *("difference", "lower", "upper", "confidence", "margin"),
}
"""Numbers that have a place in a sentence, or that the manifest states."""


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
        "who": change.by,
        "what": f"{change.command} {change.model or ''}".strip(),
        "why": change.why or "-",
        "numbers": numbers_of(change) or "-",
    }


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


def numbers_of(change: Change) -> str:
    """Return the evidence of an automatic decision, short.

    >>> numbers_of(Change(application="a", revision=1, command="step", at_ms=0, by="rollout", numbers={"least": 0.25}))
    'least 0.25'
    """
    numbers = change.numbers
    told = [f"{numbers['feedbacks']} feedbacks"] if "feedbacks" in numbers else []
    if numbers.get("scores"):
        between = span(numbers["since_s"], numbers["upto_s"])
        told.append(f"{numbers['scores']} queries {between}, {numbers['waiting']} open")
    told += [
        f"{whose} loss {_short(numbers[f'{whose}_loss'])} of {count} feedbacks"
        for whose in ("trial", "answer")
        if (count := numbers.get(f"{whose}_feedbacks"))
    ]
    if {"difference", "lower", "upper"} <= numbers.keys():
        told.append(
            "difference {} [{}, {}]".format(*(_short(numbers[name]) for name in ("difference", "lower", "upper")))
        )
    elif {"lower", "upper"} <= numbers.keys():
        told.append(f"in [{_short(numbers['lower'])}, {_short(numbers['upper'])}]")
    return ", ".join(
        [*told, *(f"{name} {_short(value)}" for name, value in numbers.items() if name not in TOLD_ELSEWHERE)]
    )


def _short(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.{NUMBER_DIGITS}g}"
    if isinstance(value, list):
        return f"[{', '.join(map(_short, value))}]"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_short(member)}" for name, member in value.items())
    return str(value)
