"""`clipper-stream replay nightly` and `replay learn`: what to try tomorrow, by what was logged today."""

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import ApplicationName, Since, Until, require_extra, span_from
from clipper_agents.cli.replay_evaluate import decision_file
from clipper_agents.cli.terminal import say

if TYPE_CHECKING:
    from clipper_stream.evaluation.results import Evaluation
    from clipper_topics.manifests import ApplicationManifest

POLICIES = ("epsilon_greedy", "exp3", "thompson", "lin_ucb", "exp4")
"""Policies that are tried on every log."""
Folder = Annotated[Path, typer.Option("--out", metavar="FOLDER", help="Of the reports, and of what was learned.")]


@with_deployment
def nightly(
    deployment: DeploymentContext,
    applications: Annotated[list[str] | None, typer.Argument(metavar="[APPLICATION]...", help="Absent: all.")] = None,
    *,
    out: Folder,
    since: Since = "1d",
) -> None:
    """Evaluate every version and a set of policies on the day's log, and say what to try. For cron or a timer.

    Writes NAME.html and NAME.json of each application. Where NAME.learned.json of `learn` is, policies begin with it,
    its policy is a candidate, and the log begins where it ends. Intervals hold for all candidates of all applications.
    """
    require_extra("replay", "duckdb", "pyarrow", "jinja2", "matplotlib")
    import msgspec

    from clipper_agents.control.changes import existing
    from clipper_agents.control.selection_states import read_state
    from clipper_agents.replay.evaluate import LogFile, evaluate_file
    from clipper_stream.errors import InvalidSetting
    from clipper_stream.evaluation.question import Question
    from clipper_stream.evaluation.report import write_page

    declared = deployment.control_state().manifests
    manifests = [existing(declared, name) for name in applications or sorted(declared.applications)]
    day = span_from(since, None, None, deployment.settings.router.horizon_s)
    question = Question(confidence=1.0 - 0.05 / max(1, len(manifests)))
    out.mkdir(parents=True, exist_ok=True)
    for manifest in manifests:
        name, file = manifest.name, out / f"{manifest.name}.learned.json"
        state, span, learned = file if file.exists() else None, day, []
        if state is not None and (fitted := read_state(state, name)).policy:
            learned = [f"frozen {fitted.policy}"]
            span = replace(day, since_ms=max(day.since_ms or 0, fitted.until_ms))
        try:
            with decision_file(deployment, name, None, span) as path:
                log = LogFile.opened(path)
                asked = [*candidates_of(manifest, log.facts.models), *learned]
                found = evaluate_file(log, asked, question, state)
        except InvalidSetting as error:
            say(f"{name}: nothing is known{f' since {file} was learned' if learned else ''}: {error}")
            continue
        write_page(out / f"{name}.html", found)
        (out / f"{name}.json").write_bytes(msgspec.json.encode(found))
        say(f"{name}: {recommendation(found)}")


def candidates_of(manifest: "ApplicationManifest", logged: tuple[str, ...]) -> list[str]:
    """Return each version that was asked, and policies that the application does not have, as texts."""
    versions = [ref for ref in manifest.refs if ref in logged]
    return [*versions, *(one for one in POLICIES if one != manifest.policy.name and len(versions) > 1)]


def recommendation(found: "Evaluation") -> str:
    """Return which candidate to try: of those that are better for sure, the one that gains most at least."""
    better = [one for one in found.candidates if one.verdict == "better"]
    if not better:
        return f"nothing to try: none of {len(found.candidates)} candidates is better for sure"
    best = min(better, key=lambda one: one.difference.high)
    gain, lost = best.difference, found.logged.loss.value
    return (
        f"try {best.name}: it gains {-gain.value:.4f} of {lost:.4f} that were lost, {-gain.high:.4f} to "
        f"{-gain.low:.4f} by the interval for {len(found.candidates)} candidates"
    )


@with_deployment
def learn(
    deployment: DeploymentContext,
    application: ApplicationName,
    *,
    policy: Annotated[str, typer.Option(metavar="TEXT", help="With its parameters, as lin_ucb:alpha=0.5.")],
    out: Folder,
    since: Since = "1d",
    until: Until = None,
) -> None:
    """Fit a policy to the day's feedback, whoever decided, as a candidate of the next `nightly` with this folder.

    It is put live by `application update` and `selection restore --from`.
    """
    require_extra("replay", "duckdb", "pyarrow")
    import msgspec

    from clipper_agents.control.selection_states import SavedState, row_of
    from clipper_agents.replay.evaluate import LogFile
    from clipper_stream.evaluation.candidates.candidate import LearningPolicy
    from clipper_stream.evaluation.candidates.candidate_text import parse_candidate
    from clipper_topics.selection_rows import RowKey, saved_rows

    span = span_from(since, until, None, deployment.settings.router.horizon_s)
    until_ms = span.until_ms or round(1000 * time.time())
    with decision_file(deployment, application, None, span) as path:
        log = LogFile.opened(path)
        candidate = parse_candidate(policy, log.facts.models)
        if not isinstance(candidate, LearningPolicy):
            raise typer.BadParameter(f"--policy {policy}: give a policy that learns, as lin_ucb or exp3:eta=0.2")
        states = candidate.learner().learn_all(log.chunks())
    rows = saved_rows({RowKey(application, *place): row_of(state, 0, 0) for place, state in states.items()})
    file = out / f"{application}.learned.json"
    out.mkdir(parents=True, exist_ok=True)
    saved = SavedState(application=application, policy=policy, until_ms=until_ms, rows=rows)
    file.write_bytes(msgspec.json.encode(saved))
    say(f"{file}: {candidate.name}, {len(rows)} rows")
