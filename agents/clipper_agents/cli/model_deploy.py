"""`clipper-stream model deploy`: a version, its hosts, and its place at an application."""

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents import exits
from clipper_agents.cli.deployment import ChangeRequest, DeploymentContext, with_change

if TYPE_CHECKING:
    from clipper_topics.manifests import ModelManifest


class Stage(StrEnum):
    """Where a version begins."""

    shadow = "shadow"
    canary = "canary"
    live = "live"


class Dtype(StrEnum):
    """Element types of a row."""

    float32 = "float32"
    float64 = "float64"
    int32 = "int32"
    int64 = "int64"
    uint8 = "uint8"
    text = "text"
    bytes = "bytes"
    json = "json"


@with_change
def deploy(
    change: ChangeRequest,
    ref: Annotated[str, typer.Argument(metavar="NAME:VERSION", help="The new version.")],
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
    stage: Annotated[Stage, typer.Option(help="Where it begins.")] = Stage.shadow,
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
    from clipper_agents.cli.model_options import shape_of
    from clipper_agents.control import changes
    from clipper_agents.control.apply import with_digests

    row = {"shape": shape_of(shape), "dtype": None if dtype is None else dtype.value}
    given = {"uri": uri, "runtime": runtime, "sha256": sha256, "replicas": replicas, "colocated": colocated}
    stated = {name: value for name, value in given.items() if value is not None}
    (model,) = with_digests([manifest_of(ref, stated, {k: v for k, v in row.items() if v is not None}, manifest)])
    _ensure_topic(change.deployment, model)
    at = share if share is not None else 0.05 if stage is Stage.canary else 1.0
    change.make(
        lambda state: changes.deploy(state.manifests, application, model, stage.value, at, automatic=automatic),
        application,
    )
    if wait_s is not None:
        _wait(change.deployment, model, wait_s)


def manifest_of(ref: str, stated: dict[str, Any], row: dict[str, Any], file: Path | None = None) -> "ModelManifest":
    """The manifest that the options and the file describe together.

    Args:
        ref: `name:version`.
        stated: Fields of the manifest that options state.
        row: Fields of its input that options state.
        file: With the rest, as a `[[model]]` table or at the top.

    Raises:
        InvalidSetting: with the key and what is allowed.
    """
    import msgspec

    from clipper_agents.settings.error_messages import explained
    from clipper_stream.errors import InvalidSetting
    from clipper_topics.manifests import ModelManifest

    name, _, version = ref.partition(":")
    content = _table(file, name, version) if file else {}
    content |= {**stated, "name": name, "version": version}
    if row:
        content["input"] = {**content.get("input", {}), **row}
    if "uri" not in content:
        raise InvalidSetting(f"model {ref} has no uri: give --uri, or --manifest FILE with one")
    if content.get("runtime", "python") != "python" and "://" not in str(content["uri"]):
        beside = Path() if "uri" in stated or file is None else file.parent
        content["uri"] = str((beside / str(content["uri"])).resolve())
    try:
        return msgspec.convert(content, ModelManifest)
    except ValueError as error:
        said = explained(str(error), content, ModelManifest) if " - at " in str(error) else str(error)
        raise InvalidSetting(f"model {ref}: {said}") from error


def _table(file: Path, name: str, version: str) -> dict[str, Any]:
    from clipper_agents.settings.sources import read_file
    from clipper_stream.errors import InvalidSetting

    content = read_file(file)
    if "model" not in content:
        return content
    tables = [each for each in content["model"] if each.get("name") == name]
    exact = [each for each in tables if str(each.get("version", "1")) == version]
    found = exact or tables
    if len(found) != 1:
        raise InvalidSetting(f"{file}: {len(found)} [[model]] tables are named {name!r}: one of version {version!r}")
    return dict(found[0])


def _ensure_topic(deployment: DeploymentContext, model: "ModelManifest") -> None:
    from clipper_agents.kafka.topics import ensure_topics

    asyncio.run(
        ensure_topics(
            deployment.kafka, deployment.catalogue, [model], replication_factor=deployment.settings.kafka.replication
        )
    )


def _wait(deployment: DeploymentContext, model: "ModelManifest", wait_s: float) -> None:
    from clipper_agents.cli.registry_view import report_line
    from clipper_agents.control.readiness import wait_for_host

    if model.colocated:
        print(f"model {model.ref} runs inside the routers: there is no host to wait for", file=sys.stderr)
        return
    connection = deployment.kafka
    ended = asyncio.run(
        wait_for_host(
            connection, deployment.catalogue, model.ref, wait_s, lambda each: print(report_line(each), file=sys.stderr)
        )
    )
    if ended is None:
        print(
            f"error: no host of {model.ref} is ready after {wait_s:g} s: does `clipper-stream up` or "
            f"`clipper-stream worker host {model.ref}` run, and may it load the model?",
            file=sys.stderr,
        )
    if ended is None or ended.state != "ready":
        raise typer.Exit(exits.FAILURE)
