"""`clipper-stream replay score`: what a model says to logged inputs, before it is deployed."""

import json
from pathlib import Path
from typing import Annotated

import typer

from clipper_agents.cli.extras import require_extra
from clipper_agents.cli.options import Dtype, Json, Parameters, Runtime, Shape, parameters_of, shape_of
from clipper_agents.cli.terminal import progress, say


def score(
    inputs: Annotated[Path, typer.Argument(metavar="INPUTS", help="What `replay export --inputs` wrote.")],
    *,
    model: Annotated[str, typer.Option(metavar="NAME:VERSION", help="How the model is called in the evaluation.")],
    uri: Annotated[
        str,
        typer.Option(
            metavar="TARGET",
            help="package.module:attribute, a model file, a server's URL, or a manifest (.toml, .json) that has it.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file .parquet to write.")],
    runtime: Runtime = None,
    sha256: Annotated[
        str | None, typer.Option(metavar="DIGEST", help="That the file must have. Absent: whatever it has.")
    ] = None,
    dtype: Dtype = None,
    shape: Shape = None,
    parameters: Parameters = None,
    processes: Annotated[
        int, typer.Option(min=0, metavar="N", help="That run the model at the same time; 0: this one.")
    ] = 1,
    as_json: Json = False,
) -> None:
    """Run a model over logged inputs, chunk by chunk; a run that is broken off begins anew.

    A row on which the model fails has no output, and counts as a loss of 1.
    """
    require_extra("replay", "pyarrow")
    import msgspec

    from clipper_agents.cli.model_target import read_target
    from clipper_agents.replay.model_runs import score_inputs

    if not all(model.partition(":")):
        raise typer.BadParameter(f"--model {model}: write NAME:VERSION, as svm:2")
    stated = {"runtime": runtime, "sha256": sha256, "dtype": dtype, "shape": shape_of(shape)}
    target, files = read_target(uri, model, {**stated, "parameters": parameters_of(parameters)})
    name, _, version = model.partition(":")
    named = msgspec.structs.replace(target, name=name, version=version)
    with progress(model) as update:

        def told(done: int, of: int) -> None:
            update(completed=done, total=of)

        found = score_inputs(inputs, named, out, files=files, processes=processes, told=told)
    if as_json:
        say(json.dumps({"file": str(out), "model": model, **found._asdict()}))
        return
    say(f"{out}: {model} to {found.queries:,} queries, {found.failed:,} of them with a row that failed")
