"""`clipper-stream application`: what applications there are, how they are, and how they came to be so."""

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents.cli.deployment import (
    ChangeRequest,
    DeploymentContext,
    Json,
    with_change,
    with_deployment,
    with_new,
)

if TYPE_CHECKING:
    from clipper_topics.manifests import ApplicationManifest

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

    manifest = _manifest({**values_of(fields), "name": name, "models": models})
    change.make(lambda state: changes.create(state.manifests, manifest))


@application.command("list", epilog="Example: clipper-stream application list --bootstrap localhost:9092")
@with_deployment
def list_applications(deployment: DeploymentContext, as_json: Json = False) -> None:
    """Print every application with its revision, its candidates and its trials."""
    import msgspec

    from clipper_agents.cli.registry_view import print_applications

    found = deployment.control_state().manifests.applications
    if not as_json:
        print_applications(found.values())
        return
    for _, each in sorted(found.items()):
        print(msgspec.json.encode(each).decode())


@application.command("show", epilog="Example: clipper-stream application show digits")
@with_deployment
def show_application(deployment: DeploymentContext, name: Name, as_json: Json = False) -> None:
    """Print an application's manifest."""
    import msgspec

    from clipper_agents.cli.registry_view import print_manifest
    from clipper_agents.control.changes import existing

    found = existing(deployment.control_state().manifests, name)
    if as_json:
        print(msgspec.json.encode(found).decode())
    else:
        print_manifest(found)


@application.command("update", epilog="Example: clipper-stream application update digits --field objective_ms=200")
@with_change
def update_application(
    change: ChangeRequest,
    name: Name,
    fields: Fields = None,
) -> None:
    """Change keys of an application, other than its models."""
    from clipper_agents.control import changes

    values = values_of(fields)
    change.make(lambda state: changes.update(state.manifests, name, values), name)


@application.command("delete", epilog="Example: clipper-stream application delete digits --why 'moved'")
@with_change
def delete_application(
    change: ChangeRequest,
    name: Name,
) -> None:
    """Take an application away; models that no other one names are retired. A rollback brings it back."""
    from clipper_agents.control import changes

    change.make(lambda state: changes.delete(state.manifests, name), name)


@application.command("history", epilog="Example: clipper-stream application history digits")
@with_deployment
def show_history(deployment: DeploymentContext, name: Name, as_json: Json = False) -> None:
    """Print every change of an application, oldest first: when, who, what, why."""
    import msgspec

    from clipper_agents.cli.registry_view import print_history
    from clipper_agents.control.changes import existing

    state = deployment.control_state()
    changes = state.history(name).values()
    if not changes:
        existing(state.manifests, name)
    if not as_json:
        print_history(changes)
        return
    for each in changes:
        print(msgspec.json.encode(each).decode())


def values_of(fields: list[str] | None) -> dict[str, Any]:
    """Fields by name; a value that is no JSON is text.

    >>> values_of(["objective_ms=200", "loss=absolute"])
    {'objective_ms': 200, 'loss': 'absolute'}

    Raises:
        BadParameter: not of the form KEY=VALUE.
    """
    found: dict[str, Any] = {}
    for field in fields or ():
        name, equals, text = field.partition("=")
        if not equals:
            raise typer.BadParameter(f"--field {field}: write KEY=VALUE, for example objective_ms=200")
        try:
            found[name.strip()] = json.loads(text)
        except ValueError:
            found[name.strip()] = text
    return found


def _manifest(content: dict[str, Any]) -> "ApplicationManifest":
    import msgspec

    from clipper_agents.settings.error_messages import explained
    from clipper_stream.errors import InvalidSetting
    from clipper_topics.manifests import ApplicationManifest

    try:
        return msgspec.convert(content, ApplicationManifest)
    except ValueError as error:
        said = explained(str(error), content, ApplicationManifest) if " - at " in str(error) else str(error)
        raise InvalidSetting(f"application {content['name']}: {said}".replace("`", "")) from error
