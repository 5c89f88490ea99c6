"""`clipper-stream apply` and `export`: publish the manifests of a configuration, and write them as one."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import DEFAULT_CONFIG, DeploymentContext, signature, with_deployment
from clipper_agents.cli.options import By, DryRun, Json, Why, Yes
from clipper_agents.cli.terminal import say

if TYPE_CHECKING:
    from clipper_agents.control.change_records import CommittedChange
    from clipper_agents.control.plan import Plan
    from clipper_agents.control.state import ControlState


@with_deployment
def apply(
    deployment: DeploymentContext,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Manifests, as `export` writes them; absent: those of --config."
        ),
    ] = None,
    dry_run: DryRun = False,
    prune: Annotated[bool, typer.Option("--prune", help="Take away what the file does not name.")] = False,
    yes: Yes = False,
    why: Why = "",
    by: By = None,
) -> None:
    """Publish the applications and models of a configuration; running routers follow at once.

    On a terminal the difference is shown, and confirmed, first; elsewhere there is a line for each manifest that
    changed. What the file does not name stays as it is. A model file without a digest gets the one that it has here.
    """
    from clipper_agents.control.apply import plan_declared, with_digests
    from clipper_agents.control.errors import StaleRevision
    from clipper_agents.control.writer import change_control

    deployment = replace(deployment, config=deployment.config or file or DEFAULT_CONFIG)
    declared = replace(deployment, config=file).settings if file else deployment.settings
    models = with_digests(declared.models)
    shown: Plan | None = None

    def decide(state: "ControlState") -> "Plan":
        plan = plan_declared(state.manifests, declared.applications, models, prune=prune)
        if shown is not None and plan != shown:
            raise StaleRevision("somebody has changed the registry since the difference was shown: apply again")
        return plan

    if dry_run or (sys.stdin.isatty() and sys.stdout.isatty() and not yes):
        state = deployment.control_state()
        shown = decide(state)
        _print_difference(state, shown)
        if dry_run or not shown:
            return
        typer.confirm("apply this?", abort=True)
    deployment.ensure_topics(models)
    written = change_control(deployment.kafka, deployment.catalogue, decide, signature(by, why))
    say(*_lines(asyncio.run(written)))


def _print_difference(state: "ControlState", plan: "Plan") -> None:
    from clipper_agents.control.manifest_text import plan_lines

    say(*plan_lines(state.manifests, plan) if plan else ["nothing would change"])


def _lines(written: "CommittedChange") -> list[str]:
    changed = [f"model {each.ref}" for each in written.plan.models]
    changed += [
        f"application {each.application} {f'revision {each.revision}' if each.after else 'deleted'}"
        for each in written.changes
    ]
    return [*changed, *(f"model {ref} withdrawn" for ref in written.plan.withdrawn)] or ["nothing changed"]


@with_deployment
def export(
    deployment: DeploymentContext,
    out: Annotated[Path | None, typer.Option("--out", "-o", metavar="FILE", help="Here; absent: print it.")] = None,
    as_json: Json = False,
) -> None:
    """Write every application and model as TOML, that `clipper-stream apply -f FILE` takes back without a change."""
    from clipper_agents.control import manifest_text

    published = deployment.control_state().manifests
    as_json = as_json or (out is not None and out.suffix == ".json")
    text = manifest_text.as_json(published) if as_json else manifest_text.as_toml(published)
    if out is None:
        say(*text.removesuffix("\n").split("\n"))
    else:
        out.write_text(text, encoding="utf-8")
