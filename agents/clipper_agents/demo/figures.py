"""Four figures of a run. Imported when the traffic is over: matplotlib takes a second and 60 MB."""

from collections.abc import Callable, Sequence
from itertools import cycle
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from clipper_agents.demo.data import FloatArray
from clipper_agents.demo.plan import DemoPlan
from clipper_agents.demo.result import DemoRecord
from clipper_agents.demo.samples import BatchTotals
from clipper_stream.evaluation.report.plots import COLOURS, PLOT, REFERENCE, panels, png

FAILURE_COLOUR, *OTHER_COLOURS = COLOURS[1], COLOURS[0], *COLOURS[2:5]
POLICY_COLOURS = {"exp3": "#7A7A7A", "exp4": "#111111"}
WINDOW_SHARE, LEAST_WINDOW = 0.04, 50
"""A moving error is about this share of an application's answers: 400 of 10,000."""


def draw_figures(record: DemoRecord) -> dict[str, bytes]:
    """Every figure as PNG, by name."""
    draw: dict[str, Callable[[DemoRecord], Figure]] = {
        "errors": errors_figure,
        "weights": weights_figure,
        "batches": batches_figure,
        "latency": latency_figure,
    }
    with mpl.rc_context(PLOT):
        return {name: png(figure(record)) for name, figure in draw.items()}


def errors_figure(record: DemoRecord) -> Figure:
    """Cumulative and moving error, of the policies beside every model alone (Clipper, figure 8)."""
    figure, (left, right) = panels(1, 2, 4.6)
    left.set_title("Cumulative error")
    window = max(LEAST_WINDOW, round(WINDOW_SHARE * record.plan.queries / len(record.scores.policies)))
    right.set_title(f"Error of the last {window} answers")
    scores, colours = record.scores, _model_colours(record)
    lines = {**scores.policies, **{f"{ref} alone": wrong for ref, wrong in scores.models.items()}}
    styles: dict[str, dict[str, Any]] = {
        **{name: {"color": POLICY_COLOURS.get(name, "black"), "lw": 2.6, "zorder": 3} for name in scores.policies},
        **{f"{ref} alone": {"color": colour, "lw": 1.3, "alpha": 0.9} for ref, colour in colours.items()},
    }
    for axes, of_last in ((left, record.plan.queries), (right, window)):
        for name, wrong in lines.items():
            queries = np.flatnonzero(~np.isnan(wrong))
            axes.plot(queries / 1000, 100 * moving(wrong[queries], of_last), label=name, **styles[name])
        _shade(axes, record.plan)
        axes.set_ylabel("wrong answers, %")
        axes.set_yscale("symlog", linthresh=10)
        axes.set_yticks([0, 2, 4, 6, 8, 10, 20, 50, 100], labels=["0", "2", "4", "6", "8", "10", "20", "50", "100"])
        axes.set_ylim(0, 110)
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure


def weights_figure(record: DemoRecord) -> Figure:
    """Share of trust in each model over the run, stacked, a panel a policy."""
    figure, all_axes = panels(1, len(record.scores.policies), 3.9)
    colours = _model_colours(record)
    answered = np.array([sample.answered for sample in record.samples]) / 1000
    for axes, policy in zip(all_axes, record.scores.policies, strict=True):
        weights = [sample.weights(policy) for sample in record.samples]
        shares = [[weight.get(ref, 0.0) for weight in weights] for ref in colours]
        axes.stackplot(answered, shares, colors=list(colours.values()), labels=list(colours), alpha=0.85, lw=0)
        for edge in (record.plan.first_failed, record.plan.first_restored):
            axes.axvline(edge / 1000, color="white", lw=1.6)
            axes.axvline(edge / 1000, color="black", lw=1.2, ls=(0, (4, 3)))
        middle = (record.plan.first_failed + record.plan.first_restored) / 2000
        axes.text(middle, 1.02, f"{record.scores.broken} broken", ha="center", fontsize=9, color=FAILURE_COLOUR)
        axes.set_title(f"{policy}: share of trust", pad=16)
        axes.set_ylim(0, 1)
        _queries_axis(axes, record.plan)
        axes.set_ylabel("weight")
    all_axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, reverse=True)
    return figure


def batches_figure(record: DemoRecord) -> Figure:
    """Batch limits over time, and rows a batch between two samples."""
    figure, (left, right) = panels(1, 2, 3.7)
    at_s = [sample.at_s for sample in record.samples]
    left.set_title("Batch limit by AIMD: grows while batches are fast")
    right.set_title("Rows a batch, as they were")
    for ref, colour in _model_colours(record).items():
        batches = [sample.batches(ref) for sample in record.samples]
        limits = [one.limit or float("nan") for one in batches]  # 0: not reported yet
        left.step(at_s, limits, where="post", label=ref, color=colour, lw=1.7)
        right.plot(at_s, mean_rows(batches), color=colour, lw=1.7)
    for axes, what in ((left, "rows a batch may have"), (right, "rows a batch, mean of a second")):
        axes.set_xlabel("time, s")
        axes.set_ylabel(what)
        axes.set_ylim(bottom=0)
    left.legend(loc="lower right", fontsize=9)
    return figure


def latency_figure(record: DemoRecord) -> Figure:
    """Median and 99th percentile by second, and the distribution over the whole run."""
    figure, (left, right) = panels(1, 2, 3.7)
    known = np.isfinite(record.latencies_s)
    latencies_ms, seconds = 1000 * record.latencies_s[known], np.floor(record.sent_s[known]).astype(int)
    left.set_title("Latency by second")
    times = np.unique(seconds)
    for share, colour in ((50, COLOURS[0]), (99, COLOURS[1])):
        values = [float(np.percentile(latencies_ms[seconds == second], share)) for second in times]
        left.plot(times, values, color=colour, lw=1.8, label=f"p{share}")
    right.set_title("All latencies")
    right.plot(np.sort(latencies_ms), np.linspace(0, 100, len(latencies_ms)), color=COLOURS[0])
    objective = record.plan.objective_ms
    left.axhline(objective, **REFERENCE, label=f"objective, {objective} ms")
    right.axvline(objective, **REFERENCE)
    left.set_xlabel("time, s")
    left.set_ylabel("send to answer, ms")
    left.set_yscale("log")
    left.set_ylim(top=3 * objective)
    left.legend(loc="upper right", fontsize=9)
    right.set_xlabel("send to answer, ms")
    right.set_ylabel("answers, %")
    right.set_xscale("log")
    right.set_ylim(0, 101)
    for axis in (left.yaxis, right.xaxis):
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axis.set_minor_formatter(NullFormatter())
    return figure


def moving(wrong: FloatArray, window: int) -> FloatArray:
    """Share of wrong answers among the last ones up to each one; of fewer at the beginning.

    >>> moving(np.array([1, 0, 1, 1]), window=2).tolist()
    [1.0, 0.5, 0.5, 1.0]
    """
    sums = np.concatenate([[0.0], np.cumsum(wrong)])
    ends = np.arange(1, len(wrong) + 1)
    starts = np.maximum(0, ends - window)
    shares: FloatArray = (sums[ends] - sums[starts]) / (ends - starts)
    return shares


def mean_rows(totals: Sequence[BatchTotals]) -> FloatArray:
    """Mean rows of the batches since the sample before; NaN where there were none."""
    rows = np.diff([one.rows for one in totals], prepend=0.0)
    counts = np.diff([one.count for one in totals], prepend=0.0)
    return np.where(counts > 0, rows / np.maximum(counts, 1), np.nan)


def _model_colours(record: DemoRecord) -> dict[str, str]:
    """Colour by model; the one that fails has the warmest."""
    others = cycle(OTHER_COLOURS)
    return {ref: FAILURE_COLOUR if ref == record.scores.broken else next(others) for ref in record.scores.models}


def _shade(axes: Axes, plan: DemoPlan) -> None:
    axes.axvspan(plan.first_failed / 1000, plan.first_restored / 1000, color=FAILURE_COLOUR, alpha=0.09, lw=0)
    _queries_axis(axes, plan)


def _queries_axis(axes: Axes, plan: DemoPlan) -> None:
    axes.set_xlim(0, plan.queries / 1000)
    axes.set_xlabel("queries, thousands")
