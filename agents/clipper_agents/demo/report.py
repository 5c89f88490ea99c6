"""The report as one HTML file that needs nothing else: images inside, no script, no network."""

import base64
from collections.abc import Mapping
from html import escape
from string import Template
from typing import Any

from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.phases import PHASES, TITLES
from clipper_agents.demo.plan import POLICIES, DemoPlan
from clipper_agents.demo.result import DemoResult
from clipper_agents.demo.summary import numbers, statements
from clipper_stream.evaluation.report.style import PAGE as PAGE_STYLE

CAPTIONS = {
    "errors": """Who was wrong how often
Each thin line is one model alone, as the ensemble's log has it; the thick lines are what the applications got. In the
shaded part the best model answers wrong digits. A policy's error rises for a moment and falls back to that of the next
best model; after the repair it returns. (The scale is logarithmic above 10 %.)""",
    "weights": """Whom the policies trusted
exp3 asks one model a query and learns from that one; exp4 asks all and weighs their votes. Both learn only from the
true digits, which come back some time after each answer. Both forget, so that the repaired model is trusted again.""",
    "batches": """How the hosts batched
Each model has a process of its own, which adapts the largest batch to a latency target: a step up after a few full
batches that were all fast, a tenth less after a slow one (AIMD, as in TCP).""",
    "latency": """How long answers took
From the moment at which a query was sent until its answer was read: through Kafka to the router, to the hosts, back to
the router, and back.""",
}
"""Title, in the first line, and text of each figure."""

NEXT = (
    ("clipper-stream demo --queries 5000 --rate 150 --seed 1", "the same, shorter, gentler, with other data"),
    ("clipper-stream up --config examples/clipper.toml", "a pipeline that stays up; then clipper-stream predict"),
    ("clipper-stream loadgen --help", "load on any application, with percentiles that count stalls"),
)
PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>clipper-stream demo</title><style>$style</style></head><body><main>
<h1>A model fails, and nobody has to notice</h1>
<p class="lead">$lead</p>
<section><h2>Errors</h2><p>Share of wrong answers in each phase, with 95&nbsp;% Wilson intervals.</p>
<div class="wide">$errors</div><ul>$statements</ul></section>
$figures
<section><h2>The run in numbers</h2><p class="$verdict_class">$verdict</p><dl>$numbers</dl></section>
<section><h2>The models</h2><div class="wide">$models</div><p>Policies: $policies.</p></section>
<section><h2>How to go on</h2><ul>$next</ul></section>
<footer>$versions</footer>
</main></body></html>
""")


def render_report(
    result: DemoResult,
    plan: DemoPlan,
    models: list[TrainedModel],
    figures: Mapping[str, bytes],
    failed: list[str],
) -> str:
    """The page.

    Args:
        result: What came out.
        plan: What was done.
        models: The models.
        figures: PNG by name, of `CAPTIONS`.
        failed: What did not hold.
    """
    lead = (
        f"{result.queries:,} pictures of handwritten digits went through Kafka to two applications over the same five "
        f"models. After a quarter of them the best model, {result.broken_model}, began to answer wrong digits; after "
        f"half of them it was repaired. Only the true digits, sent back as feedback, told the pipeline."
    )
    return PAGE.substitute(
        style=PAGE_STYLE,
        lead=escape(lead),
        errors=_errors(result),
        statements="".join(f"<li>{escape(line)}</li>" for line in statements(result)),
        figures="".join(_figure(name, png) for name, png in figures.items()),
        verdict_class="failed" if failed else "ok",
        verdict=escape(" ".join(failed))
        or "Every query was answered exactly once, every feedback was counted once, what was learned is the "
        "serial fold of the logs, and everything is committed.",
        numbers="".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in numbers(result)),
        models=_models(models, result),
        policies="; ".join(_policy(policy, parameters) for policy, parameters in POLICIES.items()),
        next="".join(f"<li><code>{escape(command)}</code> {escape(text)}</li>" for command, text in NEXT),
        versions=escape(
            ", ".join(f"{name} {version}" for name, version in result.versions.items()) + f", seed {plan.seed}"
        ),
    )


def _figure(name: str, png: bytes) -> str:
    title, _, text = CAPTIONS[name].partition("\n")
    image = base64.b64encode(png).decode()
    return (
        f"<section><h2>{escape(title)}</h2><p>{escape(text)}</p>"
        f'<img alt="{escape(title)}" src="data:image/png;base64,{image}"></section>\n'
    )


def _errors(result: DemoResult) -> str:
    rows = [_row(policy, errors, "policy") for policy, errors in result.policies.items()]
    for ref, errors in result.single_models.items():
        rows.append(_row(f"{ref} alone", errors, "broken" if ref == result.broken_model else ""))
    return _table(["", *(TITLES[phase] for phase in PHASES)], rows)


def _row(name: str, errors: Mapping[str, Any], kind: str) -> str:
    cells = [f"<td>{escape(name)}</td>"]
    for phase in PHASES:
        low, high = errors[f"interval_{phase}"]
        cells.append(f"<td>{errors[f'error_{phase}']:.1%} <small>{low:.1%} to {high:.1%}</small></td>")
    return f'<tr class="{kind}">{"".join(cells)}</tr>'


def _models(models: list[TrainedModel], result: DemoResult) -> str:
    rows = []
    for model in models:
        batch = result.batch[model.ref]
        cells = (f"{model.ref}: {model.title}", f"{model.validation_error:.1%}", batch["mean"], batch["limit_final"])
        kind = "broken" if model.ref == result.broken_model else ""
        rows.append(f'<tr class="{kind}">{"".join(f"<td>{escape(str(cell))}</td>" for cell in cells)}</tr>')
    return _table(["model", "validation error", "rows a batch", "batch limit at the end"], rows)


def _table(head: list[str], rows: list[str]) -> str:
    titles = "".join(f"<th>{escape(title)}</th>" for title in head)
    return f"<table><thead><tr>{titles}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _policy(name: str, parameters: Mapping[str, Any]) -> str:
    return f"<b>{escape(name)}</b> with {escape(', '.join(f'{key} {value:g}' for key, value in parameters.items()))}"
