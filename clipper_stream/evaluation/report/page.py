"""The page: what is better, by how much, how sure that is, and why to be careful."""

import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from itertools import chain, repeat
from pathlib import Path
from typing import TYPE_CHECKING

from clipper_stream.errors import InvalidSetting, install_command
from clipper_stream.evaluation.results import Estimate, Evaluation

if TYPE_CHECKING:
    from jinja2 import Environment

CAPTIONS = {
    "losses": """What each would have cost
Points are estimates, lines their intervals. An interval of the difference that does not reach 0 tells a candidate
apart from what decided; the intervals of two losses may overlap all the same.""",
    "over_time": """Loss over time
Of each span of the log: what was answered, and what each candidate is estimated to have lost.""",
    "shares": """Who would have answered
Share of the queries that each model is served for, in each span: the weights as they act.""",
}
"""Title, in the first line, and text of each figure."""
SIGNED = "+.4f"
TEMPLATES = Path(__file__).parent / "templates"


def write_page(path: Path, evaluation: Evaluation) -> Path:
    """Write the page to a file; its folder exists.

    Raises:
        InvalidSetting: matplotlib or jinja2 is not installed.
        OSError: the file cannot be written.
    """
    path.write_text(render_page(evaluation), encoding="utf-8")
    return path


def render_page(evaluation: Evaluation) -> str:
    """The page; errors as of `write_page`."""
    try:
        from clipper_stream.evaluation.report.figures import draw_figures  # noqa: PLC0415 (matplotlib takes a second)
        from clipper_stream.evaluation.report.plots import svg  # noqa: PLC0415 (likewise)

        environment = page_environment(TEMPLATES)
    except ImportError as error:
        raise InvalidSetting(f"the page needs {error.name}: {install_command('replay')}") from error
    environment.filters |= {"number": number, "interval": interval}
    return environment.get_template("evaluation.html").render(
        title=f"Replay of {evaluation.application}",
        lead=lead(evaluation),
        results=[evaluation.logged, *evaluation.candidates],
        warnings=[f"{one.name}: {text}" for one in evaluation.candidates for text in one.warnings],
        figures=[(*CAPTIONS[name].split("\n", 1), svg(figure)) for name, figure in draw_figures(evaluation).items()],
        notes=evaluation.notes,
        signed=SIGNED,
    )


def page_environment(*folders: Path) -> "Environment":
    """Return an environment of templates in these folders, in which all texts are escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # noqa: PLC0415 (for pages alone)
    from markupsafe import Markup  # noqa: PLC0415 (likewise)

    found = Environment(loader=FileSystemLoader(folders), autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    found.lstrip_blocks, found.auto_reload = True, False
    found.filters["labelled"] = lambda rows, headings: Markup(labelled(rows, headings))  # noqa: S704 (escaped rows)
    return found


def labelled(rows: str, headings: Sequence[str]) -> str:
    """Return rows of HTML whose cells say the headings of their columns, for style sheets of narrow screens.

    >>> labelled("<tr><th>svm:1</th><td>0.1</td></tr>", ("version", ">loss"))
    '<tr><th data-label="version">svm:1</th><td data-label="loss">0.1</td></tr>'
    """

    def of_row(row: str) -> str:
        names = chain(headings, repeat(""))
        return re.sub("<t[dh](?=[ >])", lambda cell: f'{cell[0]} data-label="{escape(next(names).lstrip(">"))}"', row)

    return "<tr".join(map(of_row, rows.split("<tr")))


def lead(evaluation: Evaluation) -> str:
    """The result in a sentence or two."""
    span = f"{_when(evaluation.since_ms)} to {_when(evaluation.until_ms)} UTC"
    start = (
        f"{evaluation.decisions:,} decisions of {evaluation.logged.name}, {span}; the truth of "
        f"{evaluation.with_feedback:,} of them is known. Their {evaluation.measure} was "
        f"{evaluation.logged.loss.value:.4f}. "
    )
    told = [one for one in evaluation.candidates if one.verdict == "better"]
    if not told:
        return start + "No candidate can be told to be better."
    best = min(told, key=lambda one: one.loss.value)
    low, high = best.difference.low, best.difference.high
    return start + (
        f"{best.name} would have lost {best.loss.value:.4f}: better by {-high:.4f} to "
        f"{-low:.4f}, with {evaluation.confidence:.0%} confidence."
    )


def interval(estimate: Estimate) -> str:
    """An interval as text; `unknown` where there is none."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return "unknown"
    return f"{estimate.low:.4f} to {estimate.high:.4f}"


def number(value: float, how: str = ".4f", otherwise: str = "unknown") -> str:
    """A number as text, in a format; another text where it is not known."""
    return f"{value:{how}}" if math.isfinite(value) else otherwise


def _when(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
