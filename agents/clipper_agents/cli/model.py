"""`clipper-stream model`: versions that come, are tried, are promoted, and go, while traffic flows."""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents.cli.deployment import ChangeRequest, DeploymentContext, with_change, with_deployment, with_new
from clipper_agents.cli.model_deploy import deploy
from clipper_agents.cli.model_test import test_model
from clipper_agents.cli.options import Json, Ref
from clipper_agents.cli.terminal import print_json, print_records, say

if TYPE_CHECKING:
    from clipper_agents.control.plan import Plan
    from clipper_agents.control.state import ControlState

model = typer.Typer(
    name="model", no_args_is_help=True, help="Deploy, compare, promote and retire versions of models while they serve."
)
model.command("test", epilog="Example: clipper-stream model test acme.models:brightness --shape 64")(test_model)
model.command("deploy", epilog="Example: clipper-stream model deploy svm:3 --uri acme.models:svm -a digits --wait 60")(
    deploy
)

ApplicationOption = Annotated[
    str | None,
    typer.Option("--application", "-a", metavar="NAME", help="The application; absent: the one that names the model."),
]
Share = Annotated[float, typer.Option("--share", min=0.0, max=1.0, metavar="RATIO", help="Share of the queries.")]
Automatic = Annotated[
    bool | None,
    typer.Option(
        "--automatic/--by-hand", help="Whether the application's rollout rule moves it on; absent: as it was."
    ),
]


@model.command("list", epilog="Example: clipper-stream model list --bootstrap localhost:9092")
@with_deployment
def list_models(deployment: DeploymentContext, as_json: Json = False) -> None:
    """Print every version, how it runs, and where it is live or on trial."""
    import msgspec

    from clipper_agents.cli.registry_view import model_row, stages_of

    published = deployment.control_state().manifests
    found: list[Any] = [each for _, each in sorted(published.models.items())]
    if as_json:
        stages = ({"model": each.ref, "stages": list(stages_of(published, each.ref))} for each in found)
        found = [msgspec.to_builtins(each) | said for each, said in zip(found, stages, strict=True)]
    row_of = partial(model_row, published)
    print_records(found, row_of, as_json=as_json, otherwise="no models", wrapped=("stages",))


@model.command("show", epilog="Example: clipper-stream model show svm:3")
@with_deployment
def show_model(deployment: DeploymentContext, ref: Ref, as_json: Json = False) -> None:
    """Print a version's manifest, its stages, and what its hosts say."""
    from clipper_agents.cli.registry_view import print_manifest, report_line, stages_of
    from clipper_agents.control.errors import RefusedChange
    from clipper_agents.control.readiness import read_reports

    published = deployment.control_state().manifests
    found = published.models.get(ref)
    if found is None:
        raise RefusedChange(f"no model {ref}; there are {', '.join(sorted(published.models)) or 'none'}")
    reports = asyncio.run(read_reports(deployment.kafka, deployment.catalogue))
    hosts = [each for each in reports.values() if each.model == ref]
    stages = list(stages_of(published, ref))
    if as_json:
        print_json({"manifest": found, "stages": stages, "hosts": hosts})
        return
    print_manifest(found)
    say(*stages, *map(report_line, hosts))


@model.command("shadow", epilog="Example: clipper-stream model shadow svm:3 -a digits --share 0.2")
@with_change
def shadow_model(
    change: ChangeRequest,
    ref: Ref,
    application: ApplicationOption = None,
    share: Share = 1.0,
    automatic: Automatic = None,
) -> None:
    """Have a version asked beside the candidates: its answers are scored, and never served or waited for."""
    _make(change, "shadow", ref, application, share=share, automatic=automatic)


@model.command("canary", epilog="Example: clipper-stream model canary svm:3 -a digits --share 0.05 --why 'less loss'")
@with_change
def canary_model(
    change: ChangeRequest,
    ref: Ref,
    share: Share,
    application: ApplicationOption = None,
    automatic: Automatic = None,
) -> None:
    """Have a version answer a share of the queries instead of the policy's choice."""
    _make(change, "canary", ref, application, share=share, automatic=automatic)


@model.command("promote", epilog="Example: clipper-stream model promote svm:3 -a digits --revision 8")
@with_change
def promote_model(change: ChangeRequest, ref: Ref, application: ApplicationOption = None) -> None:
    """Make a version on trial one of the application's candidates."""
    _make(change, "promote", ref, application)


@model.command("abort", epilog="Example: clipper-stream model abort svm:3 -a digits --why 'too slow'")
@with_change
def abort_model(change: ChangeRequest, ref: Ref, application: ApplicationOption = None) -> None:
    """End a version's trial; its hosts end when no other application names it."""
    _make(change, "abort", ref, application)


@model.command("retire", epilog="Example: clipper-stream model retire svm:1 -a digits")
@with_change
def retire_model(change: ChangeRequest, ref: Ref, application: ApplicationOption = None) -> None:
    """Have an application ask a version no more; its hosts end when no other one names it."""
    _make(change, "retire", ref, application)


@model.command("delete", epilog="Example: clipper-stream model delete svm:1 --why 'wrong file'")
@with_new
def delete_model(change: ChangeRequest, ref: Ref) -> None:
    """Remove a version that no application uses, so that its name and version are free; no rollback brings it back."""
    from clipper_agents.control import changes

    change.make(lambda state: changes.delete_model(state.manifests, ref))


@model.command("rollback", epilog="Example: clipper-stream model rollback -a digits --why 'svm:3 is slow at night'")
@with_change
def rollback_models(
    change: ChangeRequest,
    application: Annotated[str, typer.Option("--application", "-a", metavar="NAME", help="The application.")],
    to_revision: Annotated[
        int | None, typer.Option("--to-revision", metavar="N", min=1, help="Whose manifest; absent: before the last.")
    ] = None,
) -> None:
    """Undo the last change of an application, or all since a revision, with the selection state of then."""
    from clipper_agents.control.manifest_text import rollback_lines
    from clipper_agents.control.rollback import roll_back

    target = change.deployment.kafka, change.deployment.catalogue
    seen = change.seen(application)
    done = asyncio.run(roll_back(*target, application, to_revision, change.signature, seen=seen))
    if change.as_json:
        change.print(done.written)
    else:
        say(*rollback_lines(done))


def _make(change: ChangeRequest, command: str, ref: str, application: str | None, **options: Any) -> None:
    """Apply a rule to the application that is named, or else to the only one that names the version."""
    from clipper_agents.control import changes
    from clipper_agents.control.writer import check_seen

    def decide(state: "ControlState") -> "Plan":
        name = application or changes.application_of(state.manifests, ref)
        check_seen(change.seen(name), state)
        plan: Plan = getattr(changes, command)(state.manifests, name, ref, **options)
        return plan

    change.make(decide)
