"""Medians with their range over the rounds, and ratios to the rival with the same hops."""

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rig.systems import RIVAL_OF

Run = dict[str, Any]
MEASURES: dict[str, Callable[[Run], float | None]] = {
    "latency p50 ms": lambda run: run["latency"]["p50_ms"],
    "latency p99 ms": lambda run: run["latency"]["p99_ms"],
    "CPU µs a query at the rate": lambda run: run["latency"]["system_cpu_us"],
    "queries/s at saturation": lambda run: run["throughput"]["throughput_per_s"],
    "CPU µs a query at saturation": lambda run: run["throughput"]["system_cpu_us"],
}


def summary(runs: list[Run]) -> dict[str, dict[str, Any]]:
    """By system and measure: median, least and most over the rounds, and the ratio to the rival's median.

    A round in which a percentile fell on a lost query has no value; `rounds` says how many had one.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(run["system"] for run in runs):
        good = [run for run in runs if run["system"] == name and "failed" not in run]
        found[name] = {measure: _spread(value(run) for run in good) for measure, value in MEASURES.items()}
    for name, rival in RIVAL_OF.items():
        for measure, spread in found.get(name, {}).items():
            base = found.get(rival, {}).get(measure, {}).get("median")
            spread["ratio"] = round(spread["median"] / base, 2) if base and spread["median"] is not None else None
    return found


def _spread(values: Iterable[float | None]) -> dict[str, float | int | None]:
    known = [value for value in values if value is not None]
    if not known:
        return {"median": None, "least": None, "most": None, "rounds": 0}
    return {
        "median": round(statistics.median(known), 3),
        "least": min(known),
        "most": max(known),
        "rounds": len(known),
    }


def show(result: dict[str, Any]) -> None:
    """The summary as a table, and below it what makes single runs doubtful."""
    console = Console()
    table = Table(title="median (least to most), x: times the echo with the same hops", title_justify="left")
    table.add_column("system")
    for measure in MEASURES:
        table.add_column(measure, justify="right")
    for name, measures in result["summary"].items():
        table.add_row(name, *(_cell(spread) for spread in measures.values()))
    console.print(table)
    for line in doubts(result["runs"]):
        console.print(f"note: {line}", highlight=False)


def _cell(spread: dict[str, Any]) -> str:
    if spread["median"] is None:
        return "-"
    lines = [f"{spread['median']:,.1f}"]
    if spread["rounds"] > 1:
        lines.append(f"({spread['least']:,.1f} to {spread['most']:,.1f})")
    if spread.get("ratio") is not None:
        lines.append(f"{spread['ratio']:.2f} x")
    return "\n".join(lines)


def doubts(runs: list[Run]) -> list[str]:
    """Lost queries, duplicates, defaults, a rig at its limit, systems that did not start."""
    found = []
    for run in runs:
        where = f"round {run['round']}, {run['system']}"
        if "failed" in run:
            found.append(f"{where}: {run['failed'].splitlines()[0]}")
        for mode in ("latency", "throughput"):
            figures = run.get(mode, {})
            found += [
                f"{where}, {mode}: {name} {figures[name]}"
                for name in ("missing", "duplicates", "default_ratio", "note")
                if figures.get(name)
            ]
    return found
