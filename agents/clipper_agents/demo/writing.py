"""The files that a demo leaves: a report, its figures, the result."""

from pathlib import Path

import msgspec

from clipper_agents.demo.figures import draw_figures
from clipper_agents.demo.plan import DemoPlan
from clipper_agents.demo.report import render_report
from clipper_agents.demo.result import DemoResult
from clipper_agents.demo.running import Finished


def write_report(finished: Finished, plan: DemoPlan, failed: list[str], folder: Path) -> Path:
    """Draw and write everything; the page.

    Raises:
        OSError: the folder cannot be written to.
    """
    figures = draw_figures(finished.story)
    for name, png in figures.items():
        (folder / f"{name}.png").write_bytes(png)
    write_json(finished.result, folder / "result.json")
    page = folder / "report.html"
    page.write_text(render_report(finished.result, plan, finished.models, figures, failed), encoding="utf-8")
    return page


def write_json(result: DemoResult, path: Path) -> None:
    """The result as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")
