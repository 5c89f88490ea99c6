"""Models, applications and their changes as tables for people."""

import json
from collections.abc import Collection, Iterable, Iterator, Sequence

from clipper_agents.cli.status_view import span
from clipper_agents.cli.terminal import console, say, table, when
from clipper_agents.control.plan import stated
from clipper_agents.control.state import Manifests
from clipper_topics.change import Change
from clipper_topics.host_report import HostReport
from clipper_topics.manifests import ApplicationManifest, ModelManifest

NUMBER_DIGITS = 2
PIPE_COLUMNS = 132
"""Where no terminal says how wide it is."""
TOLD_ELSEWHERE = {
    *("feedbacks", "scores", "waiting", "since_s", "upto_s"),
    *("trial_feedbacks", "trial_loss", "answer_feedbacks", "answer_loss"),
    *("difference", "lower", "upper", "confidence", "margin"),
}
"""Numbers that have a place in a sentence, or that the manifest states."""


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


def _print(columns: str, rows: Collection[Sequence[str]], otherwise: str) -> None:
    headings = columns.split()
    shown = table(headings, rows, wrapped={*headings}.difference(("revision", "when", "who", "what")))
    console(PIPE_COLUMNS).print(shown if rows else otherwise)
