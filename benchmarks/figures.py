"""What did the benchmarks find? Writes figures.md and figures.csv in benchmarks/results, and README's numbers.

python benchmarks/all.py
python benchmarks/figures.py
"""

import argparse
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from all import BENCHMARKS, HERE
from rig.results import Target, target_of
from rig.session import write_table

README = HERE.parent / "README.md"
CONDITIONS_OF_README = (
    "{} cores ({}), Kafka {} on loopback, queries of 64 numbers, a cheap numpy model, one core for the system:"
)
SYSTEMS_OF_README = {
    "this system, model in a host, JSON": "separate-json",
    "this system, model in a host, msgpack, 16 rows a query": "packed-msgpack",
    "this system, model in the router, JSON": "colocated-json",
    "confluent-kafka, a loop by hand": "confluent-pass-through",
    "aiokafka, a loop by hand": "aiokafka-pass-through",
    "Bytewax": "bytewax-pass-through",
    "FastStream": "faststream-pass-through",
    "Quix Streams": "quix-pass-through",
    "MLServer, in its Kafka mode": "mlserver-pass-through",
    "Faust": "faust-pass-through",
    "the same work: this system, model in the router, JSON": "colocated-same-work",
    "the same work: confluent-kafka, a loop by hand": "confluent-same-work",
    "the same work: Bytewax": "bytewax-same-work",
    "the same work: Quix Streams": "quix-same-work",
    "the same work: Faust": "faust-same-work",
}
DIGITS = 3
THOUSAND = 1_000.0
COLUMNS_OF_PAGE = {
    "A": ("rows/s", "CPU µs a row", "router µs", "host µs"),
    "B": ("p50 ms", "p99 ms", "defaults, share", "CPU µs a query"),
}
"""What the page shows of these benchmarks; the table beside it has all of every one."""
HEAD = (
    "# Figures",
    "",
    "Medians of one run of `make bench`, by `benchmarks/figures.py`. [figures.csv](figures.csv) has every figure with",
    "the least and the most of its rounds. [The benchmarks' page](../README.md) says what each one means,",
    "[performance](../../docs/explanation/performance.md) what follows from them.",
    "",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results", metavar="FOLDER")
    results = known(parser.parse_args().results)
    text = "".join(f"{line}\n" for line in page(results))
    file = HERE / "results/figures.md"
    file.write_text(text)
    write_table(file, table(results))
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
    for name, system in SYSTEMS_OF_README.items():
        if (one := known.get(system)) is not None:
            split = "" if one["host µs"] == "-" else f": router {one['router µs']}, host {one['host µs']}"
            yield f"| {name} | {one['rows/s']} | {one['CPU µs a row']}{split} |"


def _said(figures: str) -> tuple[str, str, str]:
    found = re.search(r"^(\d+) CPUs \((.+?)\), .*?\nKafka ([\d.]+)", figures, re.MULTILINE | re.DOTALL)
    assert found
    return found[1], found[2], found[3]


def known(folder: Path) -> dict[str, Any]:
    """The results that are in the folder, by the letter of their benchmark."""
    files = {letter: folder / f"{name}.json" for letter, name in BENCHMARKS.items()}
    return {letter: json.loads(file.read_text()) for letter, file in files.items() if file.exists()}


def page(results: dict[str, Any]) -> Iterator[str]:
    """The lines of the page."""
    yield from HEAD
    yield from _conditions(results)
    yield from ("## Expected and measured", "")
    yield from _targets([target_of(one) for result in results.values() for one in result["targets"]])
    for letter, columns in COLUMNS_OF_PAGE.items():
        if letter in results:
            yield from ("", f"## {letter}: `{BENCHMARKS[letter]}.py`", "")
            yield f"| | {' | '.join(columns)} |"
            yield "|---" * (len(columns) + 1) + "|"
            for row, measures in _rows(results[letter]["summary"]):
                yield f"| {row} | {' | '.join(_cell(measures.get(column)) for column in columns)} |"


def table(results: dict[str, Any]) -> Iterator[list[str]]:
    """Expectations, settings and every measure of every benchmark."""
    yield ["benchmark", "row", "measure", "median", "least", "most", "ratio"]
    for letter, result in results.items():
        for one in map(target_of, result["targets"]):
            yield [letter, "expected", one.what, _plain(one.value), *_bounds(one), ""]
        for name, value in result["conditions"]["settings"].items():
            if value not in (None, False):
                yield [letter, "settings", name, str(value), "", "", ""]
        for row, measures in _rows(result["summary"]):
            for name, value in measures.items():
                if (found := _figures(value)) is not None:
                    yield [letter, row, name, *found]


def _bounds(target: Target) -> tuple[str, str]:
    """Least and most that were expected."""
    return ("", _plain(target.bound)) if target.sense == "<=" else (_plain(target.bound), "")


def _figures(value: Any) -> list[str] | None:
    """Median, least, most and ratio; None where nothing was measured."""
    if not isinstance(value, dict):
        return [_plain(value) if isinstance(value, int | float) else str(value), "", "", ""]
    median, least, most = (value.get(name) for name in ("median", "least", "most"))
    if median is None:
        return None
    ends = ("", "") if least == most else (_plain(least), _plain(most))
    ratio = value.get("ratio")
    return [_plain(median), *ends, "" if ratio is None else f"{ratio:.2f}"]


def _plain(value: float | None) -> str:
    return "" if value is None else _short(value).replace(",", "")


def _conditions(results: dict[str, Any]) -> Iterator[str]:
    said = next(iter(results.values()))["conditions"]
    versions = ", ".join(f"{name} {version}" for name, version in said["versions"].items())
    yield f"{said['cpus']} CPUs ({said['cpu']}), Linux {said['kernel']}, Python {said['python']},"
    yield from (f"Kafka {said['kafka']}; {versions}.", "")


def _targets(targets: list[Target]) -> Iterator[str]:
    """How many expectations were met, and those that were not."""
    missed = [one for one in targets if not one.met]
    yield from (f"{len(targets) - len(missed)} of {len(targets)} expectations were met. These were not:", "")
    yield from ("| | figure | expected | measured |", "|---|---|---|---|")
    for one in missed:
        measured = "-" if one.value is None else _short(one.value)
        yield f"| {one.benchmark} | {one.what} | {one.sense} {_short(one.bound)} | {measured} |"


def _rows(summary: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a summary, and those of the summaries inside it under the name of both."""
    for row, measures in summary.items():
        if all(isinstance(measure, dict) and "median" not in measure for measure in measures.values()):
            yield from ((f"{row}, {inner}", found) for inner, found in measures.items())
        else:
            yield row, measures


def _cell(value: Any) -> str:
    median = value.get("median") if isinstance(value, dict) else value
    return "-" if median is None else _short(median)


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= THOUSAND or value == int(value) else f"{value:.{DIGITS}g}"


if __name__ == "__main__":
    main()
