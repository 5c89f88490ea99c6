"""`clipper-stream export`: the whole registry as one file."""

from pathlib import Path
from typing import Annotated

import typer

from clipper_agents.cli.deployment import DeploymentContext, Json, with_deployment


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
        print(text, end="")
    else:
        out.write_text(text, encoding="utf-8")
