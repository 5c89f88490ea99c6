"""`clipper-stream application`: what applications there are, how they are, and how they came to be so."""

from typing import Annotated, Any

import typer

from clipper_agents.cli.deployment import ChangeRequest, DeploymentContext, with_change, with_deployment, with_new
from clipper_agents.cli.options import Json, fields_of, json_or_text, manifest_from
from clipper_agents.cli.terminal import print_json, print_records

application = typer.Typer(
    name="application", no_args_is_help=True, help="Create, look at, change and delete applications; their history."
)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The application.")]
Fields = Annotated[
    list[str] | None,
    typer.Option(
        "--field",
        metavar="KEY=VALUE",
        help="A key of [[application]], its value as JSON or text: objective_ms=200; repeatable.",
    ),
]


@application.command(
    "create", epilog="Example: clipper-stream application create digits -m svm:1 --field loss=zero_one"
)
@with_new
def create_application(
    change: ChangeRequest,
    name: Name,
    models: Annotated[
        list[str], typer.Option("--model", "-m", metavar="NAME:VERSION", help="A candidate; repeatable.")
    ],
    fields: Fields = None,
) -> None:
    """Create an application of models that are published already."""
    from clipper_agents.control import changes
    from clipper_topics.manifests import ApplicationManifest

    content = {**_values(fields), "name": name, "models": models}
    manifest = manifest_from(content, ApplicationManifest, f"application {name}")
    change.make(lambda state: changes.create(state.manifests, manifest))


@application.command("list", epilog="Example: clipper-stream application list --bootstrap localhost:9092")
@with_deployment
def list_applications(deployment: DeploymentContext, as_json: Json = False) -> None:
    """Print every application with its revision, its candidates and its trials."""
    from clipper_agents.cli.registry_view import application_row

    found = [each for _, each in sorted(deployment.control_state().manifests.applications.items())]
    print_records(found, application_row, as_json=as_json, otherwise="no applications")


@application.command("show", epilog="Example: clipper-stream application show digits")
@with_deployment
def show_application(deployment: DeploymentContext, name: Name, as_json: Json = False) -> None:
    """Print an application's manifest."""
    from clipper_agents.cli.registry_view import print_manifest
    from clipper_agents.control.changes import existing

    found = existing(deployment.control_state().manifests, name)
    print_json(found) if as_json else print_manifest(found)


@application.command("update", epilog="Example: clipper-stream application update digits --field objective_ms=200")
@with_change
def update_application(change: ChangeRequest, name: Name, fields: Fields = None) -> None:
    """Change keys of an application, other than its models."""
    from clipper_agents.control import changes

    values = _values(fields)
    change.make(lambda state: changes.update(state.manifests, name, values), name)


@application.command("delete", epilog="Example: clipper-stream application delete digits --why 'moved'")
@with_change
def delete_application(change: ChangeRequest, name: Name) -> None:
    """Take an application away; models that no other one names are retired. A rollback brings it back."""
    from clipper_agents.control import changes

    change.make(lambda state: changes.delete(state.manifests, name), name)


@application.command("history", epilog="Example: clipper-stream application history digits")
@with_deployment
def show_history(deployment: DeploymentContext, name: Name, as_json: Json = False) -> None:
    """Print every change of an application, oldest first: when, who, what, why."""
    from clipper_agents.cli.registry_view import decision_row
    from clipper_agents.control.changes import existing

    state = deployment.control_state()
    changes = [*state.history(name).values()]
    if not changes:
        existing(state.manifests, name)
    print_records(changes, decision_row, as_json=as_json, otherwise="no changes")


def _values(fields: list[str] | None) -> dict[str, Any]:
    given = fields_of(fields, "--field", "KEY=VALUE, for example objective_ms=200")
    return {name: json_or_text(text) for name, text in given.items()}
