"""The page: what is better, by how much, how sure that is, and why to be careful."""

import math
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.report.document import bullets, captioned, cell, document, row, section, table
from clipper_stream.evaluation.results import CandidateResult, ContextResult, Estimate, Evaluation

CAPTIONS = {
    "losses": """What each would have cost
Points are estimates, lines their intervals. An interval of the difference that does not reach 0 tells a candidate
apart from what decided; the intervals of two losses may overlap all the same.""",
    "over_time": """Loss over time
Of each span of the log: what was answered, and what each candidate is estimated to have lost.""",
    "shares": """Who would have answered
Share of the queries that each model is served for, in each span: the weights as they act.""",
    "contexts": """By context
The contexts with the most decisions. A candidate that is better on the whole can be worse for somebody.""",
}
"""Title, in the first line, and text of each figure."""
SIGNED = "+.4f"


def write_page(path: Path, evaluation: Evaluation) -> Path:
    """Write the page to a file.

    Args:
        path: Of the HTML file; its folder exists.
        evaluation: What is shown.

    Raises:
        InvalidSetting: matplotlib is not installed.
        OSError: the file cannot be written.
    """
    path.write_text(render_page(evaluation), encoding="utf-8")
    return path


def render_page(evaluation: Evaluation) -> str:
    """The page; arguments and errors as of `write_page`."""
    results = [evaluation.logged, *evaluation.candidates]
    sections = [
        section("Candidates", _results(results), bullets(_warnings(evaluation))),
        *_figures(evaluation),
        section("Estimates", _estimates(results)),
        *(section(f"{one.name} by context", _contexts(one)) for one in evaluation.candidates if len(one.contexts) > 1),
        section("What was looked at", bullets(evaluation.notes)),
    ]
    return document(f"Replay of {evaluation.application}", lead(evaluation), sections)


def lead(evaluation: Evaluation) -> str:
    """The result in a sentence or two."""
    span = f"{_when(evaluation.since_ms)} to {_when(evaluation.until_ms)} UTC"
    start = (
        f"{evaluation.decisions:,} decisions of {evaluation.logged.name}, {span}; the truth of "
        f"{evaluation.with_feedback:,} of them is known. Their loss was {evaluation.logged.loss.value:.4f}. "
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


def carried_by(one: CandidateResult) -> float:
    """Return how many decisions the estimate rests on; NaN where that is unknown."""
    standing = one.standing
    return standing.carrying if math.isfinite(standing.carrying) else standing.effective


def _figures(evaluation: Evaluation) -> Iterator[str]:
    try:
        from clipper_stream.evaluation.report.figures import draw_figures  # noqa: PLC0415 (likewise)
        from clipper_stream.evaluation.report.plots import svg  # noqa: PLC0415 (matplotlib takes a second)
    except ImportError as error:
        raise InvalidSetting(f"the page needs {error.name}: pip install 'clipper-stream[replay]'") from error
    for name, figure in draw_figures(evaluation).items():
        yield captioned(CAPTIONS[name], svg(figure))


def _warnings(evaluation: Evaluation) -> Iterator[str]:
    return (f"{one.name}: {text}" for one in evaluation.candidates for text in one.warnings)


def _results(results: Sequence[CandidateResult]) -> str:
    head = ("", "kind", "loss", "difference", "", "carried by", "largest weight", "no support")
    return table(head, map(_result_row, results))


def _result_row(one: CandidateResult) -> str:
    is_logged, standing = one.kind == "logged", one.standing
    verdict = "" if is_logged else one.verdict
    cells = (
        cell(one.name),
        cell(one.kind, kind="text"),
        cell(number(one.loss.value), f"{interval(one.loss)}, {one.made_by}"),
        cell("") if is_logged else cell(number(one.difference.value, SIGNED), interval(one.difference)),
        cell(verdict, kind=verdict if verdict in {"better", "worse"} else ""),
        cell(number(carried_by(one), ",.0f", "")),
        cell(number(standing.largest_weight, ".1f", "")),
        cell(number(standing.unsupported_ratio, ".1%", "")),
    )
    return row(cells, "policy" if is_logged else "")


def _estimates(results: Sequence[CandidateResult]) -> str:
    rows = (_estimate_row(one, name) for one in results for name in one.estimates)
    return table(("candidate", "estimator", "loss", "interval", "made by"), rows)


def _estimate_row(one: CandidateResult, name: str) -> str:
    found = one.estimates[name]
    return row(map(cell, (one.name, name, number(found.value), interval(found), found.interval.replace("_", " "))))


def _contexts(one: CandidateResult) -> str:
    return table(("context", "decisions", "logged", "candidate", "difference"), map(_context_row, one.contexts))


def _context_row(each: ContextResult) -> str:
    name = "without" if each.context is None else each.context
    plain = (name, f"{each.decisions:,}", number(each.logged), number(each.candidate))
    return row([*map(cell, plain), cell(number(each.difference.value, SIGNED), interval(each.difference))])


def _when(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
