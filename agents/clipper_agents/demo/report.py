"""The files that a demo leaves: one HTML page that needs nothing else, its figures as PNG, and the result as JSON."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from clipper_agents.demo.figures import draw_figures
from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.plan import PHASE_TITLES, PHASES, POLICIES
from clipper_agents.demo.result import DemoRecord, DemoResult
from clipper_agents.demo.summary import numbers, statements
from clipper_stream.evaluation.report.document import (
    bullets,
    captioned,
    cell,
    definitions,
    document,
    paragraph,
    png_image,
    row,
    section,
    table,
)

TITLE = "A model fails, and nobody has to notice"
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
VERIFIED = (
    "Every query was answered exactly once, every feedback was counted once, what was learned is the serial fold of "
    "the logs, and everything is committed."
)


def write_report(result: DemoResult, record: DemoRecord, failed: Sequence[str], folder: Path) -> Path:
    """Draw and write everything; returns the page.

    Args:
        result: The result.
        record: What the run has recorded.
        failed: The checks that failed, from `problems`.
        folder: An existing folder.

    Raises:
        OSError: the folder cannot be written to.
    """
    figures = draw_figures(record)
    for name, png in figures.items():
        (folder / f"{name}.png").write_bytes(png)
    write_json(result, folder / "result.json")
    page = folder / "report.html"
    page.write_text(render_report(result, record, figures, failed), encoding="utf-8")
    return page


def write_json(result: DemoResult, path: Path) -> None:
    """The result as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def render_report(result: DemoResult, record: DemoRecord, figures: Mapping[str, bytes], failed: Sequence[str]) -> str:
    """The page; `figures` are PNG by name, of `CAPTIONS`."""
    lead = (
        f"{result.queries:,} pictures of handwritten digits went through Kafka to two applications over the same five "
        f"models. After a quarter of them the best model, {result.broken_model}, began to answer wrong digits; after "
        f"half of them it was repaired. Only the true digits, sent back as feedback, told the pipeline."
    )
    verdict = paragraph(" ".join(failed), "failed") if failed else paragraph(VERIFIED, "ok")
    policies = "; ".join(_policy(policy, parameters) for policy, parameters in POLICIES.items())
    sections = [
        section(
            "Errors",
            paragraph("Share of wrong answers in each phase, with 95 % Wilson intervals."),
            _errors(result),
            bullets(statements(result)),
        ),
        *(captioned(CAPTIONS[name], png_image(png, name)) for name, png in figures.items()),
        section("The run in numbers", verdict, definitions(numbers(result))),
        section("The models", _models(record.models, result), paragraph(f"Policies: {policies}.")),
        section("How to go on", definitions(NEXT)),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return document(TITLE, lead, sections, footer=f"{versions}, seed {record.plan.seed}")


def _errors(result: DemoResult) -> str:
    rows = [_error_row(policy, errors, "policy") for policy, errors in result.policies.items()]
    for ref, errors in result.single_models.items():
        rows.append(_error_row(f"{ref} alone", errors, "broken" if ref == result.broken_model else ""))
    return table(["", *(PHASE_TITLES[phase] for phase in PHASES)], rows)


def _error_row(name: str, errors: Mapping[str, Any], kind: str) -> str:
    cells = [cell(name)]
    for phase in PHASES:
        low, high = errors[f"interval_{phase}"]
        cells.append(cell(f"{errors[f'error_{phase}']:.1%}", f"{low:.1%} to {high:.1%}"))
    return row(cells, kind)


def _models(models: Sequence[TrainedModel], result: DemoResult) -> str:
    rows = []
    for model in models:
        batch = result.batch[model.ref]
        texts = (f"{model.ref}: {model.title}", f"{model.validation_error:.1%}", batch["mean"], batch["limit_final"])
        rows.append(row((cell(str(text)) for text in texts), "broken" if model.ref == result.broken_model else ""))
    return table(["model", "validation error", "rows a batch", "batch limit at the end"], rows)


def _policy(name: str, parameters: Mapping[str, Any]) -> str:
    return f"{name} with {', '.join(f'{key} {value:g}' for key, value in parameters.items())}"
