"""The figures of an evaluation. Needs matplotlib, which the extra `replay` brings."""

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from clipper_stream.evaluation.report.plots import (
    COLOURS,
    LOGGED_COLOUR,
    REFERENCE,
    SVG,
    interval_rows,
    line_style,
    panels,
    time_axis,
    times,
)
from clipper_stream.evaluation.results import Evaluation

MOST_PANELS = 6
"""Of a figure with a panel a candidate; the tables of the page have all of them."""


def draw_figures(evaluation: Evaluation) -> dict[str, Figure]:
    """Every figure for which there is something to draw, by name, in the order of the page."""
    with mpl.rc_context(SVG):
        figures = {draw.__name__: draw(evaluation) for draw in (losses, over_time, shares)}
    return {name: figure for name, figure in figures.items() if figure is not None}


def losses(evaluation: Evaluation) -> Figure | None:
    """Loss of each candidate with its interval, beside what was logged; and the difference."""
    results = [evaluation.logged, *evaluation.candidates]
    figure, (left, right) = panels(1, 2, 1.4 + 0.42 * len(results))
    interval_rows(left, [one.name for one in results], [one.loss for one in results], color=COLOURS[0])
    left.axvline(evaluation.logged.loss.value, **REFERENCE)
    left.set_title("Loss")
    if evaluation.candidates:
        names = [one.name for one in evaluation.candidates]
        interval_rows(right, names, [one.difference for one in evaluation.candidates], color=COLOURS[1])
    right.axvline(0.0, **REFERENCE)
    right.set_title("Difference to what was logged")
    for axes in (left, right):
        axes.set_xlabel("lower is better")
    return figure


def over_time(evaluation: Evaluation) -> Figure | None:
    """Loss over the time of the log."""
    known = [one for one in (evaluation.logged, *evaluation.candidates) if len(one.series.at_ms) > 1]
    if not known:
        return None
    figure, (axes,) = panels(1, 1, 4.2)
    for number, one in enumerate(known):
        style = {"color": LOGGED_COLOUR, "lw": 2.6} if one.kind == "logged" else {**line_style(number - 1), "lw": 1.6}
        axes.plot(times(one.series.at_ms), np.array(one.series.loss, float), label=one.name, **style)
    axes.set_ylabel("loss")
    axes.set_ylim(bottom=0)
    time_axis(axes)
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), fontsize=9)
    return figure


def shares(evaluation: Evaluation) -> Figure | None:
    """Which models would have answered, over time, a panel a candidate."""
    results = [one for one in (evaluation.logged, *evaluation.candidates) if one.series.shares][:MOST_PANELS]
    if not results:
        return None
    models = list(dict.fromkeys(model for one in results for model in one.series.shares))
    columns = min(3, len(results))
    rows = -(-len(results) // columns)
    figure, all_axes = panels(rows, columns, 0.6 + 2.5 * rows, sharey=True)
    for unused in all_axes[len(results) :]:
        unused.set_axis_off()
    for axes, one in zip(all_axes, results, strict=False):
        parts = [np.nan_to_num(one.series.shares.get(model, [0.0] * len(one.series.at_ms))) for model in models]
        axes.stackplot(
            times(one.series.at_ms), parts, labels=models, alpha=0.85, lw=0,
            colors=[COLOURS[number % len(COLOURS)] for number in range(len(models))],
        )  # fmt: skip
        axes.set_title(one.name, fontsize=10)
        axes.set_ylim(0, 1)
        time_axis(axes)
    handles, names = all_axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside right upper", fontsize=9, reverse=True)
    return figure
