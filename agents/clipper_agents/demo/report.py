"""What a demo found: errors by phase, whether its promises were kept, and a picture of the errors."""

from collections.abc import Iterator, Mapping
from itertools import cycle, pairwise
from typing import NamedTuple

import matplotlib as mpl
import numpy as np

from clipper_agents.demo.scenario import POLICIES, phase_edges
from clipper_agents.observability.exposition import Scrape
from clipper_agents.replay.verdicts import Verification
from clipper_loadgen import LoadReport
from clipper_loadgen.draws import FloatArray
from clipper_stream.evaluation.report.plots import COLOURS, PLOT, panels, png

WINDOW_SHARE, LEAST_WINDOW = 0.04, 50
"""A moving error is about this share of an application's answers: 400 of 10,000."""
FAILURE_COLOUR = COLOURS[1]
POLICY_COLOURS = {"exp3": "#7A7A7A", "exp4": "#111111"}
TICKS = (0, 2, 4, 6, 8, 10, 20, 50, 100)


class DemoResult(NamedTuple):
    """What a run showed.

    Attributes:
        broken: The model that failed, `name:version`: the one with the least validation error.
        errors: As a `DemoRecorder` has them.
        load: What the load generator counted.
        findings: Name, value, and False where it shows that a promise was not kept.
    """

    broken: str
    errors: Mapping[str, FloatArray]
    load: LoadReport
    findings: list[tuple[str, str, bool]]


def findings(
    queries: int, load: LoadReport, metrics: Scrape, uncommitted: Mapping[str, int], verification: Verification
) -> list[tuple[str, str, bool]]:
    """Whether each query was answered once, each feedback counted once, all committed, and the logs lead to the same.

    Args:
        queries: How many should have been sent.
        load: What the load generator counted.
        metrics: What the router had counted when that was over.
        uncommitted: Records that are not committed, by topic.
        verification: The comparison with the logs folded again.
    """
    hits, lookups = (metrics.value(f"clipper_cache_{what}_total") for what in ("hits", "lookups"))
    outcomes = metrics.by("outcome", "clipper_feedback_total")
    counted = ", ".join([f"{load.feedback_sent:,} sent", *(f"{n:,.0f} {outcome}" for outcome, n in outcomes.items())])
    learned = outcomes.get("applied", 0) + outcomes.get("unlearned", 0)
    rows = f"{verification.rows:,} rows of {verification.feedbacks:,} feedbacks"
    verdict = "equal" if verification.equal else "DIFFER FROM"
    return [
        ("cache", f"{hits:,.0f} of {lookups:,.0f} rows were known", True),
        (
            "answers",
            f"{load.answered:,} of {queries:,} queries, {load.duplicates:,} more than once",
            load.answered == load.queries == queries and not load.duplicates,
        ),
        ("feedback", counted, learned == load.feedback_sent),
        ("offsets", f"not committed: {uncommitted}" if uncommitted else "all committed", not uncommitted),
        ("learned", f"{rows} {verdict} the serial fold of the logs", verification.equal),
    ]


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
