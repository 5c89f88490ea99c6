"""`clipper-stream replay export`: decisions with what became of them, from the logs into a file."""

import asyncio
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer

from clipper_agents.cli.deployment import DeploymentContext, with_deployment
from clipper_agents.cli.extras import require_extra
from clipper_agents.cli.options import ApplicationName, Horizon, Json, Processes, Since, Until, span_from
from clipper_agents.cli.terminal import progress, say

SHOWN = {
    "decisions": "decisions",
    "with_feedback": "with feedback",
    "without_feedback": "without feedback",
    "repeated": "repeated predictions",
    "duplicates": "duplicate feedback",
    "orphans": "feedback about no decision that was read",
    "late": "feedback behind the horizon",
    "invalid": "feedback that cannot be compared, or names another context",
    "undecodable": "records that cannot be read",
    "no_audit": "audits that are missing",
}
"""What the summary counts, with its words; the names are those in docs/reference/replay-files.md."""


@with_deployment
def export(
    deployment: DeploymentContext,
    application: ApplicationName,
    *,
    out: Annotated[Path, typer.Option(metavar="FILE", help="The file .parquet to write; it must be new.")],
    since: Since = None,
    until: Until = None,
    horizon: Horizon = None,
    inputs: Annotated[bool, typer.Option("--inputs", help="With the queries' inputs, as JSON.")] = False,
    processes: Processes = None,
    as_json: Json = False,
) -> None:
    """Write decisions, what models said and what was true to Parquet; the columns are in reference/replay-files.md.

    The file is there when all was read, and not before.
    """
    require_extra("replay", "duckdb", "pyarrow")
    from clipper_agents.replay.export import export_log
    from clipper_agents.replay.log_reading import log_of

    span = span_from(since, until, horizon, deployment.settings.router.horizon_s)
    log = asyncio.run(log_of(deployment.kafka, deployment.catalogue, application, span, inputs=inputs))
    with progress(f"reading {application}") as update:
        at_once = processes or os.cpu_count() or 1
        facts = export_log(log, out, at_once, lambda total: update(total=total), lambda more: update(advance=more))
    summary: dict[str, Any] = {"file": str(out), "application": application, "models": facts.models, **facts.counts}
    if as_json:
        say(json.dumps(summary))
        return
    say(f"{out}: {application}, {', '.join(facts.models) or 'no model'}")
    for name, words in SHOWN.items():
        if summary[name] or name in ("decisions", "with_feedback", "without_feedback"):
            say(f"{summary[name]:>12,} {words}")
