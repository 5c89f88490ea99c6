"""`clipper-stream apply` and `export`: publish the manifests of a configuration, and write them as one."""

import asyncio
import sys
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from clipper_agents.cli.deployment import DEFAULT_CONFIG, DeploymentContext, signature, with_deployment
from clipper_agents.cli.options import By, DryRun, Json, Why, Yes
from clipper_agents.cli.terminal import say


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
    only_new: Annotated[
        bool, typer.Option("--only-new", help="As `up`: publish what the file adds, and show what differs.")
    ] = False,
    yes: Yes = False,
    why: Why = "",
    by: By = None,
) -> None:
    """Publish the applications and models of a configuration; running routers follow at once.

    On a terminal the difference is shown, and confirmed, first; elsewhere what was overwritten is shown, and a line for
    each manifest that changed. What the file does not name stays as it is. A model file without a digest gets the one
    that it has here.
    """
    from clipper_agents.control.apply import KEPT, plan_declared, split_known, with_digests
    from clipper_agents.control.errors import StaleRevision
    from clipper_agents.control.manifest_text import plan_lines, written_lines
    from clipper_agents.control.plan import Plan
    from clipper_agents.control.state import ControlState
    from clipper_agents.control.writer import change_control

    deployment = replace(deployment, config=deployment.config or file or DEFAULT_CONFIG)
    declared = replace(deployment, config=file).settings if file else deployment.settings
    models = with_digests(declared.models)
    shown: Plan | None = None
    found, kept = ControlState(), Plan()

    def decide(state: ControlState) -> Plan:
        nonlocal found, kept
        found, plan = state, plan_declared(state.manifests, declared.applications, models, prune=prune)
        if only_new:
            plan, kept = split_known(plan, state)
        if shown is not None and plan != shown:
            raise StaleRevision("somebody has changed the registry since the difference was shown: apply again")
        return plan

    if dry_run or (sys.stdin.isatty() and sys.stdout.isatty() and not (yes or only_new)):
        state = deployment.control_state()
        shown = decide(state)
        say(*plan_lines(state, shown) if shown else ["nothing would change"])
        if dry_run or not shown:
            return
        typer.confirm("apply this?", abort=True)
    deployment.ensure_topics(models)
    target = deployment.kafka, deployment.catalogue
    written = asyncio.run(change_control(*target, decide, signature(by, why)))
    overwritten = plan_lines(found, split_known(written, found)[1]) if shown is None else ()
    say(*([KEPT, *plan_lines(found, kept)] if kept else ()), *overwritten, *written_lines(written))


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
