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
    from clipper_topics.host_report import HostReport
    from clipper_topics.manifests import ModelManifest


Stage = Literal["shadow", "canary", "live"]
Dtype = Literal["float32", "float64", "int32", "int64", "uint8", "text", "bytes", "json"]


@with_change
def deploy(
    change: ChangeRequest,
    ref: Ref,
    application: Annotated[str, typer.Option("--application", "-a", metavar="NAME", help="Who is going to ask it.")],
    *,
    uri: Annotated[str | None, typer.Option(metavar="URI", help="`package.module:attribute`, or a file.")] = None,
    runtime: Annotated[str | None, typer.Option(metavar="NAME", help="How it is loaded; absent: python.")] = None,
    sha256: Annotated[str | None, typer.Option(metavar="HEX", help="Digest; absent: of the file that is here.")] = None,
    replicas: Annotated[int | None, typer.Option(min=1, metavar="N", help="Hosts; absent: 1.")] = None,
    shape: Annotated[str | None, typer.Option(metavar="N,...", help="Of a row, for example 64 or 28,28.")] = None,
    dtype: Annotated[Dtype | None, typer.Option(help="Of a row; absent: float32.")] = None,
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
) -> None:
    """Publish a version and give it to an application, first as a shadow.

    With --wait the exit code is 1 when a host fails, with its reason, or when none is ready in time.
    """
    from clipper_agents.cli.model_target import manifest_of
    from clipper_agents.control import changes
    from clipper_agents.control.apply import with_digests

    row = {"shape": shape_of(shape), "dtype": dtype}
    stated = {"uri": uri, "runtime": runtime, "sha256": sha256, "replicas": replicas, "colocated": colocated, **row}
    (model,) = with_digests([manifest_of(ref, stated, manifest)])
    change.deployment.ensure_topics([model])
    at = share if share is not None else 0.05 if stage == "canary" else 1.0
    change.make(
        lambda state: changes.deploy(state.manifests, application, model, stage, at, automatic=automatic),
        application,
    )
    if wait_s is not None:
        _wait(change.deployment, model, wait_s)


def _wait(deployment: DeploymentContext, model: "ModelManifest", wait_s: float) -> None:
    from clipper_agents.cli.registry_view import report_line
    from clipper_agents.control.readiness import wait_for_host

    if model.colocated:
        say(f"model {model.ref} runs inside the routers: there is no host to wait for", stderr=True)
        return

    def tell(report: "HostReport") -> None:
        say(report_line(report), stderr=True)

    ended = asyncio.run(wait_for_host(deployment.kafka, deployment.catalogue, model.ref, wait_s, tell))
    if ended is None:
        say(
            f"error: no host of {model.ref} is ready after {wait_s:g} s: does `clipper-stream up` or "
            f"`clipper-stream worker host {model.ref}` run, and may it load the model?",
            stderr=True,
        )
    if ended is None or ended.state != "ready":
        raise typer.Exit(exits.FAILURE)
