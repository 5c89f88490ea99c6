"""`clipper-stream model deploy`: a version, its hosts, and its place at an application."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import ChangeRequest, DeploymentContext, with_change
from clipper_agents.cli.options import Ref, shape_of
from clipper_agents.cli.terminal import say

if TYPE_CHECKING:
    from collections.abc import Mapping

    from clipper_agents.control.plan import Plan
    from clipper_agents.control.state import ControlState
    from clipper_topics.host_report import HostReport
    from clipper_topics.manifests import ModelManifest


Stage = Literal["shadow", "canary", "live"]
Dtype = Literal["float32", "float64", "int32", "int64", "uint8", "text", "bytes", "json", "table"]


@with_change
def deploy(
    change: ChangeRequest,
    ref: Ref,
    application: Annotated[str, typer.Option("--application", "-a", metavar="NAME", help="Who is going to ask it.")],
    *,
    uri: Annotated[str | None, typer.Option(metavar="URI", help="`package.module:attribute`, or a file.")] = None,
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="How it is loaded; absent: by the URI.")] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="Digest; absent: of the file that is here.")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, metavar="N", help="Hosts; absent: 1.")] = None,
    shape: Annotated[
        str | None, typer.Option(metavar="N,...", help="Of a row, as 28,28; absent: the application's.")
    ] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Of a row; absent: the application's.")] = None,
    colocated: Annotated[bool | None, typer.Option("--colocated", help="Run it inside the routers.")] = None,
    manifest: Annotated[
        Path | None, typer.Option("--manifest", "-m", metavar="FILE", help="TOML with its [[model]]; options win.")
    ] = None,
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
    (model,) = with_digests([manifest_of(ref, stated, manifest, asked)])

    def decide(state: "ControlState") -> "Plan":
        return changes.deploy(state.manifests, application, model, stage, at, automatic=automatic)

    if decide(state) and not unchecked:
        check_loads_here([model], deployment.settings.files)
    deployment.ensure_topics([model])
    before = {} if wait_s is None else asyncio.run(read_reports(deployment.kafka, deployment.catalogue))
    changed = change.make(decide, application)
    if wait_s is not None and model.colocated:
        say(f"model {model.ref} runs inside the routers: there is no host to wait for", stderr=True)
    elif wait_s is not None:
        _wait(deployment, model, wait_s, before if changed else {})


def _wait(
    deployment: DeploymentContext, model: "ModelManifest", wait_s: float, before: "Mapping[bytes, HostReport]"
) -> None:
    from clipper_agents.cli.registry_view import report_line
    from clipper_agents.control.readiness import wait_for_host

    def tell(report: "HostReport") -> None:
        say(report_line(report), stderr=True)

    ended = asyncio.run(wait_for_host(deployment.kafka, deployment.catalogue, model.ref, wait_s, tell, before))
    if ended is None:
        say(
            f"error: no host of {model.ref} is ready after {wait_s:g} s: does `clipper-stream up` or "
            f"`clipper-stream worker host {model.ref} --instance NAME` run, and may it load the model?",
            stderr=True,
        )
    if ended is None or ended.state != "ready":
        raise typer.Exit(exits.FAILURE)
