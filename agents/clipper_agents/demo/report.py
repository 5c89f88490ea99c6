"""The errors of a demo, by phase and as a picture. Imported when the traffic is over: matplotlib takes 60 MB."""

from collections.abc import Iterator
from itertools import cycle, pairwise

import matplotlib as mpl
import numpy as np

from clipper_agents.demo.scenario import POLICIES, DemoResult, phase_edges
from clipper_loadgen.draws import FloatArray
from clipper_stream.evaluation.report.plots import COLOURS, PLOT, panels, png

WINDOW_SHARE, LEAST_WINDOW = 0.04, 50
"""A moving error is about this share of an application's answers: 400 of 10,000."""
FAILURE_COLOUR = COLOURS[1]
POLICY_COLOURS = {"exp3": "#7A7A7A", "exp4": "#111111"}
TICKS = (0, 2, 4, 6, 8, 10, 20, 50, 100)


def error_rows(result: DemoResult) -> Iterator[list[str]]:
    """The name of each policy and of each model, and its errors by phase in percent; `-` where no query counts."""
    for name, wrong in result.errors.items():
        phases = [wrong[start:stop] for start, stop in pairwise(phase_edges(len(wrong)))]
        counted = [phase[~np.isnan(phase)] for phase in phases]
        shares = [f"{100 * phase.mean():.1f}" if len(phase) else "-" for phase in counted]
        yield [f"{name} broke" if name == result.broken else name, *shares]


def draw_errors(result: DemoResult) -> bytes:
    """Cumulative and moving error, of the policies beside every model alone, as PNG (Clipper, figure 8)."""
    queries = len(result.errors["exp3"])
    _, *failure, end = (edge / 1000 for edge in phase_edges(queries))
    window = max(LEAST_WINDOW, round(WINDOW_SHARE * queries / len(POLICIES)))
    others = cycle([COLOURS[0], *COLOURS[2:5]])
    colours = {name: FAILURE_COLOUR if name == result.broken else next(others) for name in result.errors}
    colours |= POLICY_COLOURS
    with mpl.rc_context(PLOT):
        figure, (left, right) = panels(1, 2, 4.6)
        for axes, of_last in ((left, queries), (right, window)):
            for name, wrong in result.errors.items():
                counted = np.flatnonzero(~np.isnan(wrong))
                width, label = (2.6, name) if name in POLICIES else (1.3, f"{name} alone")
                shares = 100 * moving(wrong[counted], of_last)
                axes.plot(counted / 1000, shares, color=colours[name], lw=width, zorder=1 + width, label=label)
            axes.axvspan(*failure, color=FAILURE_COLOUR, alpha=0.09, lw=0)
            axes.set_yscale("symlog", linthresh=10)
            axes.set(xlim=(0, end), xlabel="queries, thousands", ylim=(0, 110), ylabel="wrong answers, %")
            axes.set_yticks(TICKS, labels=map(str, TICKS))
        left.set_title("Cumulative error")
        right.set_title(f"Error of the last {window} answers")
        figure.legend(*left.get_legend_handles_labels(), loc="outside right center", fontsize=9)
        return png(figure)


def moving(wrong: FloatArray, window: int) -> FloatArray:
    """Share of wrong answers among the last ones up to each one; of fewer at the beginning.

    >>> moving(np.array([1, 0, 1, 1]), window=2).tolist()
    [1.0, 0.5, 0.5, 1.0]
    """
    sums = np.cumsum(wrong)
    sums[window:] -= np.cumsum(wrong)[:-window]
    return sums / np.minimum(np.arange(1, len(wrong) + 1), window)
