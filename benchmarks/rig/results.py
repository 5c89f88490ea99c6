"""What a benchmark reports: medians with their range and ratios, what was expected, and what it was measured on."""

import os
import platform
import statistics
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from rich.table import Table
from rig.processes import Cpus

from clipper_agents.broker import KAFKA_VERSION

Run = dict[str, Any]
Measures = Mapping[str, Callable[[Run], float | None]]
"""What a column is called, and where its value stands in a run."""
Summary = dict[str, dict[str, Any]]
"""By row and measure."""
MET, MISSED = "met", "missed"
"""How every table marks an expectation."""
DOUBTS = ("missing", "duplicates", "wrong", "default_ratio", "note")


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


def single(value: float | None) -> dict[str, Any]:
    """A single value where a summary has a median."""
    return {"median": value, "least": value, "most": value, "rounds": 1}


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


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One expectation.

    Attributes:
        benchmark: Letter of the benchmark, as in the README of this folder.
        what: The figure in words, with its unit or `x` for a ratio; first, before a colon, the row of the summary.
        value: What was measured; None: it could not be.
        sense: Whether the value is to be at least or at most the bound.
        bound: The expectation.

    >>> Target(benchmark="A", what="router CPU, µs a query", value=19.0, sense="<=", bound=20.0).met
    True
    """

    benchmark: str
    what: str
    value: float | None
    sense: Literal["<=", ">="]
    bound: float

    @classmethod
    def of(
        cls,
        benchmark: str,
        what: str,
        figure: tuple[Summary, str, str],
        sense: Literal["<=", ">="],
        bound: float,
        part: str = "median",
    ) -> "Target":
        """An expectation of a figure, given by a summary, its row and measure."""
        return cls(benchmark=benchmark, what=what, value=median_of(*figure, part), sense=sense, bound=bound)

    @property
    def met(self) -> bool:
        """Whether it was shown."""
        if self.value is None:
            return False
        return self.value <= self.bound if self.sense == "<=" else self.value >= self.bound

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "met": self.met}


def target_of(found: Mapping[str, Any]) -> Target:
    """A target from `Target.as_dict`."""
    return Target(**{name: value for name, value in found.items() if name != "met"})


def show_targets(targets: Iterable[Target]) -> None:
    """The expectations as a table, those that were missed marked."""
    table = Table(title="expected and measured", title_justify="left")
    for column in ("", "figure", "expected", "measured", ""):
        table.add_column(column)
    for target in targets:
        value = "-" if target.value is None else f"{target.value:,.2f}"
        mark = MET if target.met else f"[bold red]{MISSED}[/]"
        table.add_row(target.benchmark, target.what, f"{target.sense} {target.bound:,.2f}", value, mark)
    Console().print(table)


PACKAGES = ("clipper-stream", "faust-streaming", "aiokafka", "rocksdict", "msgspec", "numpy", "uvloop")


def conditions(cpus: Cpus, **settings: Any) -> dict[str, Any]:
    """Machine, versions, pinning and the benchmark's settings, ready for JSON."""
    return {
        "cpu": cpu_model(),
        "cpus": os.cpu_count(),
        "rig_cpus": sorted(cpus.rig),
        "system_cpus": sorted(cpus.system),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "kafka": f"{KAFKA_VERSION}, one broker, replication 1, loopback",
        "versions": {name: _version(name) for name in PACKAGES},
        "settings": settings,
    }


def load_average() -> float:
    """Processes that ran or waited, over the last minute."""
    return round(os.getloadavg()[0], 2)


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
