"""`clipper-stream model`: versions that come, are tried, are promoted, and go, while traffic flows."""

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import ChangeRequest, DeploymentContext, with_change, with_deployment, with_new
from clipper_agents.cli.options import Dtype, Json, Parameters, Ref, Runtime, Shape, parameters_of, shape_of
from clipper_agents.cli.terminal import TextTable, console, print_json, print_records, say
from clipper_stream.errors import ClipperError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipper_agents.control.plan import Plan
    from clipper_agents.control.state import ControlState
    from clipper_stream.models.testing import Report
    from clipper_topics.host_report import HostReport
    from clipper_topics.manifests import ModelManifest

model = typer.Typer(
    name="model", no_args_is_help=True, help="Deploy, compare, promote and retire versions of models while they serve."
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
    print_records(found, row_of, as_json=as_json, otherwise="no models")


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
    shadow_share: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, metavar="RATIO", help="Of the queries, that ask it besides; absent: as it was."),
    ] = None,
) -> None:
    """Have a version answer a share of the queries instead of the policy's choice."""
    _make(change, "canary", ref, application, share=share, automatic=automatic, shadow_share=shadow_share)


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
    change.print(done.written) if change.as_json else say(*rollback_lines(done))


def _make(change: ChangeRequest, command: str, ref: str, application: str | None, **options: Any) -> None:
    from clipper_agents.control import changes
    from clipper_agents.control.writer import check_seen

    def decide(state: "ControlState") -> "Plan":
        name = application or changes.application_of(state.manifests, ref)
        check_seen(change.seen(name), state)
        plan: Plan = getattr(changes, command)(state.manifests, name, ref, **options)
        return plan

    change.make(decide)


Stage = Literal["shadow", "canary", "live"]


@model.command("deploy", epilog="Example: clipper-stream model deploy svm:3 --uri acme.models:svm -a digits --wait 60")
@with_change
def deploy(
    change: ChangeRequest,
    ref: Ref,
    application: Annotated[str, typer.Option("--application", "-a", metavar="NAME", help="Who is going to ask it.")],
    *,
    uri: Annotated[str, typer.Option(metavar="URI", help="`package.module:attribute`, or a file.")],
    runtime: Runtime = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="Digest; absent: of the file that is here.")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, metavar="N", help="Hosts; absent: 1.")] = None,
    shape: Shape = None,
    dtype: Dtype = None,
    colocated: Annotated[bool | None, typer.Option("--colocated", help="Run it inside the routers.")] = None,
    stage: Annotated[Stage, typer.Option(help="Where it begins.")] = "shadow",
    share: Annotated[
        float | None,
        typer.Option(min=0.0, max=1.0, metavar="RATIO", help="Of the queries; absent: 1 as shadow, 0.05 as canary."),
    ] = None,
    automatic: Annotated[bool, typer.Option("--automatic", help="The application's rollout rule moves it on.")] = False,
    wait_s: Annotated[
        float | None, typer.Option("--wait", metavar="SECONDS", min=0.1, help="Wait until a host of it is ready.")
    ] = None,
    unchecked: Annotated[bool, typer.Option("--unchecked", help="Do not load it here first.")] = False,
) -> None:
    """Publish a version that loads on this machine and give it to an application, first as a shadow.

    With --wait the exit code is 1 when a host fails, with its reason, or when none is ready in time.
    """
    from clipper_agents.cli.model_target import check_loads_here, manifest_of
    from clipper_agents.control import changes
    from clipper_agents.control.apply import with_digests
    from clipper_agents.control.readiness import read_reports

    deployment = change.deployment
    row = {"shape": shape_of(shape), "dtype": dtype}
    stated = {"uri": uri, "runtime": runtime, "sha256": sha256, "replicas": replicas, "colocated": colocated, **row}
    at = share if share is not None else 0.05 if stage == "canary" else 1.0
    state = deployment.control_state()
    asked = changes.existing(state.manifests, application).input
    (model,) = with_digests([manifest_of(ref, stated, asked)])

    def decide(state: "ControlState") -> "Plan":
        return changes.deploy(state.manifests, application, model, stage, at, automatic=automatic)

    if decide(state) and not unchecked:
        check_loads_here([model], deployment.settings.files)
    deployment.ensure_topics([model])
    before = {} if wait_s is None else asyncio.run(read_reports(deployment.kafka, deployment.catalogue))
    changed = change.make(decide, application)
    if automatic and stage != "live" and state.manifests.applications[application].rollout.plan is not None:
        _tell_plan(deployment, application, ref)
    if wait_s is not None and model.colocated:
        say(f"model {model.ref} runs inside the routers: there is no host to wait for", stderr=True)
    elif wait_s is not None:
        _wait(deployment, model, wait_s, before if changed else {})


def _tell_plan(deployment: DeploymentContext, application: str, ref: str) -> None:
    from clipper_agents.status.collect import read_status

    found = asyncio.run(read_status(deployment.kafka, deployment.catalogue)).applications
    for trial in found[application].trials if application in found else ():
        if trial.model == ref:
            say(f"the plan of trial {ref} {trial.plan}", stderr=True)


def _wait(
    deployment: DeploymentContext, model: "ModelManifest", wait_s: float, before: "Mapping[bytes, HostReport]"
) -> None:
    from clipper_agents.cli.registry_view import report_line
    from clipper_agents.control.readiness import wait_for_host

    target = deployment.kafka, deployment.catalogue, model.ref, wait_s
    ended = asyncio.run(wait_for_host(*target, lambda report: say(report_line(report), stderr=True), before))
    if ended is None:
        raise ClipperError(
            f"no host of {model.ref} is ready after {wait_s:g} s: does `clipper-stream up` or "
            f"`clipper-stream worker host {model.ref} --instance NAME` run, and may it load the model?"
        )
    if ended.state != "ready":
        raise typer.Exit(exits.FAILURE)


_SIGNS = {"kept": ("kept", "green"), "broken": ("BROKEN", "red"), "unknown": ("not seen", "yellow")}


@model.command("test", epilog="Example: clipper-stream model test acme.models:brightness --shape 64")
def test_model(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="package.module:attribute, a model file, a server's URL, or a configuration (.toml).",
        ),
    ],
    *,
    runtime: Runtime = None,
    model: Annotated[
        str | None, typer.Option(metavar="NAME:VERSION", help="Which model of a manifest that declares several.")
    ] = None,
    dtype: Dtype = None,
    shape: Shape = None,
    rows: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Samples: .jsonl (a row a line) or .npy. Absent: random.")
    ] = None,
    parameters: Parameters = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="By which numbers may differ and be the same.")] = 1e-5,
    random: Annotated[bool, typer.Option("--random", help="The same row need not have the same output.")] = False,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the model, and an application of it, as TOML for `up`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try a model on this machine: does it keep what a host relies on?

    What a row looks like, where nobody says it, is read from the model's file: names and types of columns, and whether
    values may be missing. Ends with code 1 when a law is broken, a model that cannot be loaded included.
    """
    from clipper_agents.cli.model_target import configuration_of, read_samples, read_target, with_fitted_row
    from clipper_stream.errors import ModelNotLoaded
    from clipper_stream.models.registry import file_digest
    from clipper_stream.models.testing import check_model

    stated = {"runtime": runtime, "dtype": dtype, "shape": shape_of(shape), "parameters": parameters_of(parameters)}
    found, files = read_target(target, model, stated)
    file_digest(found.runtime, found.uri)  # a file that is missing is told before rows that nobody can guess
    with suppress(ModelNotLoaded):  # it is the first finding
        found = with_fitted_row(found, files)
    row = found.input
    report = check_model(
        found.uri,
        None if rows is None else read_samples(rows),
        dtype=row.dtype,
        shape=row.shape,
        columns=[(column.name, column.dtype) for column in row.columns],
        missing=row.missing,
        runtime=found.runtime,
        sha256=found.sha256,
        parameters=found.parameters,
        files=files,
        deterministic=found.deterministic and not random,
        tolerance=tolerance,
    )
    if as_json:
        print_json({"kept": not report.broken, "findings": report.findings})
    else:
        _print_report(found, report)
    if report.broken:
        raise typer.Exit(1)
    if write is not None:
        write.write_text(configuration_of(found, write.parent), encoding="utf-8")
        say(f"wrote {write}: serve it with `clipper-stream up --config {write}`", stderr=True)


def _print_report(target: "ModelManifest", report: "Report") -> None:
    from rich.text import Text

    row, broken = target.input, len(report.broken)
    columns = (f"  {each.name}: {each.dtype}{', may be missing' if row.missing else ''}" for each in row.columns)
    say(f"{target.uri}  ({target.runtime}, {row.dtype}{row.shape or ''})", *columns)
    laws = [(one.law.replace("_", " "), Text(*_SIGNS[one.state]), one.found) for one in report.findings]
    console().print(TextTable(("law", "state", "found"), laws))
    say("", f"{broken} laws are broken" if broken else "every law that was looked at is kept")
