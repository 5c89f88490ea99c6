"""How does the latency grow with the load, from one query at a time to nine tenths of saturation?

    python benchmarks/latency_steps.py --page benchmarks/results/latency-steps.md      # about nine minutes

The four systems of `latency.py`, one after the other on one broker. A pipeline's saturation is found first. Then the
load rises in twelve steps of the same ratio from 50 queries/s to nine tenths of it, and the echo with as many hops gets
the same steps. Latencies count from the intended send time. From 5,000/s on the generator sends every 5 ms, which is
part of the latency of both: with a request for each query or two its own queue would be what is measured.

`rig` is the share of their CPU that broker and generator used together: above 0.8 the queue before them counts, in the
echo as in the pipeline.
"""

import argparse
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import numpy as np
from latency import MEASURES, SATURATION, TICK_S, load_name, load_options, paced, saturating
from rig.measuring import loaded, warm_broker
from rig.results import Run, summary
from rig.session import finish, parsed, said, session, write_page, write_table
from rig.systems import RIVAL_OF, SYSTEMS, Place

LEAST_PER_S, MOST_SHARE = 50.0, 0.9
TICKS_FROM_PER_S = 5_000
LARGE = 100
"""Figures from here on have no decimals."""
COLUMNS = ("p50_ms", "p90_ms", "p99_ms", "p99.9_ms")
QUICK = {"steps": 2, "queries": 2_000, "outstanding": 500, "seconds": 0.4, "warmup": 0.1, "warm": 0}


def main() -> None:
    options = arguments()
    runs: list[Run] = []
    with session(options) as here:
        warm_broker(here, options.warm)
        for name, rival in RIVAL_OF.items():
            rates: list[float] = []
            for number, system in enumerate((name, rival)):
                runs += steps(system, here.place(f"s{number}-{system}"), here.broker, rates, options)
    header = ["system", "queries/s", *(column.removesuffix("_ms") + " ms" for column in COLUMNS), "rig"]
    table = [[run["system"], *(_figure(run[name]) for name in ("rate", *COLUMNS, "rig_cpu"))] for run in runs]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|", *(f"| {' | '.join(row)} |" for row in table)]
    print("\n".join(lines))
    if options.page is not None:
        plotted = options.page.with_suffix(".svg")
        plot(runs, plotted)
        picture = f"![Latency by the load, beside an echo]({plotted.name})\n"
        write_page(options.page, "Latency by the load", "", picture, __doc__, lines)
        write_table(options.page, [header, *table])
    finish(options, runs, summary(runs, MEASURES), [])


def steps(
    system: str, place: Place, broker: list[int], rates: list[float], options: argparse.Namespace
) -> Iterator[Run]:
    """Every step on one system; a pipeline fills `rates`, and its echo gets the same."""
    with SYSTEMS[system](place) as roots:
        if not rates:
            most = said(
                {"system": system, "load": SATURATION, **loaded(saturating(system, 1, options), place, roots, broker)}
            )
            highest = max(LEAST_PER_S, MOST_SHARE * (most["throughput_per_s"] or 0.0))
            rates += np.geomspace(LEAST_PER_S, highest, options.steps).round().tolist()
        for seed, rate in enumerate(rates, 2):
            tick_s = TICK_S if rate >= TICKS_FROM_PER_S else 0.0
            plan = paced(system, "digits", rate, seed, options, tick_s)
            about = {"system": system, "load": load_name(f"{rate:g}"), "rate": rate}
            yield said({**about, **loaded(plan, place, roots, broker)})


def _figure(value: float | None) -> str:
    """A figure as the page has it; a percentile of which some queries were lost has none."""
    return "-" if value is None else f"{value:,.0f}" if value >= LARGE else f"{value:.3g}"


def plot(runs: list[Run], file: Path) -> None:
    """Percentiles by the load: a pipeline's lines are full, its echo's are dashed."""
    import matplotlib as mpl  # noqa: PLC0415 (only for the page)

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "latency steps"
    from matplotlib import pyplot as plt  # noqa: PLC0415 (after the choice of what draws)

    figure, axes = plt.subplots(1, len(RIVAL_OF), figsize=(10.0, 4.5), layout="constrained", sharey=True)
    found = {name: [*some] for name, some in groupby(runs, key=lambda run: run["system"])}
    for axis, (name, rival) in zip(axes, RIVAL_OF.items(), strict=True):
        for column, colour in zip(COLUMNS, ("tab:blue", "tab:green", "tab:orange", "tab:red"), strict=True):
            for system, style in ((name, "-o"), (rival, "--")):
                points = [(run["rate"], run[column] or np.nan) for run in found[system]]
                label = column.removesuffix("_ms") + (f", {rival}" if system == rival else "")
                axis.plot(*zip(*points, strict=True), style, color=colour, markersize=3, linewidth=1, label=label)
        axis.set(xscale="log", yscale="log", title=name, xlabel="queries a second", ylabel="latency, ms")
        axis.legend(fontsize="x-small")
    figure.savefig(file, metadata={"Date": None})
    plt.close(figure)


def arguments() -> argparse.Namespace:
    parser = load_options(__doc__)
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the page of the figures, and its plot beside")
    parser.add_argument("--steps", type=int, default=12)
    return parsed(parser, QUICK)


if __name__ == "__main__":
    main()
