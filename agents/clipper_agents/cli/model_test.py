"""`clipper-stream model test`: whether a model can be served, found out on this machine before it is deployed."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clipper_agents.cli.model_options import Dtype, Parameters, Runtime, Shape, parameters_of, shape_of

if TYPE_CHECKING:
    from clipper_agents.cli.model_target import Target
    from clipper_stream.models.testing import Report

_SIGNS = {"kept": "kept", "broken": "BROKEN", "unknown": "not seen"}


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
    target_ms: Annotated[float | None, typer.Option(min=0.001, help="Of a batch, for the advice. Absent: 20.")] = None,
    max_rows: Annotated[int | None, typer.Option(min=1, help="The largest batch to measure. Absent: 1024.")] = None,
    tolerance: Annotated[float, typer.Option(min=0.0, help="By which numbers may differ and be the same.")] = 1e-5,
    random: Annotated[bool, typer.Option("--random", help="The same row need not have the same output.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The report as JSON.")] = False,
) -> None:
    """Try a model on this machine: does it keep what a host relies on, and how long do batches take?

    Ends with code 1 when a law is broken, a model that cannot be loaded included.
    """
    from clipper_agents.cli.model_target import read_samples, read_target
    from clipper_stream.models.testing import check_model

    said = {"runtime": runtime, "dtype": dtype, "shape": shape_of(shape), "parameters": parameters_of(parameters)}
    found = read_target(target, model, said)
    samples = read_samples(rows, found.dtype) if rows is not None else None
    report = check_model(
        found.uri,
        samples,
        dtype=found.dtype,
        shape=found.shape,
        runtime=found.runtime,
        sha256=found.sha256,
        parameters=found.parameters,
        files=found.files,
        deterministic=found.deterministic and not random,
        tolerance=tolerance,
        target_ms=target_ms or found.target_ms,
        max_rows=max_rows or found.max_rows,
    )
    typer.echo(json.dumps(report.plain())) if as_json else _print(found, report)
    if not report.kept:
        raise typer.Exit(1)


def _print(target: "Target", report: "Report") -> None:
    from rich.console import Console
    from rich.table import Table

    from clipper_agents.cli.plain_text import plain

    console = Console(width=None if typer.get_text_stream("stdout").isatty() else 110, highlight=False)
    console.print(
        f"{plain(target.uri)}  ({target.runtime}, {target.dtype}{target.shape or ''})", markup=False, soft_wrap=True
    )
    laws = Table(box=None, pad_edge=False)
    for name in ("law", "state", "found"):
        laws.add_column(name, no_wrap=name != "found")
    for finding in report.findings:
        words = plain(finding.found) + (f"; {plain(finding.advice)}" if finding.advice else "")
        colour = {"broken": "red", "unknown": "yellow"}.get(finding.state, "green")
        laws.add_row(finding.law.replace("_", " "), f"[{colour}]{_SIGNS[finding.state]}[/]", _text(words))
    console.print(laws)
    if report.latencies:
        console.print(_latencies(report))
    if report.advice:
        console.print(f"\nadvice: {report.advice}", markup=False, soft_wrap=True)
    verdict = "every law that was looked at is kept" if report.kept else f"{len(report.broken)} laws are broken"
    console.print(f"\n{verdict}", markup=False)


def _text(words: str) -> Any:
    from rich.text import Text

    return Text(words)


def _latencies(report: "Report") -> Any:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, title_justify="left", title="\nlatency by batch size")
    for name in ("rows", "median ms", "worst ms", "rows/s"):
        table.add_column(name, justify="right")
    for each in report.latencies:
        table.add_row(str(each.rows), f"{each.median_ms:.3f}", f"{each.worst_ms:.3f}", f"{each.rows_per_s:,.0f}")
    return table
