"""Does anything grow? Half an hour at half of the rate that the pipeline sustains, with feedback and contexts.

    python benchmarks/soak.py --json results/soak.json --page benchmarks/results/soak.md      # 35 minutes: `make soak`
    python benchmarks/soak.py --quick

One router with a colocated model, one host, an embedded Kafka (`configs/soak.toml`), and `clipper-stream loadgen`: a
thousand contexts, a label for every answer after 50 ms, a fifth of the inputs repeated. First the load is stepped up
until more than 1 % of the answers are defaults: the last step before is the rate that is sustained, and the soak has
half of it. Every five seconds: resident memory, open files and lag of each process, and the size of each kind of state
on disk. The page of the router's state is `docs/explanation/delivery.md`.

Flat means: the most in the last third is at most a tenth above the most in the middle third, when everything that has a
bound has reached it. A bound of its own has: the cache (its budget), and the decisions (what two horizons of
predictions take, and one write buffer a database). The broker's own disk grows until its retention of seven days, and
is not looked at.
"""

import argparse
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rig.metrics import counters
from rig.predictions import last_records
from rig.processes import memory_mib_by_process, role, tree
from rig.results import Target, show, single
from rig.session import Session, finish, parsed, said, session, system_options
from rig.systems import Place, pipeline, tables_of

from clipper_agents.broker.properties import free_port
from clipper_agents.streaming.databases import WRITE_BUFFER_BYTES

CONFIG, APPLICATION = "soak.toml", "soak"
HORIZON_S, CACHE_MIB, PARTITIONS = 180, 2, 4
MIB = 1 << 20
COUNTED = {
    "lag": ("clipper_consumer_lag",),
    "in flight": ("clipper_in_flight",),
    "cached MiB": ("clipper_cache_bytes",),
}
STATES = ("decisions", "cache", "rows")
ENTRY_BYTES = 120
"""Keys and offsets of a decision and of its credit."""
FEW_FILES, FEW_RECORDS, FEW_MIB = 8, 2_000, 4.0
"""What may come and go of open files (compactions), of lag (what is on its way), and of disk."""
QUICK = {"minutes": 0.05, "chunk": 3.0, "steps": [100.0], "step_seconds": 1.0, "every": 0.3}
Sample = dict[str, Any]


def main() -> None:
    options = arguments()
    with session(options) as here:
        run = said(soaked(here, options))
    found = summary(run)
    show(f"{run['minutes']:g} minutes at {run['rate']:,.0f} queries a second", found, [run])
    if options.page:
        options.page.write_text(page(run), encoding="utf-8")
        plot(run, options.page.with_suffix(".svg"))
    finish(options, [run], found, targets(run))
    sys.exit(not options.quick and not all(target.met for target in targets(run)))


def soaked(here: Session, options: argparse.Namespace) -> dict[str, Any]:
    place, port = here.place("soak"), free_port()
    with pipeline(place, CONFIG, f"router.metrics_port={port}") as roots:
        sustained, steps = sustained_rate(place, options)
        rate, samples, reports = sustained / 2, [], []
        with sampling(lambda: sample(place, roots, port), options.every, samples):
            runs = max(1, round(options.minutes * 60 / options.chunk))
            reports += [load(place, rate, options.chunk, seed=1_000 + number) for number in range(runs)]
        last = [record.value() or b"" for record in last_records(place.connection, place.catalogue.predictions)]
    return {
        "system": "soak",
        "minutes": options.minutes,
        "chunk": options.chunk,
        "sustained": sustained,
        "steps": steps,
        "rate": rate,
        "prediction_bytes": sum(map(len, last)) / len(last),
        "queries": sum(report["queries"] for report in reports),
        "missing": sum(report["missing"] for report in reports),
        "feedback": sum(report["feedback_sent"] for report in reports),
        "reports": reports,
        "samples": samples,
    }


def sustained_rate(place: Place, options: argparse.Namespace) -> tuple[float, list[dict[str, Any]]]:
    """The last step of which at most 1 % of the answers are defaults, and all steps."""
    steps, best = [], options.steps[0]
    load(place, options.steps[0], options.step_seconds, seed=0)  # the first minute of a broker is slow
    for number, rate in enumerate(options.steps):
        report = load(place, rate, options.step_seconds, seed=1 + number)
        steps.append({"rate": rate, "default_ratio": report["default_ratio"], "p99_ms": report["latency"]["p99_ms"]})
        if report["default_ratio"] > 0.01 or report["missing"]:
            break
        best = rate
    return best, steps


def load(place: Place, rate: float, seconds: float, seed: int) -> dict[str, Any]:
    """`clipper-stream loadgen` on the rig's processors; its report."""
    words = ["--application", APPLICATION, "--rate", rate, "--seconds", seconds, "--contexts", 1_000]
    words += ["--repeats", 0.2, "--feedback-delay-ms", 50, "--seed", seed, "--bootstrap", place.connection.bootstrap]
    words += ["--set", f"kafka.prefix={place.catalogue.prefix}", "--set", f"kafka.partitions={PARTITIONS}"]
    command = [sys.executable, "-m", "clipper_agents.cli.main", "loadgen", *map(str, words), "--json", "-"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"loadgen ended with exit code {done.returncode}: {done.stderr[-2_000:]}")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


# --- looking ------------------------------------------------------------------------------------------------------
@contextmanager
def sampling(look: Callable[[], Sample], every_s: float, samples: list[Sample]) -> Iterator[None]:
    """Look again and again while the block runs."""
    over, began_s = threading.Event(), time.monotonic()

    def work() -> None:
        while not over.wait(every_s):
            samples.append({"at_s": round(time.monotonic() - began_s, 1), **look()})

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def sample(place: Place, roots: Sequence[int], port: int) -> Sample:
    memory = {f"{who} MiB": sizes["rss"] for (who, _), sizes in memory_mib_by_process(roots).items()}
    files = {f"{role(pid)} files": count for pid in tree(roots[0]) if (count := _open_files(pid)) is not None}
    folder = tables_of(place) / "router"
    disk = dict.fromkeys((f"{state} MiB" for state in STATES), 0.0)
    for path, size in _sizes(folder):
        state = next((part for part in path.parts if part in STATES), "rows")
        disk[f"{state} MiB"] += size / MIB
    return {name: round(value, 2) for name, value in {**memory, **files, **disk, **_metrics(port)}.items()}


def _open_files(pid: int) -> int | None:
    with suppress(OSError):
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return None


def _sizes(folder: Path) -> Iterator[tuple[Path, int]]:
    for path in folder.rglob("*"):
        with suppress(OSError):  # a file of the database, gone meanwhile
            if path.is_file():
                yield path.relative_to(folder), path.stat().st_size


def _metrics(port: int) -> dict[str, float]:
    found = counters(port, COUNTED)
    return {**found, "cached MiB": found["cached MiB"] / MIB}


# --- judging ------------------------------------------------------------------------------------------------------
def series(run: dict[str, Any], name: str) -> list[float]:
    return [one[name] for one in run["samples"] if name in one]


def names(run: dict[str, Any]) -> list[str]:
    return [name for name in run["samples"][-1] if name != "at_s"]


def thirds(values: Sequence[float]) -> tuple[float, float]:
    """The most in the middle third and in the last one."""
    third = len(values) // 3
    return max(values[third : 2 * third]), max(values[2 * third :])


def summary(run: dict[str, Any]) -> dict[str, dict[str, Any]]:
    found = {}
    for name in names(run):
        values = series(run, name)
        middle, last = thirds(values)
        columns = {"at first": values[0], "most, middle third": middle, "most, last third": last}
        found[name] = {key: single(value) for key, value in columns.items()}
    return found


def slack(name: str) -> float:
    if name.endswith("MiB"):
        return FEW_MIB
    return FEW_FILES if name.endswith("files") else FEW_RECORDS


def targets(run: dict[str, Any]) -> list[Target]:
    found = [_target("queries without an answer", run["missing"], 0)]
    for name in names(run):
        middle, last = thirds(series(run, name))
        found += [_target(f"{name}: the last third's most", last, round(1.1 * middle + slack(name), 1))]
    found.append(_target("cache, MiB", max(series(run, "cached MiB")), CACHE_MIB * PARTITIONS))
    found.append(_target("decisions on disk, MiB", max(series(run, "decisions MiB")), round(decisions_bound(run), 1)))
    return found


def decisions_bound(run: dict[str, Any]) -> float:
    """Two horizons of predictions and credits, as large as they are, and the buffers of two databases a partition."""
    size = run["prediction_bytes"] + ENTRY_BYTES
    buffers = 2 * PARTITIONS * WRITE_BUFFER_BYTES
    return float(2 * HORIZON_S * run["rate"] * size + buffers) / MIB


def _target(what: str, value: float, bound: float) -> Target:
    return Target(benchmark="soak", what=what, value=value, sense="<=", bound=bound)


# --- showing ------------------------------------------------------------------------------------------------------
def page(run: dict[str, Any]) -> str:
    """The page of figures."""
    steps = ", ".join(f"{one['rate']:,.0f}/s ({100 * one['default_ratio']:.2f} % defaults)" for one in run["steps"])
    defaults = sum(sum(report["defaults"].values()) for report in run["reports"])
    p99 = [report["latency"]["p99_ms"] for report in run["reports"]]
    lines = [
        "# Soak",
        "",
        "Made by `make soak` (`benchmarks/soak.py`, which says what is done).",
        "",
        f"{run['minutes']:g} minutes at {run['rate']:,.0f} queries a second: {run['queries']:,} queries,",
        f"{run['missing']} without an answer, {defaults} defaults, {run['feedback']:,} feedbacks.",
        f"Steps to the sustained rate of {run['sustained']:,.0f}/s: {steps}.",
        f"p99 of each {run['chunk']:g} s: {', '.join(_number(value) for value in p99)} ms.",
        "",
        "![memory, open files, disk and lag over the time](soak.svg)",
        "",
        "| | at first | most, middle third | most, last third |",
        "|---|---|---|---|",
    ]
    for name, columns in summary(run).items():
        lines.append(f"| {name} | {' | '.join(_number(cell['median']) for cell in columns.values())} |")
    expected = targets(run)
    missed = [target for target in expected if not target.met]
    lines += ["", f"{len(expected) - len(missed)} of {len(expected)} expectations were met."]
    if missed:
        lines += ["", "| expected | at most | measured |", "|---|---|---|"]
    lines += [f"| {one.what} | {_number(one.bound)} | {_number(one.value)} |" for one in missed]
    return "\n".join(lines) + "\n"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value == int(value) or value >= 1_000 else f"{value:.1f}"


def plot(run: dict[str, Any], file: Path) -> None:
    """Memory, open files, disk, and lag, each over the time."""
    import matplotlib as mpl  # noqa: PLC0415 (only for the page)

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "soak"
    from matplotlib import pyplot as plt  # noqa: PLC0415 (after the choice of what draws)

    figure, axes = plt.subplots(2, 2, figsize=(10, 6), layout="constrained")
    groups: dict[str, Iterable[str]] = {
        "resident memory, MiB": [f"{who} MiB" for who in ("router", "host", "supervisor")],
        "open files": [f"{who} files" for who in ("router", "host", "supervisor")],
        "router's disk and cache, MiB": [*(f"{state} MiB" for state in STATES), "cached MiB"],
        "records": ["lag", "in flight"],
    }
    for axis, (title, shown) in zip(axes.flat, groups.items(), strict=True):
        for name in shown:
            points = [(one["at_s"] / 60, one[name]) for one in run["samples"] if name in one]
            axis.plot(*zip(*points, strict=True), label=name.removesuffix(" MiB").removesuffix(" files"), linewidth=1)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.legend(fontsize=8, frameon=False)
        axis.spines[["top", "right"]].set_visible(False)
    for axis in axes[-1]:
        axis.set_xlabel("minutes")
    figure.savefig(file, metadata={"Date": None})


def arguments() -> argparse.Namespace:
    parser = system_options(__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--chunk", type=float, default=300.0, help="seconds of one run of the load generator")
    parser.add_argument("--steps", type=float, nargs="+", default=[250.0, 500.0, 1_000.0, 1_500.0, 2_000.0, 3_000.0])
    parser.add_argument("--step-seconds", type=float, default=15.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two samples")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page of figures, and its plot beside it")
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
