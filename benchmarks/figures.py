"""What did the benchmarks find? Writes benchmarks/results/figures.md from the results of a run, and README's numbers.

python benchmarks/all.py
python benchmarks/figures.py
"""

import argparse
import json
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from all import BENCHMARKS, HERE
from rig.results import Target, target_of

README = HERE.parent / "README.md"
CONDITIONS_OF_README = (
    "{} cores ({}), Kafka {} on loopback, queries of 64 numbers, a cheap numpy model, one core for the system:"
)
SYSTEMS_OF_README = {
    "model in a host, JSON": ["separate-json"],
    "model in a host, msgpack, 16 rows a query": ["packed-msgpack"],
    "model in the router, JSON": ["colocated-json"],
    "loops by hand: confluent-kafka, aiokafka": ["confluent-pass-through", "aiokafka-pass-through"],
    "Bytewax, FastStream, Quix Streams": ["bytewax-pass-through", "faststream-pass-through", "quix-pass-through"],
    "stock Faust, MLServer's Kafka mode": ["faust-pass-through", "mlserver-pass-through"],
    "the same work: this system; confluent-kafka, Bytewax, Quix Streams, stock Faust": [
        "colocated-same-work", "confluent-same-work", "bytewax-same-work", "quix-same-work", "faust-same-work",
    ],
}  # fmt: skip
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
    text = "".join(f"{line}\n" for line in page(parser.parse_args().results))
    (HERE / "results/figures.md").write_text(text)
    README.write_text(with_numbers(README.read_text(), text))


def with_numbers(readme: str, figures: str) -> str:
    """README's text with the numbers of the page of figures in its table."""
    head, _, rest = readme.partition("## Numbers\n")
    _, _, tail = rest.partition("\n\nNone of the others")
    numbers = "\n".join(_numbers(figures))
    return f"{head}## Numbers\n\n{numbers}\n\nNone of the others{tail}"


def _numbers(figures: str) -> Iterator[str]:
    lines = [line for line in figures.partition("## A: ")[2].partition("\n## ")[0].splitlines() if "|" in line]
    cells = [[cell.strip().partition(" (")[0] for cell in line.split("|")[1:-1]] for line in lines]
    columns = cells[0][1:]
    known = {row[0]: dict(zip(columns, row[1:], strict=False)) for row in cells[2:]}
    yield f"{CONDITIONS_OF_README.format(*_said(figures))}\n"
    yield from ("| | rows/s | CPU a row, µs |", "|---|---|---|")
    for name, systems in SYSTEMS_OF_README.items():
        found = [known[system] for system in systems if system in known]
        if len(found) < len(systems):
            continue
        split = [f"router {one['router µs']}, host {one['host µs']}" for one in found if one["host µs"] != "-"]
        cpu = _listed([one["CPU µs a row"] for one in found])
        yield f"| {name} | {_listed([one['rows/s'] for one in found])} | {': '.join([cpu, *split])} |"


def _said(figures: str) -> tuple[str, str, str]:
    found = re.search(r"^(\d+) CPUs \((.+?)\), .*?\nKafka ([\d.]+)", figures, re.MULTILINE | re.DOTALL)
    assert found
    return found[1], found[2], found[3]


def _listed(texts: list[str]) -> str:
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}"


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
