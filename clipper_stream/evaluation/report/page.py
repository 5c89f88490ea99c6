"""The page: what is better, by how much, how sure that is, and why to be careful."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from string import Template

from clipper_stream.errors import InvalidSetting
from clipper_stream.evaluation.report.style import PAGE
from clipper_stream.evaluation.results import CandidateResult, ContextResult, Estimate, Evaluation

CAPTIONS = {
    "losses": """What each would have cost
Points are estimates, lines their intervals. An interval of the difference that does not reach 0 tells a candidate
apart from what decided; the intervals of two losses may overlap all the same.""",
    "over_time": """Loss over time
Of each span of the log: what was answered, and what each candidate is estimated to have lost.""",
    "shares": """Who would have answered
Share of the queries that each model is served for, in each span: the weights as they act.""",
    "estimators": """All estimators
They assume different things: IPS only that the logged probabilities are right, DM only that the losses that are
predicted from the log are, DR one of the two. Where they agree, any of them will do. Where they part, read the
warnings.""",
    "contexts": """By context
The contexts with the most decisions. A candidate that is better on the whole can be worse for somebody.""",
    "calibration": """Confidence
A confidence is calibrated when answers of confidence 0.9 are right nine times of ten: then the points lie on the
dashed line, and a threshold on it means what it says.""",
}
"""Title, in the first line, and text of each figure."""
DOCUMENT = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title><style>$style</style></head><body><main>
<h1>$title</h1>
<p class="lead">$lead</p>
<section><h2>Candidates</h2><div class="wide">$results</div>$warnings</section>
$figures
<section><h2>Estimates</h2><div class="wide">$estimates</div></section>
$contexts
<section><h2>What was looked at</h2><ul>$notes</ul></section>
</main></body></html>
""")
PROMILLE = 4  # digits after the point: losses differ by tenths of a percent


def write_page(path: Path, evaluation: Evaluation) -> Path:
    """Write the page.

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
    return DOCUMENT.substitute(
        title=escape(f"Replay of {evaluation.application}"),
        style=PAGE,
        lead=escape(lead(evaluation)),
        results=_table(
            ("", "kind", "loss", "difference", "", "carried by", "largest weight", "no support"),
            [_result_row(one) for one in results],
        ),
        warnings=_list([f"{one.name}: {text}" for one in evaluation.candidates for text in one.warnings]),
        figures=_figures(evaluation),
        estimates=_table(
            ("candidate", "estimator", "loss", "interval", "made by"),
            [_estimate_row(one, name) for one in results for name in one.estimates],
        ),
        contexts="".join(_contexts(one) for one in evaluation.candidates if len(one.contexts) > 1),
        notes="".join(f"<li>{escape(note)}</li>" for note in evaluation.notes),
    )


def lead(evaluation: Evaluation) -> str:
    """The result in a sentence or two."""
    span = f"{_when(evaluation.since_ms)} to {_when(evaluation.until_ms)} UTC"
    start = (
        f"{evaluation.decisions:,} decisions of {evaluation.logged.name}, {span}; the truth of "
        f"{evaluation.with_feedback:,} of them is known. Their loss was {evaluation.logged.loss.value:.{PROMILLE}f}. "
    )
    told = [one for one in evaluation.candidates if one.verdict == "better"]
    if not told:
        return start + "No candidate can be told to be better."
    best = min(told, key=lambda one: one.loss.value)
    low, high = best.difference.low, best.difference.high
    return start + (
        f"{best.name} would have lost {best.loss.value:.{PROMILLE}f}: better by {-high:.{PROMILLE}f} to "
        f"{-low:.{PROMILLE}f}, with {evaluation.confidence:.0%} confidence."
    )


def interval(estimate: Estimate) -> str:
    """An interval as text; `unknown` where there is none."""
    if not (math.isfinite(estimate.low) and math.isfinite(estimate.high)):
        return "unknown"
    return f"{estimate.low:.{PROMILLE}f} to {estimate.high:.{PROMILLE}f}"


def carried_by(one: CandidateResult) -> float:
    """How many decisions the estimate rests on; NaN where it is none."""
    standing = one.standing
    return standing.carrying if math.isfinite(standing.carrying) else standing.effective


def _figures(evaluation: Evaluation) -> str:
    try:
        from clipper_stream.evaluation.report.figures import draw_figures  # noqa: PLC0415 (likewise)
        from clipper_stream.evaluation.report.plots import svg  # noqa: PLC0415 (matplotlib takes a second)
    except ImportError as error:
        raise InvalidSetting(f"the page needs {error.name}: pip install 'clipper-stream[replay]'") from error
    parts = []
    for name, figure in draw_figures(evaluation).items():
        title, _, text = CAPTIONS[name].partition("\n")
        parts.append(
            f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p><figure>{svg(figure)}</figure></section>\n"
        )
    return "".join(parts)


def _result_row(one: CandidateResult) -> str:
    is_logged = one.kind == "logged"
    standing = one.standing
    verdict = "" if is_logged else one.verdict
    cells = [
        f"<td>{escape(one.name)}</td>",
        f'<td class="text">{escape(one.kind)}</td>',
        f"<td>{_number(one.loss.value)}<br><small>{interval(one.loss)}, {escape(one.headline)}</small></td>",
        "<td></td>"
        if is_logged
        else f"<td>{_signed(one.difference.value)}<br><small>{interval(one.difference)}</small></td>",
        f'<td class="{verdict if verdict in {"better", "worse"} else ""}">{verdict}</td>',
        f"<td>{_count(carried_by(one))}</td>",
        f"<td>{_weight(standing.largest_weight)}</td>",
        f"<td>{_share(standing.unsupported_ratio)}</td>",
    ]
    return f'<tr class="{"policy" if is_logged else ""}">{"".join(cells)}</tr>'


def _estimate_row(one: CandidateResult, name: str) -> str:
    found = one.estimates[name]
    cells = (one.name, name, _number(found.value), interval(found), found.interval.replace("_", " "))
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>"


def _contexts(one: CandidateResult) -> str:
    rows = [_context_row(each) for each in one.contexts]
    table = _table(("context", "decisions", "logged", "candidate", "difference"), rows)
    return f'<section><h2>{escape(one.name)} by context</h2><div class="wide">{table}</div></section>'


def _context_row(each: ContextResult) -> str:
    name = "without" if each.context is None else each.context
    difference = f"{_signed(each.difference.value)} <small>{interval(each.difference)}</small>"
    plain = (name, f"{each.decisions:,}", _number(each.logged), _number(each.candidate))
    return f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in plain)}<td>{difference}</td></tr>"


def _table(head: Sequence[str], rows: Sequence[str]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _list(lines: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{escape(line)}</li>' for line in lines)}</ul>" if lines else ""


def _number(value: float) -> str:
    return f"{value:.{PROMILLE}f}" if math.isfinite(value) else "unknown"


def _signed(value: float) -> str:
    return f"{value:+.{PROMILLE}f}" if math.isfinite(value) else "unknown"


def _count(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else ""


def _weight(value: float) -> str:
    return f"{value:.1f}" if math.isfinite(value) else ""


def _share(value: float) -> str:
    return f"{value:.1%}" if math.isfinite(value) else ""


def _when(at_ms: int) -> str:
    return f"{datetime.fromtimestamp(at_ms / 1000, UTC):%Y-%m-%d %H:%M:%S}"
