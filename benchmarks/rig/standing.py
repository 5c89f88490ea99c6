"""The table, the notes and the targets of the throughput benchmark."""

import statistics
from collections.abc import Callable, Iterable
from typing import Any

from rich.console import Console
from rich.table import Table
from rig.contenders import Contender
from rig.results import Target

Run = dict[str, Any]
RIG_LIMIT = 0.8
MEASURES: dict[str, Callable[[Run], float | None]] = {
    "rows/s": lambda run: run.get("rows_per_s"),
    "CPU µs a row": lambda run: run.get("system_cpu_us"),
    "whole run µs": lambda run: run.get("whole_cpu_us"),
    "router µs": lambda run: run.get("cpu_us", {}).get("router"),
    "host µs": lambda run: run.get("cpu_us", {}).get("host"),
    "rows per CPU s": lambda run: run.get("rows_per_cpu_s"),
    "hit ratio": lambda run: run.get("hit_ratio") if "router" in run.get("cpu_us", {}) else None,
    "rig CPU": lambda run: run.get("rig_cpu"),
}
SLOW = ("faust", "quix", "mlserver")


def standing(runs: list[Run]) -> dict[str, dict[str, Any]]:
    """By system and measure: median, least and most over the rounds; and in how many rounds all answers were right."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(run["system"] for run in runs):
        mine = [run for run in runs if run["system"] == name]
        found[name] = {measure: _spread(value(run) for run in mine) for measure, value in MEASURES.items()}
        found[name]["complete"] = f"{sum(bool(run.get('complete')) for run in mine)}/{len(mine)}"
    return found


def _spread(values: Iterable[float | None]) -> dict[str, float | None]:
    known = [value for value in values if value is not None]
    if not known:
        return {"median": None, "least": None, "most": None}
    return {"median": round(statistics.median(known), 4), "least": min(known), "most": max(known)}


def show_standing(summary: dict[str, Any], runs: list[Run], contenders: dict[str, Contender]) -> None:
    """The table, then what makes runs doubtful, then what each rival leaves out."""
    console = Console(width=140)
    table = Table(title="median (least to most); a packed record has 16 rows", title_justify="left")
    table.add_column("system")
    for measure in [*MEASURES, "complete"]:
        table.add_column(measure, justify="right")
    for name, measures in summary.items():
        table.add_row(name, *(_cell(measures[measure]) for measure in MEASURES), measures["complete"])
    console.print(table)
    for line in doubts(runs):
        console.print(f"note: {line}", highlight=False)
    for name in summary:
        if contenders[name].leaves_out:
            console.print(f"{name} leaves out: {contenders[name].leaves_out}", highlight=False)


def _cell(spread: dict[str, float | None]) -> str:
    median, least, most = spread["median"], spread["least"], spread["most"]
    if median is None or least is None or most is None:
        return "-"
    text = _short(median)
    return text if least == most else f"{text}\n({_short(least)} to {_short(most)})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.2f}"


def doubts(runs: list[Run]) -> list[str]:
    """Runs without figures, with lost, spare or wrong answers, or with a rig at its limit."""
    found = []
    for run in runs:
        where = f"round {run['round']}, {run['system']}"
        names = ("note", "missing", "duplicates", "wrong", "defaults")
        found += [f"{where}: {name} {run[name]}".replace(": note ", ": ") for name in names if run.get(name)]
        if run.get("rig_cpu", 0.0) > RIG_LIMIT:
            found.append(
                f"{where}: rig_cpu {run['rig_cpu']}: the broker was at its limit, trust CPU more than the rate"
            )
    return found


def throughput_targets(summary: dict[str, Any]) -> list[Target]:
    """What is expected of the systems of ours, beside the rivals of the same run."""
    ours = [name for name in summary if name.startswith(("colocated", "separate", "cached", "packed"))]

    def of(name: str, measure: str) -> float | None:
        return summary.get(name, {}).get(measure, {}).get("median")

    def ratio(name: str, rival: str, measure: str = "rows/s") -> float | None:
        value, other = of(name, measure), of(rival, measure)
        return round(value / other, 3) if value is not None and other else None

    def least(rival: str) -> float | None:
        known = [found for name in ours if (found := ratio(name, rival)) is not None]
        return min(known, default=None)

    most, at_least = "<=", ">="
    return [
        _target("router CPU, µs a query, JSON, cold cache", of("separate-json", "router µs"), most, 20.0),
        _target("router CPU, µs a query, msgpack, cold cache", of("separate-msgpack", "router µs"), most, 10.0),
        _target("router CPU, µs a row, msgpack, packed by 16", of("packed-msgpack", "router µs"), most, 4.0),
        _target("host CPU, µs a row, JSON, cold cache", of("separate-json", "host µs"), most, 5.0),
        _target("separate host, JSON: x bare aiokafka", ratio("separate-json", "aiokafka"), at_least, 0.6),
        _target(
            "separate host, msgpack: x bare aiokafka", ratio("separate-msgpack", "aiokafka-msgpack"), at_least, 1.0
        ),
        _target(
            "colocated, JSON: rows per CPU second, x Bytewax",
            ratio("colocated-json", "bytewax", "rows per CPU s"),
            at_least,
            1.0,
        ),
        _target(
            "colocated, JSON: CPU a query, x the same router without Faust",
            ratio("colocated-json", "bare-router-json", "CPU µs a row"),
            most,
            1.15,
        ),
        *(_target(f"slowest of ours: x {rival}", least(rival), at_least, 5.0) for rival in SLOW),
        _target("slowest of ours: x faststream", least("faststream"), at_least, 1.5),
    ]


def _target(what: str, value: float | None, sense: Any, bound: float) -> Target:
    return Target(benchmark="A", what=what, value=value, sense=sense, bound=bound)
