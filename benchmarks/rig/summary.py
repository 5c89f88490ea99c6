"""Medians with their range over the rounds, and ratios to a rival."""

import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

Run = dict[str, Any]
Measures = Mapping[str, Callable[[Run], float | None]]
"""What a column is called, and where its value stands in a run."""
Summary = dict[str, dict[str, Any]]
"""By row and measure."""
DOUBTS = ("missing", "duplicates", "default_ratio", "note")


def row_of(run: Run) -> str:
    """Name of the row that a run belongs to: its system, and its load where there are several."""
    return ", ".join(str(run[name]) for name in ("system", "load") if run.get(name))


def summary(runs: list[Run], measures: Measures, rivals: Mapping[str, str] | None = None) -> Summary:
    """By row and measure: median, least and most over the rounds, and the ratio to the rival's median.

    A round in which a percentile fell on a lost query has no value; `rounds` says how many had one.

    Args:
        runs: With `system`, and `load` where each system has several.
        measures: The columns.
        rivals: Row with which a row is compared.
    """
    good = [run for run in runs if "failed" not in run]
    found: Summary = {}
    for name in dict.fromkeys(map(row_of, good)):
        mine = [run for run in good if row_of(run) == name]
        found[name] = {measure: spread(value(run) for run in mine) for measure, value in measures.items()}
    for name, rival in (rivals or {}).items():
        for measure, one in found.get(name, {}).items():
            base = found.get(rival, {}).get(measure, {}).get("median")
            one["ratio"] = round(one["median"] / base, 2) if base and one["median"] is not None else None
    return found


def median_of(found: Summary, row: str, measure: str, part: str = "median") -> float | None:
    """One figure of a summary; None where there is none."""
    value: float | None = found.get(row, {}).get(measure, {}).get(part)
    return value


def spread(values: Iterable[float | None]) -> dict[str, Any]:
    """Median, least and most of the values that are known."""
    known = [value for value in values if value is not None]
    if not known:
        return {"median": None, "least": None, "most": None, "rounds": 0}
    return {
        "median": round(statistics.median(known), 3),
        "least": min(known),
        "most": max(known),
        "rounds": len(known),
    }


def show(title: str, found: Summary, runs: list[Run]) -> None:
    """The summary as a table, and below it what makes single runs doubtful."""
    console = Console(width=None if sys.stdout.isatty() else 140)
    table = Table(title=title, title_justify="left")
    table.add_column("", no_wrap=True)
    for measure in next(iter(found.values()), {}):
        table.add_column(measure, justify="right")
    for name, measures in found.items():
        table.add_row(name, *(_cell(one) for one in measures.values()))
    console.print(table)
    for line in doubts(runs):
        console.print(f"note: {line}", highlight=False)


def _cell(one: dict[str, Any]) -> str:
    if one["median"] is None:
        return "-"
    lines = [_number(one["median"])]
    if one["rounds"] > 1:
        lines.append(f"({_number(one['least'])} to {_number(one['most'])})")
    if one.get("ratio") is not None:
        lines.append(f"{one['ratio']:.2f} x")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Three digits that say something."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"


def doubts(runs: list[Run]) -> list[str]:
    """Lost queries, duplicates, defaults, a rig at its limit, systems that did not start."""
    found = []
    for run in runs:
        where = f"round {run.get('round', 0)}, {row_of(run)}"
        if "failed" in run:
            found.append(f"{where}: {run['failed'].splitlines()[0]}")
        found += [f"{where}: {name} {run[name]}" for name in DOUBTS if run.get(name)]
    return found
