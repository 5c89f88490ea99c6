"""What did the benchmarks find? Writes the figures of `all.py` into every page that has some.

    python benchmarks/all.py
    python benchmarks/figures.py               # as the first one does at its end
    python benchmarks/figures.py --table       # the pages alone, from the table that is there

`results/figures.csv` has every figure of the results. In pages, figures stand between marks: those of one of `BLOCKS`
behind `<!-- figures: NAME -->`, and single ones behind `<!-- = BENCHMARK; ROW; MEASURE -->`.
"""

import argparse
import csv
import json
import re
import textwrap
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from all import BENCHMARKS, HERE, RESULTS
from rig.results import MET, MISSED, target_of
from rig.session import write_table

PAGE = RESULTS / "figures.md"
"""Every table of the figures, beside their CSV file."""
PAGES = (
    PAGE,
    HERE / "README.md",
    HERE.parent / "README.md",
    HERE.parent / "docs/explanation/performance.md",
    HERE.parent / "docs/how-to/size-it.md",
    HERE.parent / "docs/how-to/three-machines.md",
)
BLOCK = re.compile(r"(?<=<!-- figures: )(\S+)( -->\n).*?(?=<!-- end of figures -->)", re.DOTALL)
FIGURE = re.compile(r"(?<=<!-- = )([^;]+); ([^;]+); (.+?)( -->).*?(?=<!-- end -->)")
EXPECTED, RUN, CONDITIONS = "expected", "run", "conditions"
"""Rows of the table that are of no summary."""
SYSTEMS_OF_README = {
    "this system, model in a host, JSON": "separate-json",
    "this system, model in a host, msgpack, 16 rows a query": "packed-msgpack",
    "this system, model in the router, JSON": "colocated-json",
    "confluent-kafka, a loop by hand": "confluent-pass-through",
    "Bytewax": "bytewax-pass-through",
    "the same work: this system, model in the router, JSON": "colocated-same-work",
    "the same work: Bytewax": "bytewax-same-work",
    "images, a net: this system, net in the router, JSON": "net-json",
    "images, a net: Kafka Streams": "kafka-streams-net",
    "images, a net: Flink": "flink-net",
}
COLUMNS = {
    "A": ("rows/s", "CPU µs a row", "router µs", "host µs", "rows per CPU s"),
    "B": ("p50 ms", "p99 ms", "answers/s", "defaults, share", "CPU µs a query"),
    "L": ("p50 ms", "p99 ms", "answers/s", "rows/s", "CPU µs a query", "gateway CPU µs"),
    "H": ("first answer, s", "recovery, s", "read a second"),
    "reading": ("decisions/s", "CPU µs a decision", "peak MiB of a process"),
}
"""What pages show of these benchmarks; the table beside them has all of every one."""
DIGITS = 3
THOUSAND = 1_000.0
WIDTH = 120
LOOP = ("A", "aiokafka-pass-through", "CPU µs a row")
"""The calibration: how fast the machine was."""


class Figure(NamedTuple):
    """A row of the table; that of an expectation has its bound as `least` or `most`, and `ratio` says how it ended."""

    benchmark: str
    row: str
    measure: str
    median: str
    least: str = ""
    most: str = ""
    ratio: str = ""


Figures = list[Figure]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="write the pages from results/figures.csv, and not that")
    if not parser.parse_args().table:
        files = {letter: RESULTS / f"{each.script}.json" for letter, each in BENCHMARKS.items()}
        results = {letter: json.loads(file.read_text()) for letter, file in files.items() if file.exists()}
        write_table(PAGE, [Figure._fields, *table(results)])
    figures = read_table()
    for page in PAGES:
        page.write_text(with_figures(page.read_text(), figures))


def read_table() -> Figures:
    with PAGE.with_suffix(".csv").open(encoding="utf-8", newline="") as file:
        return [Figure(*row) for row in csv.reader(file)][1:]


# --- the table ------------------------------------------------------------------------------------------------------
def table(results: Mapping[str, Any]) -> Iterator[Figure]:
    """Conditions, and runs, settings, expectations and every measure of each benchmark.

    A result that `all.py` has not made says not of which run it is, and is left out.
    """
    results = {letter: result for letter, result in results.items() if RUN in result}
    yield from _conditions([result[CONDITIONS] for result in results.values()])
    for letter, result in results.items():
        yield from (Figure(letter, RUN, name, str(value)) for name, value in result[RUN].items())
        for one in map(target_of, result["targets"]):
            bound = ("", _plain(one.bound)) if one.sense == "<=" else (_plain(one.bound), "")
            yield Figure(letter, EXPECTED, one.what, _plain(one.value), *bound, MET if one.met else MISSED)
        for name, value in result[CONDITIONS]["settings"].items():
            if value not in (None, False):
                yield Figure(letter, "settings", name, str(value))
        for row, measures in _rows(result["summary"]):
            for name, value in measures.items():
                if (found := _figures(value)) is not None:
                    yield Figure(letter, row, name, *found)


def _conditions(several: list[dict[str, Any]]) -> Iterator[Figure]:
    """Those of the first benchmark, and the rivals of all."""
    for name in ("cpus", "cpu", "kernel", "python", "kafka"):
        yield Figure("", CONDITIONS, name, str(several[0][name]))
    versions = [f"{package} {version}" for package, version in several[0]["versions"].items()]
    yield Figure("", CONDITIONS, "versions", ", ".join(versions))
    rivals = {one for each in several for one in each.get("rivals", ())}
    yield Figure("", CONDITIONS, "rivals", ", ".join(sorted(rivals)))


def _rows(summary: dict[str, dict[str, Any]]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a summary, and those of the summaries inside it under the name of both."""
    for row, measures in summary.items():
        if all(isinstance(measure, dict) and "median" not in measure for measure in measures.values()):
            yield from ((f"{row}, {inner}", found) for inner, found in measures.items())
        else:
            yield row, measures


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


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= THOUSAND or value == int(value) else f"{value:.{DIGITS}g}"


# --- pages ----------------------------------------------------------------------------------------------------------
def with_figures(text: str, figures: Figures) -> str:
    """The page with these figures between its marks."""

    def block(found: re.Match[str]) -> str:
        return f"{found[1]}{found[2]}" + "".join(f"{line}\n" for line in ("", *BLOCKS[found[1]](figures), ""))

    def figure(found: re.Match[str]) -> str:
        return f"{found[1]}; {found[2]}; {found[3]}{found[4]}{cell(figures, found[1], found[2], found[3])}"

    return FIGURE.sub(figure, BLOCK.sub(block, text))


def cell(figures: Figures, letter: str, row: str, measure: str) -> str:
    """A median as pages have it; `-` where nothing was measured."""
    return next((shown(one.median) for one in figures if one[:3] == (letter, row, measure)), "-")


def shown(text: str) -> str:
    """A number of the table as pages have it."""
    try:
        return _short(float(text)) if text else "-"
    except ValueError:
        return text


def conditions(figures: Figures, *, versions: bool = False) -> Iterator[str]:
    """Machine and run, what is of another run, and what has no result."""
    runs = {letter: _run(figures, letter) for letter in BENCHMARKS}
    began = [run["began"] for run in runs.values() if run]
    main = max(began, key=began.count, default="")
    of_main = [run for run in runs.values() if run.get("began") == main]
    minutes = sum(float(run["took_s"]) for run in of_main) / 60
    others = [f"{letter} (begun at {run['began']})" for letter, run in runs.items() if run and run["began"] != main]
    absent = [letter for letter, each in BENCHMARKS.items() if each.minutes and not runs[letter]]
    text = f"{_measured(figures, of_main[0])} The run took {minutes:.0f} minutes."
    text += f" **Of other runs: {', '.join(others)}.**" if others else ""
    text += f" **Without a result: {', '.join(absent)}.**" if absent else ""
    if versions:
        found = _said(figures)
        text += f" Linux {found['kernel']}, Python {found['python']}, {found['versions']}. Rivals: {found['rivals']}."
    yield from _wrapped(text)


def readme(figures: Figures) -> Iterator[str]:
    """Throughput beside other ways to do it."""
    text = "Queries of 64 numbers or images of 784, a cheap model, one core for the system."
    yield from (*_wrapped(f"{_measured(figures, _run(figures, 'A'))} {text}"), "")
    yield from rows(figures, "A", ("rows/s", "CPU µs a row"), SYSTEMS_OF_README)


def _measured(figures: Figures, run: Mapping[str, str]) -> str:
    """The machine of a run, how idle it was, and how fast."""
    found, long = _said(figures), "long " if run.get("long") == str(True) else ""
    return (
        f"Medians of a {long}run of `make bench` on {found['cpus']} CPUs ({found['cpu']}), Kafka {found['kafka']}, "
        f"begun at {run.get('began', '-')} with a load average of {run.get('load', '-')}. A bare loop of aiokafka took "
        f"{cell(figures, *LOOP)} µs of CPU a record."
    )


def shares(figures: Figures) -> Iterator[str]:
    """What each benchmark has of the half hour, and took."""
    shared = {letter: each for letter, each in BENCHMARKS.items() if each.minutes}
    took_s = {letter: float(run["took_s"]) for letter in shared if (run := _run(figures, letter))}
    yield from ("| | | share, minutes | took | options |", "|---|---|---|---|---|")
    for letter, each in shared.items():
        took = f"{took_s[letter] / 60:.1f}" if letter in took_s else "-"
        yield f"| {letter} | `{each.script}.py` | {each.minutes:g} | {took} | `{each.short or '-'}` |"
    yield f"| | all | {sum(each.minutes for each in shared.values()):g} | {sum(took_s.values()) / 60:.1f} | |"


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, break_on_hyphens=False, break_long_words=False)


def _said(figures: Figures) -> dict[str, str]:
    return {one.measure: one.median for one in figures if one.row == CONDITIONS}


def _run(figures: Figures, letter: str) -> dict[str, str]:
    return {one.measure: one.median for one in figures if (one.benchmark, one.row) == (letter, RUN)}


def goals(figures: Figures, without: Collection[str] = ()) -> Iterator[str]:
    """Every expectation of all benchmarks but these."""
    found = [one for one in figures if one.row == EXPECTED and one.benchmark not in without]
    met = sum(one.ratio == MET for one in found)
    yield from (
        f"{met} of {len(found)} goals were met.",
        "",
        "| | figure | goal | measured | |",
        "|---|---|---|---|---|",
    )
    for one in found:
        yield f"| {one.benchmark} | {one.measure} | {_bound(one)} | {shown(one.median)} | {_mark(one)} |"


def _bound(goal: Figure) -> str:
    return f"<= {shown(goal.most)}" if goal.most else f">= {shown(goal.least)}"


def _mark(goal: Figure) -> str:
    return f"**{MISSED}**" if goal.ratio == MISSED else MET


def rows(
    figures: Figures, letter: str, columns: Iterable[str] = (), names: Mapping[str, str] | None = None
) -> Iterator[str]:
    """A table of one benchmark, with the goals of each row.

    Args:
        figures: The table.
        letter: Of the benchmark.
        columns: Measures; absent: those of `COLUMNS`.
        names: Rows by what they are called; absent: all.
    """
    columns = [*(columns or COLUMNS[letter])]
    found = [one for one in figures if one.benchmark == letter]
    goals = [one for one in found if one.row == EXPECTED]
    measured = dict.fromkeys(one.row for one in found if one.measure in columns and one.row != "settings")
    yield f"| | {' | '.join(columns)} | goals |"
    yield "|---" * (len(columns) + 2) + "|"
    for name, row in (names or dict(zip(measured, measured, strict=True))).items():
        said = [
            f"{one.measure.removeprefix(f'{row}: ')}: {shown(one.median)} (goal {_bound(one)}), {_mark(one)}"
            for one in goals
            if one.measure.startswith(f"{row}: ")
        ]
        cells = [cell(found, letter, row, column) for column in columns]
        yield f"| {name} | {' | '.join(cells)} | {'; '.join(said)} |"


TABULATED = ("A", "B", "L", "H", "reading")
BLOCKS: dict[str, Callable[[Figures], Iterator[str]]] = {
    "conditions": conditions,
    "versions": partial(conditions, versions=True),
    "goals": goals,
    "other-goals": partial(goals, without=TABULATED),
    "readme": readme,
    "shares": shares,
    **{letter: partial(rows, letter=letter) for letter in TABULATED},
}


if __name__ == "__main__":
    main()
