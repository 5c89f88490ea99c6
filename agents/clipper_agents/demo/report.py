"""What a demo leaves: a summary in the terminal, one HTML page with its figures, and the result as JSON."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clipper_agents.demo.figures import draw_figures
from clipper_agents.demo.models import TrainedModel
from clipper_agents.demo.plan import PHASE_TITLES, PHASES, POLICIES
from clipper_agents.demo.result import DemoResult
from clipper_agents.demo.run_recorder import DemoRecorder
from clipper_stream.evaluation.report import document as html

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
    ("clipper-stream up --config clipper.toml", "a pipeline of your own that stays up; then clipper-stream predict"),
    ("clipper-stream loadgen --help", "load on any application, with percentiles that count stalls"),
)
VERIFIED = (
    "Every query was answered exactly once, every feedback was counted once, what was learned is the serial fold of "
    "the logs, and everything is committed."
)


def print_summary(console: Console, result: DemoResult, failed: Sequence[str]) -> None:
    """Print the errors by phase, the numbers of the run, and every check that failed."""
    errors = Table(title="Errors in %, with 95 % intervals", title_justify="left", header_style="bold")
    errors.add_column("who", no_wrap=True)
    for phase in PHASES:
        errors.add_column(PHASE_TITLES[phase], justify="right", no_wrap=True)
    for name, kind, phases in error_rows(result):
        if name == next(iter(result.single_models)):
            errors.add_section()
        cells = (f"{100 * error:.1f} ({100 * low:.1f}-{100 * high:.1f})" for error, low, high in phases)
        errors.add_row(Text(f"{name} broke" if kind == "broken" else name, "bold" if kind == "policy" else ""), *cells)
    grid = Table.grid(padding=(0, 2))
    for name, value in numbers(result):
        grid.add_row(Text(name, style="dim"), value)
    console.print(errors, grid)
    for line in statements(result):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    for line in failed:
        console.print(Text(f"FAILED {line}", style="bold red"), soft_wrap=True)


def write_report(result: DemoResult, recorder: DemoRecorder, failed: Sequence[str], folder: Path) -> Path:
    """Draw and write everything into an existing folder; returns the page. `failed` is from `problems`.

    Raises:
        OSError: the folder cannot be written to.
    """
    figures = draw_figures(recorder)
    for name, png in figures.items():
        (folder / f"{name}.png").write_bytes(png)
    write_json(result, folder / "result.json")
    page = folder / "report.html"
    page.write_text(render_report(result, recorder, figures, failed), encoding="utf-8")
    return page


def write_json(result: DemoResult, path: Path) -> None:
    """The result as indented JSON."""
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=2) + b"\n")


def render_report(
    result: DemoResult, recorder: DemoRecorder, figures: Mapping[str, bytes], failed: Sequence[str]
) -> str:
    """The page; `figures` are PNG by name, of `CAPTIONS`."""
    lead = (
        f"{result.queries:,} pictures of handwritten digits went through Kafka to two applications over the same five "
        f"models. After a quarter of them the best model, {result.broken_model}, began to answer wrong digits; after "
        f"half of them it was repaired. Only the true digits, sent back as feedback, told the pipeline."
    )
    errors = [
        html.row(
            [html.cell(name), *(html.cell(f"{error:.1%}", f"{low:.1%} to {high:.1%}") for error, low, high in phases)],
            kind,
        )
        for name, kind, phases in error_rows(result)
    ]
    verdict = html.paragraph(" ".join(failed), "failed") if failed else html.paragraph(VERIFIED, "ok")
    policies = "; ".join(
        f"{name} with {', '.join(f'{key} {value:g}' for key, value in parameters.items())}"
        for name, parameters in POLICIES.items()
    )
    sections = [
        html.section(
            "Errors",
            html.paragraph("Share of wrong answers in each phase, with 95 % Wilson intervals. A model stands alone."),
            html.table(["", *(PHASE_TITLES[phase] for phase in PHASES)], errors),
            html.bullets(statements(result)),
        ),
        *(html.captioned(CAPTIONS[name], html.png_image(png, name)) for name, png in figures.items()),
        html.section("The run in numbers", verdict, html.definitions(numbers(result))),
        html.section("The models", _models(recorder.models, result), html.paragraph(f"Policies: {policies}.")),
        html.section("How to go on", html.definitions(NEXT)),
    ]
    versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
    return html.document(TITLE, lead, sections, footer=f"{versions}, seed {recorder.plan.seed}")


def error_rows(result: DemoResult) -> Iterator[tuple[str, str, list[tuple[float, float, float]]]]:
    """Name, kind, and error and its interval by phase, of each policy and of each model alone."""
    kinds = dict.fromkeys(result.policies, "policy") | {result.broken_model: "broken"}
    for name, errors in (result.policies | result.single_models).items():
        yield name, kinds.get(name, ""), [(errors[f"error_{phase}"], *errors[f"interval_{phase}"]) for phase in PHASES]


def numbers(result: DemoResult) -> Iterator[tuple[str, str]]:
    """Name and value of each number of the run."""
    latency, cache = result.latency_ms, result.cache
    yield "queries", f"{result.queries:,} sent, {result.distinct_answered:,} answered, by {result.answered:,} answers"
    yield "latency", ", ".join(f"{name} {value:.0f} ms" for name, value in latency.items() if value is not None)
    yield "throughput", f"{result.throughput_per_s or 0:.0f} answers a second"
    yield "defaults", ", ".join(f"{count} {reason}" for reason, count in result.defaults.items()) or "none"
    yield "cache", f"{cache['hits']:,} of {cache['lookups']:,} rows were known"
    yield "feedback", ", ".join(f"{count:,} {what}" for what, count in result.feedback.items())
    yield "offsets", "all committed" if result.committed else f"not committed: {result.uncommitted}"
    verified = result.verified
    verdict = "equal" if verified["equal"] else "DIFFER FROM"
    yield (
        "verified",
        f"{verified['rows']:,} rows of {verified['feedbacks']:,} feedbacks {verdict} the serial fold of the logs",
    )
    yield "time", f"{result.seconds:.0f} s, of which {result.setup_seconds:.0f} s before the first query"


def statements(result: DemoResult) -> Iterator[str]:
    """The comparisons of policies with single models, a sentence each."""
    for phase, compared in result.ensemble_minus_best_model.items():
        low, high = compared["interval"]
        holds = "no worse within noise" if low <= 0 else "worse"
        yield (
            f"{PHASE_TITLES[phase]}: exp4 less the best single model ({compared['model']}): "
            f"{compared['difference']:+.2%}, 95 % interval {low:+.2%} to {high:+.2%} ({holds})"
        )
    ways = ", ".join(f"{policy} {way:.0%}" for policy, way in result.way_to_broken_model.items())
    yield f"failed: share of the way from the error of the best working model to that of the broken one: {ways}"


def _models(models: Sequence[TrainedModel], result: DemoResult) -> str:
    rows = []
    for model in models:
        batch = result.batch[model.ref]
        texts = (f"{model.ref}: {model.title}", f"{model.validation_error:.1%}", batch["mean"], batch["limit_final"])
        rows.append(
            html.row((html.cell(str(text)) for text in texts), "broken" if model.ref == result.broken_model else "")
        )
    return html.table(["model", "validation error", "rows a batch", "batch limit at the end"], rows)
