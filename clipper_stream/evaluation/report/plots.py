"""What the figures of a report are drawn with: panels, colours, a time axis, an SVG or a PNG.

Without pyplot, so that there is no window and no global state.
"""

import io
import re
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from clipper_stream.evaluation.report.style import COLOURS, DASHES, SVG


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of the number-th of several lines."""
    return {"color": COLOURS[number % len(COLOURS)], "ls": DASHES[number // len(COLOURS) % len(DASHES)]}


def panels(rows: int, columns: int, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the page, and its panels row by row."""
    figure = Figure(figsize=(11.5, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns, **shared)).ravel())


def times(at_ms: Sequence[int]) -> Any:
    """Return times as matplotlib takes them."""
    return np.asarray(at_ms, "datetime64[ms]")


def time_axis(axes: Axes) -> None:
    """Times in UTC below the panel, as short as they can be said."""
    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def interval_rows(axes: Axes, names: Sequence[str], points: Sequence[tuple[float, float, float]], **style: Any) -> None:
    """A point with its interval in each row, the first on top.

    Args:
        axes: The panel.
        names: Of the rows.
        points: Value, low and high of each.
        **style: Of all of them.
    """
    places = np.arange(len(names))[::-1]
    values, lows, highs = (np.array(column, float) for column in zip(*points, strict=True))
    axes.hlines(places, lows, highs, lw=2.2, **style)
    axes.plot(values, places, "o", ms=6, **style)
    axes.set_yticks(places, labels=list(names))
    axes.set_ylim(-0.6, len(names) - 0.4)


def png(figure: Figure) -> bytes:
    """Return the figure as a PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()


def svg(figure: Figure) -> str:
    """The figure as an element for a page: without prologue, metadata and addresses of anything."""
    buffer = io.StringIO()
    with mpl.rc_context(SVG):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    element = buffer.getvalue()
    element = re.sub(r"<metadata>.*?</metadata>", "", element[element.index("<svg") :], flags=re.DOTALL)
    return (
        re.sub(r' xmlns="[^"]*"', "", element)
        .replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
        .replace("xlink:href", "href")
    )
