"""`clipper-stream apply`: publish the manifests of a configuration."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import By, DeploymentContext, Why, signature, with_deployment

if TYPE_CHECKING:
    from clipper_agents.control.change_records import CommittedChange
    from clipper_agents.control.plan import Plan
    from clipper_agents.control.state import ControlState
    from clipper_agents.settings import Settings
    from clipper_topics.manifests import ModelManifest

DEFAULT = Path("clipper.toml")


@with_deployment
def apply(
    deployment: DeploymentContext,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Manifests, as `export` writes them; absent: those of --config."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would change, and change nothing.")] = False,
    prune: Annotated[bool, typer.Option("--prune", help="Take away what the file does not name.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    why: Why = "",
    by: By = None,
) -> None:
    """Publish the applications and models of a configuration; running routers follow at once.

    On a terminal the difference is shown, and confirmed, first; elsewhere there is a line for each manifest that
    changed. What the file does not name stays as it is. A model file without a digest gets the one that it has here.
    """
    from clipper_agents.control.apply import with_digests

    deployment = replace(deployment, config=deployment.config or file or DEFAULT)
    declared = replace(deployment, config=file).settings if file else deployment.settings
    models = with_digests(declared.models)
    asked = sys.stdin.isatty() and sys.stdout.isatty() and not yes
    if dry_run or asked:
        shown = _plan(deployment, declared, models, prune)
        print(*_difference(*shown), sep="\n")
        if dry_run or not shown[1]:
            return
        typer.confirm("apply this?", abort=True)
    written = asyncio.run(_applied(deployment, declared, models, prune, shown[1] if asked else None, by, why))
    print(*_lines(written), sep="\n")


def _plan(
    deployment: DeploymentContext, declared: "Settings", models: "list[ModelManifest]", prune: bool
) -> "tuple[ControlState, Plan]":
    from clipper_agents.control.apply import plan_declared

    state = deployment.control_state()
    return state, plan_declared(state.manifests, declared.applications, models, prune=prune)


def _difference(state: "ControlState", plan: "Plan") -> list[str]:
    from clipper_agents.cli.plain_text import plain
    from clipper_agents.control.manifest_text import plan_lines

    return [plain(line) for line in plan_lines(state.manifests, plan)] or ["nothing would change"]


async def _applied(
    deployment: DeploymentContext,
    declared: "Settings",
    models: "list[ModelManifest]",
    prune: bool,
    shown: "Plan | None",
    by: str | None,
    why: str,
) -> "CommittedChange":
    """Create topics and publish; what was shown, when something was."""
    from clipper_agents.control.apply import plan_declared
    from clipper_agents.control.errors import StaleRevision
    from clipper_agents.control.writer import change_control
    from clipper_agents.kafka.topics import ensure_topics

    kafka, catalogue = deployment.kafka, deployment.catalogue
    report = await ensure_topics(kafka, catalogue, models, replication_factor=deployment.settings.kafka.replication)
    for line in report.advice:
        print(f"warning: {line}", file=sys.stderr)

    def decide(state: "ControlState") -> "Plan":
        plan = plan_declared(state.manifests, declared.applications, models, prune=prune)
        if shown is not None and plan != shown:
            raise StaleRevision("somebody has changed the registry since the difference was shown: apply again")
        return plan

    return await change_control(kafka, catalogue, decide, signature(by, why))


def _lines(written: "CommittedChange") -> list[str]:
    changed = [f"model {each.ref}" for each in written.plan.models]
    changed += [
        f"application {each.application} {f'revision {each.revision}' if each.after else 'deleted'}"
        for each in written.changes
    ]
    return [*changed, *(f"model {ref} withdrawn" for ref in written.plan.withdrawn)] or ["nothing changed"]
