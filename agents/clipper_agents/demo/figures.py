"""Four figures of a run. Imported when the traffic is over: matplotlib takes a second and 60 MB."""

from itertools import cycle, pairwise
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from clipper_agents.demo.plan import OBJECTIVE_MS, DemoPlan
from clipper_agents.demo.result import score
from clipper_agents.demo.run_recorder import DemoRecorder
from clipper_loadgen.draws import FloatArray
from clipper_stream.evaluation.report.plots import COLOURS, PLOT, REFERENCE, panels, png

FAILURE_COLOUR, *OTHER_COLOURS = COLOURS[1], COLOURS[0], *COLOURS[2:5]
POLICY_COLOURS = {"exp3": "#7A7A7A", "exp4": "#111111"}
WINDOW_SHARE, LEAST_WINDOW = 0.04, 50
"""A moving error is about this share of an application's answers: 400 of 10,000."""
DASHED = (0, (4, 3))


def draw_figures(recorder: DemoRecorder) -> dict[str, bytes]:
    """Every figure as PNG, by name."""
    with mpl.rc_context(PLOT):
        return {
            "errors": png(errors_figure(recorder)),
            "weights": png(weights_figure(recorder)),
            "batches": png(batches_figure(recorder)),
            "latency": png(latency_figure(recorder)),
        }


def errors_figure(recorder: DemoRecorder) -> Figure:
    """Cumulative and moving error, of the policies beside every model alone (Clipper, figure 8)."""
    figure, (left, right) = panels(1, 2, 4.6)
    policies, models = score(recorder)
    queries, colours = recorder.plan.queries, _model_colours(recorder)
    window = max(LEAST_WINDOW, round(WINDOW_SHARE * queries / len(policies)))
    left.set_title("Cumulative error")
    right.set_title(f"Error of the last {window} answers")
    for axes, of_last in ((left, queries), (right, window)):
        for name, wrong in (policies | models).items():
            style: dict[str, Any] = {"color": POLICY_COLOURS.get(name), "lw": 2.6, "zorder": 3, "label": name}
            if name in models:
                style = {"color": colours[name], "lw": 1.3, "alpha": 0.9, "label": f"{name} alone"}
            counted = np.flatnonzero(~np.isnan(wrong))
            axes.plot(counted / 1000, 100 * moving(wrong[counted], of_last), **style)
        _mark_failure(axes, recorder.plan)
        axes.set(ylabel="wrong answers, %", ylim=(0, 110))
        axes.set_yscale("symlog", linthresh=10)
        axes.set_yticks([0, 2, 4, 6, 8, 10, 20, 50, 100], labels=["0", "2", "4", "6", "8", "10", "20", "50", "100"])
    figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=9)
    return figure


def weights_figure(recorder: DemoRecorder) -> Figure:
    """Share of trust in each model over the run, stacked, a panel a policy."""
    figure, all_axes = panels(1, len(POLICY_COLOURS), 3.9)
    plan, colours = recorder.plan, _model_colours(recorder)
    answered = np.array([sample.answered for sample in recorder.samples]) / 1000
    for axes, policy in zip(all_axes, POLICY_COLOURS, strict=True):
        weights = [sample.weights(policy) for sample in recorder.samples]
        shares = [[weight.get(ref, 0.0) for weight in weights] for ref in colours]
        axes.stackplot(answered, shares, colors=list(colours.values()), labels=list(colours), alpha=0.85, lw=0)
        _mark_failure(axes, plan)
        axes.text(
            sum(plan.edges[1:3]) / 2000,
            1.02,
            f"{recorder.broken} broken",
            ha="center",
            fontsize=9,
            color=FAILURE_COLOUR,
        )
        axes.set_title(f"{policy}: share of trust", pad=16)
        axes.set(ylim=(0, 1), ylabel="weight")
    all_axes[-1].legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9, reverse=True)
    return figure


def batches_figure(recorder: DemoRecorder) -> Figure:
    """Batch limits over time, and rows a batch between two samples."""
    figure, (left, right) = panels(1, 2, 3.7)
    samples = recorder.samples
    at_s = [sample.at_s for sample in samples]
    for ref, colour in _model_colours(recorder).items():
        limits = [sample.batches(ref)["limit_final"] or np.nan for sample in samples]  # 0: not reported yet
        rows = [later.batches(ref, since=earlier)["mean"] or np.nan for earlier, later in pairwise(samples)]
        left.step(at_s, limits, where="post", label=ref, color=colour, lw=1.7)
        right.plot(at_s[1:], rows, color=colour, lw=1.7)
    left.set(title="Batch limit by AIMD: grows while batches are fast", ylabel="rows a batch may have")
    right.set(title="Rows a batch, as they were", ylabel="rows a batch, mean of a second")
    for axes in (left, right):
        axes.set(xlabel="time, s", ylim=(0, None))
    left.legend(loc="lower right", fontsize=9)
    return figure


def latency_figure(recorder: DemoRecorder) -> Figure:
    """Median and 99th percentile by second, and the distribution over the whole run."""
    figure, (left, right) = panels(1, 2, 3.7)
    latencies_s, sent_s = recorder.run.ledger.latencies_s(), np.array(recorder.run.ledger.due_s) - recorder.run.start_s
    known = np.isfinite(latencies_s)
    latencies_ms, seconds = 1000 * latencies_s[known], np.floor(sent_s[known]).astype(int)
    times = np.unique(seconds)
    for share, colour in ((50, COLOURS[0]), (99, COLOURS[1])):
        values = [float(np.percentile(latencies_ms[seconds == second], share)) for second in times]
        left.plot(times, values, color=colour, lw=1.8, label=f"p{share}")
    left.axhline(OBJECTIVE_MS, **REFERENCE, label=f"objective, {OBJECTIVE_MS} ms")
    left.set(title="Latency by second", xlabel="time, s", ylabel="send to answer, ms", yscale="log")
    left.set_ylim(top=3 * OBJECTIVE_MS)
    left.legend(loc="upper right", fontsize=9)
    right.plot(np.sort(latencies_ms), np.linspace(0, 100, len(latencies_ms)), color=COLOURS[0])
    right.axvline(OBJECTIVE_MS, **REFERENCE)
    right.set(title="All latencies", xlabel="send to answer, ms", ylabel="answers, %", xscale="log", ylim=(0, 101))
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


def _model_colours(recorder: DemoRecorder) -> dict[str, str]:
    """Colour by model; the one that fails has the warmest."""
    others = cycle(OTHER_COLOURS)
    return {ref: FAILURE_COLOUR if ref == recorder.broken else next(others) for ref in recorder.model_digits}


def _mark_failure(axes: Axes, plan: DemoPlan) -> None:
    """Shade the queries of the failure, on an axis of all queries."""
    edges = [edge / 1000 for edge in plan.edges[1:3]]
    axes.axvspan(*edges, color=FAILURE_COLOUR, alpha=0.09, lw=0)
    for edge in edges:
        axes.axvline(edge, color="black", lw=1.2, ls=DASHED)
    axes.set(xlim=(0, plan.queries / 1000), xlabel="queries, thousands")
