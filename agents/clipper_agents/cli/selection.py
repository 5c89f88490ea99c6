"""`clipper-stream selection`: look at what an application has learned, keep it in a file, and set it back."""

import asyncio
from pathlib import Path
from typing import Annotated, Any

import typer

from clipper_agents.cli.deployment import DeploymentContext, signature, with_deployment
from clipper_agents.cli.options import ApplicationName, By, Json, Why, Yes
from clipper_agents.cli.terminal import print_json, print_records, say

selection = typer.Typer(
    name="selection", no_args_is_help=True, help="Look at what an application has learned, and set it back."
)
SUMS = ("count", "loss", "weighted_count", "weighted_loss")


@selection.command("show", epilog="Example: clipper-stream selection show digits --context user-42")
@with_deployment
def show_selection(
    deployment: DeploymentContext,
    application: ApplicationName,
    *,
    context: Annotated[str | None, typer.Option(metavar="TEXT", help="Of this context instead of all without.")] = None,
    as_json: Json = False,
) -> None:
    """Print totals and weights of the models, as the routers have stored them."""
    shown = _shown(deployment, application, context)
    if as_json:
        print_json(shown)
        return
    of = "without a context" if context is None else f"in context {context}"
    say(f"{application} {of}; {shown['contexts']} contexts have totals")
    numbers = {"weight", *(name.replace("_", " ") for name in SUMS)}
    print_records(shown["models"], _model_row, otherwise="nothing learned", right=numbers)


@selection.command("export", epilog="Example: clipper-stream selection export digits > digits.json")
@with_deployment
def export_selection(deployment: DeploymentContext, application: ApplicationName) -> None:
    """Print the rows of all partitions and contexts as JSON, for `restore --from`."""
    import msgspec

    from clipper_agents.control.selection_states import SavedState, read_rows

    rows = asyncio.run(read_rows(deployment.kafka, deployment.catalogue, application))
    state = SavedState(application=application, rows=rows)
    say(*msgspec.json.format(msgspec.json.encode(state), indent=1).decode().split("\n"))


@selection.command("restore", epilog="Example: clipper-stream selection restore digits --from digits.json")
@with_deployment
def restore_selection(
    deployment: DeploymentContext,
    application: ApplicationName,
    *,
    file: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="The rows of an export.")] = None,
    undo: Annotated[bool, typer.Option("--undo", help="The rows before the newest restore.")] = False,
    why: Why = "",
    by: By = None,
    yes: Yes = False,
) -> None:
    """Set the rows of all partitions and contexts back, under traffic; exactly one of --from and --undo.

    Feedback that comes afterwards is learned on top of them. Feedback that counted before does not count again.
    """
    from clipper_agents.control.restore import carry_out, plan_restore, to_undo
    from clipper_agents.control.selection_states import read_state
    from clipper_topics.restore import saved_in

    if (file is not None) == undo:
        raise typer.BadParameter("give exactly one of --from and --undo")
    undoes: str | None = None
    if file is not None:
        rows = read_state(file, application).rows
    else:
        undone = to_undo(deployment.control_state().restores.values(), application)
        undoes, rows = undone.restore_id, undone.restore.before or []
    target = deployment.kafka, deployment.catalogue, application
    plan = asyncio.run(plan_restore(*target, rows, signature(by, why), undoes))
    say(f"{plan.restore_id}: {saved_in(plan.markers)} rows in {len(plan.markers)} partitions", stderr=True)
    if plan.restore.before is None:
        say("this cannot be undone by --undo, the rows now are too many: keep them by `selection export`", stderr=True)
    if not yes:
        typer.confirm(f"Set {application} of {deployment.catalogue.prefix} back?", abort=True, err=True)
    asyncio.run(carry_out(deployment.kafka, deployment.catalogue, plan))
    say(plan.restore_id)


def _shown(deployment: DeploymentContext, application: str, context: str | None) -> dict[str, Any]:
    from clipper_agents.control.selection_states import read_rows, state_of_rows
    from clipper_agents.status.build import weights_of

    manifest = deployment.control_state().manifests.applications.get(application)
    candidates = [] if manifest is None else manifest.models
    rows = asyncio.run(read_rows(deployment.kafka, deployment.catalogue, application))
    state = state_of_rows(rows, context)
    weights = weights_of(manifest, state, candidates)
    return {
        "application": application,
        "context": context,
        "contexts": len({row.context for row in rows} - {None}),
        "models": [
            {"model": ref, "weight": weights.get(ref), **{name: getattr(state.of(ref), name) for name in SUMS}}
            for ref in dict.fromkeys([*weights, *state.totals])
        ],
    }


def _model_row(model: dict[str, Any]) -> dict[str, str]:
    numbers = {name.replace("_", " "): f"{model[name]:.2f}" for name in SUMS}
    weight = "no candidate" if model["weight"] is None else f"{model['weight']:.4f}"
    return {"model": model["model"], "weight": weight, **numbers}
