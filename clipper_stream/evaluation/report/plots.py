"""What the figures of a report are drawn with: panels, colours, a time axis, an SVG or a PNG.

Without pyplot, so that there is no window and no global state.
"""

import io
import re
import warnings
from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure

from clipper_stream.evaluation.results import Estimate

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#111111", "#B8A800")
"""Of Okabe and Ito, the yellow darker: told apart also by readers who do not see all colours."""
LOGGED_COLOUR = "#555555"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1)))
"""When the colours come again, with other lines."""
REFERENCE: dict[str, Any] = {"color": LOGGED_COLOUR, "lw": 1, "ls": (0, (4, 3))}
"""Of a line that values are compared with."""
PLOT: dict[Any, Any] = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.dpi": 110,
    "font.size": 10.5,
    "grid.color": "#E8E8E8",
    "legend.frameon": False,
    "text.parse_math": False,
}
"""Settings of matplotlib."""
SVG: dict[Any, Any] = {**PLOT, "svg.fonttype": "none", "svg.hashsalt": "clipper-stream", "font.family": "sans-serif"}
"""The same for an SVG inside a page: text stays text, and the same figures give the same bytes."""


def line_style(number: int) -> dict[str, Any]:
    """Colour and dashes of the number-th of several lines."""
    return {"color": COLOURS[number % len(COLOURS)], "ls": DASHES[number // len(COLOURS) % len(DASHES)]}


def panels(rows: int, columns: int, height: float, **shared: Any) -> tuple[Figure, list[Axes]]:
    """A figure as wide as the page, and its panels row by row."""
    figure = Figure(figsize=(11.5, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns, **shared)).ravel())


def times(at_ms: Sequence[int]) -> Any:
    """Times as matplotlib takes them."""
    return np.asarray(at_ms, "datetime64[ms]")


def time_axis(axes: Axes) -> None:
    """Times in UTC below the panel, as short as they can be said."""
    locator = AutoDateLocator(minticks=3, maxticks=7)  # type: ignore[no-untyped-call]
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]


def interval_rows(axes: Axes, names: Sequence[str], estimates: Sequence[Estimate], **style: Any) -> None:
    """A named row for each estimate, a point with its interval, the first on top."""
    places = np.arange(len(names))[::-1]
    axes.hlines(places, [one.low for one in estimates], [one.high for one in estimates], lw=2.2, **style)
    axes.plot([one.value for one in estimates], places, "o", ms=6, **style)
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
    with mpl.rc_context(SVG), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # text stays text: the browser has fonts for any script
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    element = buffer.getvalue()
    element = re.sub(r"<metadata>.*?</metadata>", "", element[element.index("<svg") :], flags=re.DOTALL)
    return (
        re.sub(r' xmlns="[^"]*"', "", element)
        .replace(' xmlns:xlink="http://www.w3.org/1999/xlink"', "")
        .replace("xlink:href", "href")
    )
