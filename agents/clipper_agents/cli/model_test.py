"""`clipper-stream model test`: whether a model can be served, found out on this machine before it is deployed."""

import json
import os
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.options import Dtype, Json, Parameters, Runtime, Shape, parameters_of, shape_of
from clipper_agents.cli.terminal import console, say, table

if TYPE_CHECKING:
    from clipper_stream.models.testing import Report
    from clipper_topics.manifests import ModelManifest

_SIGNS = {"kept": ("kept", "green"), "broken": ("BROKEN", "red"), "unknown": ("not seen", "yellow")}


def test_model(
    target: Annotated[
        str,
        typer.Argument(
            metavar="TARGET",
            help="package.module:attribute, a model file, a server's URL, or a manifest (.toml, .json).",
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
        Path | None, typer.Option(metavar="FILE", help="Samples: .json (a list), .jsonl, .npy or .csv. Absent: random.")
    ] = None,
    parameters: Parameters = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="The largest batch to measure. Absent: 1024.")] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="By which numbers may differ and be the same.")] = 1e-5,
    random: Annotated[bool, typer.Option("--random", help="The same row need not have the same output.")] = False,
    write: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the model, and an application of it, as TOML for `up`.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Try a model on this machine: does it keep what a host relies on, and how long do batches take?

    What a row looks like, where nobody says it, is read from the model's file: names and types of columns, and whether
    values may be missing. Ends with code 1 when a law is broken, a model that cannot be loaded included.
    """
    from clipper_agents.cli.model_target import alone, read_samples, read_target, with_fitted_row
    from clipper_stream.errors import ModelNotLoaded
    from clipper_stream.models.testing import check_model

    stated = {"runtime": runtime, "dtype": dtype, "shape": shape_of(shape), "parameters": parameters_of(parameters)}
    found, files = read_target(target, model, stated)
    with suppress(ModelNotLoaded):  # it is the first finding
        found = with_fitted_row(found, files)
    row = found.input
    report = check_model(
        found.uri,
        read_samples(rows, row) if rows is not None else None,
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
        max_rows=max_rows or found.batch.max_rows,
    )
    if as_json:
        say(json.dumps({"kept": not report.broken, **asdict(report)}))
    else:
        _print(found, report)
    if report.broken:
        raise typer.Exit(1)
    if write is not None:
        from clipper_agents.control.manifest_text import as_toml
        from clipper_agents.control.state import Manifests

        if found.runtime != "python" and "://" not in found.uri:
            found.uri = os.path.relpath(found.uri, write.parent)
        write.write_text(as_toml(Manifests({found.name: alone(found)}, {found.ref: found})), encoding="utf-8")
        say(f"wrote {write}: serve it with `clipper-stream up --config {write}`", stderr=True)


def _print(target: "ModelManifest", report: "Report") -> None:
    from rich.text import Text

    out, row = console(110), target.input
    out.print(f"{target.uri}  ({target.runtime}, {row.dtype}{row.shape or ''})", soft_wrap=True)
    for column in row.columns:
        out.print(f"  {column.name}: {column.dtype}{', may be missing' if row.missing else ''}", soft_wrap=True)
    laws = []
    for finding in report.findings:
        words = f"{finding.found}; {finding.advice}" if finding.advice else finding.found
        laws.append((finding.law.replace("_", " "), Text(*_SIGNS[finding.state]), words))
    out.print(table(("law", "state", "found"), laws, wrapped={"found"}))
    if report.latencies:
        headings = ("rows", "median ms", "worst ms", "rows/s")
        rows = [
            (str(each.rows), f"{each.median_ms:.3f}", f"{each.worst_ms:.3f}", f"{each.rows_per_s:,.0f}")
            for each in report.latencies
        ]
        out.print("\nlatency by batch size")
        out.print(table(headings, rows, right=headings))
    broken = len(report.broken)
    verdict = f"{broken} laws are broken" if broken else "every law that was looked at is kept"
    out.print(f"\n{verdict}")
