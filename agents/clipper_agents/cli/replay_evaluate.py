"""`clipper-stream replay evaluate`: what another policy, ensemble or model would have done."""

import asyncio
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.options import ApplicationName, Horizon, Json, Since, Until, require_extra, span_from
from clipper_agents.cli.terminal import console, print_json, progress, say

if TYPE_CHECKING:
    from clipper_agents.replay.span import Span
    from clipper_stream.evaluation.log.parquet import FileFacts


@with_deployment
def evaluate(
    deployment: DeploymentContext,
    application: ApplicationName,
    candidates: Annotated[
        list[str],
        typer.Option(
            "--candidate",
            metavar="TEXT",
            help="exp3, exp3:eta=0.2, thompson of svm:1+svm:2, svm:2, ensemble svm:1+knn:1, split:svm:1=0.9,knn:1=0.1, "
            "frozen exp3; repeatable.",
        ),
    ],
    *,
    log: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What `replay export` wrote, without Kafka; absent: read Kafka.")
    ] = None,
    answers: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="What `replay score` wrote: a new model, which is then a candidate's too."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Of `selection export`: what candidates begin with; absent: nothing."),
    ] = None,
    confidence: Annotated[float, typer.Option(metavar="RATIO", help="Of every interval.")] = 0.95,
    courses: Annotated[int, typer.Option(min=1, metavar="N", help="Ways of a learning candidate through the log.")] = 3,
    seed: Annotated[int, typer.Option(metavar="N", help="Of everything that is drawn.")] = 0,
    report: Annotated[Path | None, typer.Option(metavar="FILE", help="Write a page with plots, .html.")] = None,
    save: Annotated[Path | None, typer.Option(metavar="FILE", help="Write the evaluation as JSON, too.")] = None,
    as_json: Json = False,
    since: Since = None,
    until: Until = None,
    horizon: Horizon = None,
) -> None:
    """Estimate what candidates would have lost on logged decisions, beside what was lost; lower is better.

    How to read it: explanation/off-policy-evaluation.md.
    """
    require_extra("replay", "duckdb", "pyarrow", *(["jinja2", "matplotlib"] if report else []))
    import msgspec

    from clipper_agents.cli.evaluation_view import show_evaluation
    from clipper_agents.replay.evaluate import LogFile, evaluate_file
    from clipper_stream.evaluation.question import Question

    if log is not None and (since or until or horizon):
        raise typer.BadParameter("--log is read whole: export a shorter span instead of --since, --until, --horizon")
    question = Question(confidence=confidence, courses=courses, seed=seed)
    span = span_from(since, until, horizon, deployment.settings.router.horizon_s)
    with decision_file(deployment, application, log, span) as path, progress(f"evaluating {application}"):
        opened = LogFile.opened(path, answers or ())
        if application != opened.facts.application:
            other = f"the file holds decisions of {opened.facts.application}, not of {application}"
            raise typer.BadParameter(f"{other}: give another file, or name")
        found = evaluate_file(opened, candidates, question, state)
    if report is not None:
        from clipper_stream.evaluation.report import write_page

        write_page(report, found)
    if save is not None:
        save.write_bytes(msgspec.json.encode(found))
    if as_json:
        print_json(found)
        return
    show_evaluation(console(), found)
    if report is not None:
        say(f"page: {report}")


@contextmanager
def decision_file(deployment: DeploymentContext, application: str, log: Path | None, span: "Span") -> Iterator[Path]:
    """The file of the decisions; what is read from Kafka is kept in one for the time of the evaluation."""
    if log is not None:
        yield log
        return
    with tempfile.TemporaryDirectory(prefix="clipper-replay-") as folder:
        path = Path(folder) / "decisions.parquet"
        read_decisions(deployment, application, span, path)
        yield path


def read_decisions(
    deployment: DeploymentContext, application: str, span: "Span", out: Path, *, inputs: bool = False
) -> "FileFacts":
    """Write the decisions in Kafka to a file, with a bar."""
    from clipper_agents.replay.export import export_log
    from clipper_agents.replay.log_reading import log_of

    log = asyncio.run(log_of(deployment.kafka, deployment.catalogue, application, span, inputs=inputs))
    with progress(f"reading {application}") as update:
        at_once = os.cpu_count() or 1
        return export_log(log, out, at_once, lambda total: update(total=total), lambda more: update(advance=more))
