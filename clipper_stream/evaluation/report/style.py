"""How plots and pages look, in one place."""

from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#111111", "#B8A800")
"""Of Okabe and Ito, the yellow darker: told apart also by readers who do not see all colours."""
LOGGED_COLOUR = "#555555"
DASHES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1)))
"""When the colours come again, with other lines."""
PLOT: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#B0B0B0",
    "axes.grid": True,
    "axes.labelcolor": "#333333",
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "figure.dpi": 110,
    "font.size": 10.5,
    "grid.color": "#E8E8E8",
    "legend.frameon": False,
    "xtick.color": "#555555",
    "ytick.color": "#555555",
}
"""Settings of matplotlib."""
SVG: dict[Any, Any] = {**PLOT, "svg.fonttype": "none", "svg.hashsalt": "clipper-stream", "font.family": "sans-serif"}
"""The same for an SVG inside a page: text stays text, and the same figures give the same bytes."""
PAGE = """
:root { color-scheme: light; }
body { font: 16px/1.55 system-ui, sans-serif; color: #222; background: #f6f6f4; margin: 0; }
main { max-width: 1080px; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; margin: 0 0 .3rem; } h2 { font-size: 1.25rem; margin: 0 0 .4rem; }
p { max-width: 46rem; margin: .4rem 0 1rem; } .lead { font-size: 1.08rem; color: #444; }
section { background: #fff; border: 1px solid #e4e4e0; border-radius: 10px; padding: 1.4rem 1.6rem; margin: 1.2rem 0; }
img { width: 100%; height: auto; display: block; } figure { margin: 0; } figure svg { width: 100%; height: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .95rem; }
th, td { text-align: right; padding: .35rem .7rem; border-bottom: 1px solid #ececea; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; padding-left: 0; } thead th { color: #666; font-weight: 600; }
td small { color: #777; } tr.policy td:first-child { font-weight: 700; } tr.broken td { color: #b34700; }
td.text { text-align: left; white-space: normal; }
.wide { overflow-x: auto; } dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: 0; }
dt { color: #666; } dd { margin: 0; } code { background: #f1f1ee; padding: .1rem .35rem; border-radius: 4px; }
.ok, .better { color: #1a7f4b; font-weight: 600; } .failed, .worse { color: #b3261e; font-weight: 600; }
footer { color: #777; font-size: .85rem; }
"""
"""Of a page."""
