"""What did the benchmarks find? The results of a run as one page of Markdown tables, for benchmarks/results/figures.md.

python benchmarks/all.py
python benchmarks/figures.py > benchmarks/results/figures.md
"""

import argparse
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from all import BENCHMARKS, HERE
from rig.results import Target, target_of

DIGITS = 3
THOUSAND = 1_000.0
HEAD = (
    "# Figures",
    "",
    "Made by `benchmarks/figures.py` from one run of `make bench`. What each figure means is said in",
    "[the benchmarks' page](../README.md), and what follows from them in",
    "[performance](../../docs/explanation/performance.md).",
    "",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="FOLDER")
    print("\n".join(page(parser.parse_args().results)))


def page(results: Path) -> Iterator[str]:
    """The lines of the page."""
    found = {letter: _read(results / f"{name}.json") for letter, name in BENCHMARKS.items()}
    known = {letter: result for letter, result in found.items() if result is not None}
    yield from HEAD
    yield from _conditions(known)
    yield from ("## Expected and measured", "")
    yield from _targets(target_of(one) for result in known.values() for one in result["targets"])
    for letter, result in known.items():
        yield from ("", f"## {letter}: `{BENCHMARKS[letter]}.py`", "", _settings(result), "")
        yield from _table(result["summary"])


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text()) if path.exists() else None


def _conditions(results: dict[str, Any]) -> Iterator[str]:
    said = next(iter(results.values()))["conditions"]
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    yield f"{said['cpus']} CPUs ({said['cpu']}), Linux {said['kernel']}, Python {said['python']},"
    yield from (f"Kafka {said['kafka']}; {versions}.", "Medians, with the least and the most of several rounds.", "")


def _settings(result: dict[str, Any]) -> str:
    settings = {name: value for name, value in result["conditions"]["settings"].items() if value not in (None, False)}
    return "Settings: " + ", ".join(f"{name} {value}" for name, value in settings.items()) + "."


def _targets(targets: Iterable[Target]) -> Iterator[str]:
    yield from ("| | figure | expected | measured | |", "|---|---|---|---|---|")
    for one in targets:
        measured = "-" if one.value is None else _short(one.value)
        mark = "yes" if one.met else "**no**"
        yield f"| {one.benchmark} | {one.what} | {one.sense} {_short(one.bound)} | {measured} | {mark} |"


def _table(summary: dict[str, dict[str, Any]]) -> Iterator[str]:
    """One table for each set of columns, in the order in which they come."""
    columns: list[str] | None = None
    for row, measures in _rows(summary):
        if list(measures) != columns:
            columns = list(measures)
            yield from ("", f"| | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|")
        yield f"| {row} | {' | '.join(map(_cell, measures.values()))} |"


def _rows(summary: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a summary, and those of the summaries inside it under the name of both."""
    for row, measures in summary.items():
        if all(isinstance(measure, dict) and "median" not in measure for measure in measures.values()):
            yield from ((f"{row}, {inner}", found) for inner, found in measures.items())
        else:
            yield row, measures


def _cell(value: Any) -> str:
    if not isinstance(value, dict):
        return _short(value) if isinstance(value, int | float) else str(value)
    median, least, most = (value.get(name) for name in ("median", "least", "most"))
    if median is None:
        return "-"
    text = _short(median) if least == most else f"{_short(median)} ({_short(least)} to {_short(most)})"
    return text if value.get("ratio") is None else f"{text}, {value['ratio']:.2f} x"


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= THOUSAND or value == int(value) else f"{value:.{DIGITS}g}"


if __name__ == "__main__":
    main()
