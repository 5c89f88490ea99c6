"""`clipper-stream model`: versions that come, are tried, are promoted, and go, while traffic flows."""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents.cli.change_output import (
    ApplicationOption,
    By,
    Json,
    Revision,
    Why,
    change,
    lines_of,
    signature,
    state_of,
    tell,
)
from clipper_agents.cli.model_deploy import deploy
from clipper_agents.cli.model_test import test_model
from clipper_agents.cli.options import Bootstrap, ConfigFile, Set, settings_from

if TYPE_CHECKING:
    from clipper_agents.control.plan import Plan, Published
    from clipper_agents.control.rollback import RolledBack
    from clipper_agents.control.state import ControlState

model = typer.Typer(
    name="model", no_args_is_help=True, help="Deploy, compare, promote and retire versions of models while they serve."
)
model.command("test", epilog="Example: clipper-stream model test acme.models:brightness --shape 64")(test_model)
model.command("deploy", epilog="Example: clipper-stream model deploy svm:3 --uri acme.models:svm -a digits --wait 60")(
    deploy
)

Ref = Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The version.")]
Share = Annotated[float, typer.Option("--share", min=0.0, max=1.0, metavar="RATIO", help="Share of the queries.")]
Automatic = Annotated[
    bool | None,
    typer.Option(
        "--automatic/--by-hand", help="Whether the application's rollout rule moves it on; absent: as it was."
    ),
]


@model.command("list", epilog="Example: clipper-stream model list --bootstrap localhost:9092")
def list_models(
    as_json: Json = False, config: ConfigFile = None, bootstrap: Bootstrap = None, assignments: Set = None
) -> None:
    """Print every version, how it runs, and where it is live or on trial."""
    import msgspec

    from clipper_agents.cli.registry_view import print_models, stages_of

    published = state_of(settings_from(config, bootstrap, assignments)).manifests
    if not as_json:
        print_models(published)
        return
    for ref, each in sorted(published.models.items()):
        row = msgspec.to_builtins(each) | {"model": ref, "stages": list(stages_of(published, ref))}
        print(msgspec.json.encode(row).decode())


@model.command("show", epilog="Example: clipper-stream model show svm:3")
def show_model(
    ref: Ref,
    as_json: Json = False,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
) -> None:
    """Print a version's manifest, its stages, and what its hosts say."""
    import msgspec

    from clipper_agents.cli.registry_view import print_manifest, report_line, stages_of
    from clipper_agents.control.errors import RefusedChange
    from clipper_agents.control.host_states import read_reports

    settings = settings_from(config, bootstrap, assignments)
    published = state_of(settings).manifests
    found = published.models.get(ref)
    if found is None:
        raise RefusedChange(f"no model {ref}; there are {', '.join(sorted(published.models)) or 'none'}")
    reports = asyncio.run(read_reports(settings.connection(os.environ), settings.catalogue))
    hosts = [each for each in reports.values() if each.model == ref]
    stages = list(stages_of(published, ref))
    if as_json:
        print(msgspec.json.encode({"manifest": found, "stages": stages, "hosts": hosts}).decode())
        return
    print_manifest(found)
    for line in (*stages, *map(report_line, hosts)):
        print(line)


@model.command("shadow", epilog="Example: clipper-stream model shadow svm:3 -a digits --share 0.2")
def shadow_model(
    ref: Ref,
    application: ApplicationOption = None,
    share: Share = 1.0,
    automatic: Automatic = None,
    why: Why = "",
    by: By = None,
    revision: Revision = None,
    as_json: Json = False,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
) -> None:
    """Have a version asked beside the candidates: its answers are scored, and never served or waited for."""
    from clipper_agents.control import changes as rules

    _change(
        lambda published, name: rules.shadow(published, name, ref, share, automatic=automatic),
        ref, application, why, by, revision, as_json, (config, bootstrap, assignments),
    )  # fmt: skip


@model.command("canary", epilog="Example: clipper-stream model canary svm:3 -a digits --share 0.05 --why 'less loss'")
def canary_model(
    ref: Ref,
    share: Share,
    application: ApplicationOption = None,
    automatic: Automatic = None,
    why: Why = "",
    by: By = None,
    revision: Revision = None,
    as_json: Json = False,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
) -> None:
    """Have a version answer a share of the queries instead of the policy's choice."""
    from clipper_agents.control import changes as rules

    _change(
        lambda published, name: rules.canary(published, name, ref, share, automatic=automatic),
        ref, application, why, by, revision, as_json, (config, bootstrap, assignments),
    )  # fmt: skip


@model.command("promote", epilog="Example: clipper-stream model promote svm:3 -a digits --revision 8")
def promote_model(
    ref: Ref,
    application: ApplicationOption = None,
    why: Why = "",
    by: By = None,
    revision: Revision = None,
    as_json: Json = False,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
) -> None:
    """Make a version on trial one of the application's candidates."""
    from clipper_agents.control import changes as rules

    _change(
        lambda published, name: rules.promote(published, name, ref),
        ref, application, why, by, revision, as_json, (config, bootstrap, assignments),
    )  # fmt: skip


@model.command("abort", epilog="Example: clipper-stream model abort svm:3 -a digits --why 'too slow'")
def abort_model(
    ref: Ref,
    application: ApplicationOption = None,
    why: Why = "",
    by: By = None,
    revision: Revision = None,
    as_json: Json = False,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
) -> None:
    """End a version's trial; its hosts end when no other application names it."""
    from clipper_agents.control import changes as rules

    _change(
        lambda published, name: rules.abort(published, name, ref),
        ref, application, why, by, revision, as_json, (config, bootstrap, assignments),
    )  # fmt: skip


@model.command("retire", epilog="Example: clipper-stream model retire svm:1 -a digits")
def retire_model(
    ref: Ref,
    application: ApplicationOption = None,
    why: Why = "",
    by: By = None,
    revision: Revision = None,
    as_json: Json = False,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
) -> None:
    """Have an application ask a version no more; its hosts end when no other one names it."""
    from clipper_agents.control import changes as rules

    _change(
        lambda published, name: rules.retire(published, name, ref),
        ref, application, why, by, revision, as_json, (config, bootstrap, assignments),
    )  # fmt: skip


@model.command("rollback", epilog="Example: clipper-stream model rollback -a digits --why 'svm:3 is slow at night'")
def rollback_models(
    application: Annotated[str, typer.Option("--application", "-a", metavar="NAME", help="The application.")],
    to_revision: Annotated[
        int | None, typer.Option("--to-revision", metavar="N", min=1, help="Whose manifest; absent: before the last.")
    ] = None,
    why: Why = "",
    by: By = None,
    revision: Revision = None,
    as_json: Json = False,
    config: ConfigFile = None,
    bootstrap: Bootstrap = None,
    assignments: Set = None,
) -> None:
    """Undo the last change of an application, or all since a revision, with the selection state of then."""
    from clipper_agents.control.restore import restore_state
    from clipper_agents.control.rollback import roll_back

    settings = settings_from(config, bootstrap, assignments)
    seen = {} if revision is None else {application: revision}
    done = asyncio.run(
        roll_back(
            settings.connection(os.environ),
            settings.catalogue,
            application,
            to_revision,
            signature(by, why),
            restore=restore_state,
            seen=seen,
        )
    )
    if as_json:
        tell(done.written, as_json=True)
        return
    for line in _rollback_lines(done):
        print(line)


def _rollback_lines(done: "RolledBack") -> list[str]:
    lines = [
        f"undone: revision {each.revision}, {each.command}{f' {each.model}' if each.model else ''} by {each.by}"
        f"{f' ({each.why})' if each.why else ''}"
        for each in done.undone
    ]
    if not done.written.plan:
        return ["nothing changed"]
    state = f"restored ({done.restored})" if done.restored else f"stays as it is: {done.why_not}"
    return [*lines, *lines_of(done.written), f"selection state {state}"]


def _change(
    rule: "Callable[[Published, str], Plan]",
    ref: str,
    application: str | None,
    why: str,
    by: str | None,
    revision: int | None,
    as_json: bool,
    options: tuple[Any, Any, Any],
) -> None:
    """Apply a rule to the application that is meant."""
    from clipper_agents.control.changes import application_of
    from clipper_agents.control.writer import check_seen

    def decide(state: "ControlState") -> "Plan":
        name = application or application_of(state.manifests, ref)
        check_seen({} if revision is None else {name: revision}, state)
        return rule(state.manifests, name)

    tell(change(settings_from(*options), decide, signature(by, why)), as_json=as_json)
