"""`clipper-stream replay restore`: set what an application has learned back to how it was at a time or an offset."""

import asyncio
import re
import time
from typing import TYPE_CHECKING, Annotated

import typer

from clipper_agents.cli.deployment import DeploymentContext, signature, with_deployment
from clipper_agents.cli.options import ApplicationName, By, DryRun, Why, Yes, since_ms
from clipper_agents.cli.selection import carry_out_if_wanted
from clipper_agents.cli.terminal import console, table

if TYPE_CHECKING:
    from clipper_agents.control.change_records import Signature
    from clipper_agents.control.restore import RestorePlan
    from clipper_agents.replay.state_at import StateAt
    from clipper_topics.selection_rows import SavedRow


@with_deployment
def restore(
    deployment: DeploymentContext,
    application: ApplicationName,
    *,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Feedback before this time counts: 30m, 2h, 7d ago, or a date with a time."),
    ] = None,
    offsets: Annotated[
        str | None,
        typer.Option(metavar="P:O,P:O", help="Feedback before offset O of partition P counts; of others, all of it."),
    ] = None,
    why: Why = "",
    by: By = None,
    dry_run: DryRun = False,
    yes: Yes = False,
) -> None:
    """Fold the logs up to a time or to offsets, and set the rows of all contexts to that, under traffic.

    Feedback that comes afterwards is learned on top of them. `selection restore --undo` takes it back.
    """
    if (at is None) == (offsets is None):
        raise typer.BadParameter("give exactly one of --at and --offsets")
    at_ms = None if at is None else since_ms(at, time.time(), "--at")
    ends = offsets_of(offsets or "")
    found, before, plan = asyncio.run(_plan(deployment, application, at_ms, ends, signature(by, why)))
    _show(deployment, found, before)
    if not dry_run:
        carry_out_if_wanted(deployment, application, plan, yes=yes)


def offsets_of(text: str) -> dict[int, int]:
    """Parse `--offsets`.

    >>> offsets_of("0:120,3:77")
    {0: 120, 3: 77}

    Raises:
        BadParameter: it is no such list.
    """
    if not text:
        return {}
    pairs = [re.fullmatch(r"(\d{1,9}):(\d{1,18})", one.strip(), re.ASCII) for one in text.split(",")]
    found = {int(pair[1]): int(pair[2]) for pair in pairs if pair is not None}
    if len(found) != len(pairs):
        raise typer.BadParameter(f"--offsets {text}: write each partition once, as 0:120,1:98")
    return found


async def _plan(
    deployment: DeploymentContext, application: str, at_ms: int | None, ends: dict[int, int], author: "Signature"
) -> "tuple[StateAt, list[SavedRow], RestorePlan]":
    from clipper_agents.control.restore import plan_restore
    from clipper_agents.control.selection_states import read_rows
    from clipper_agents.replay.log_ranges import open_logs
    from clipper_agents.replay.state_at import state_at

    kafka, catalogue = deployment.kafka, deployment.catalogue
    logs, horizon_s = await open_logs(kafka, catalogue), deployment.settings.router.horizon_s
    found = await state_at(logs, catalogue, application, horizon_s, at_ms=at_ms, ends=ends)
    plan = await plan_restore(kafka, catalogue, application, found.rows, author)
    before = plan.restore.before
    return found, await read_rows(kafka, catalogue, application) if before is None else before, plan


def _show(deployment: DeploymentContext, found: "StateAt", before: "list[SavedRow]") -> None:
    """Weights without a context before and after, on standard error; how many contexts change."""
    from clipper_agents.control.selection_states import state_of_rows
    from clipper_agents.status.build import weights_of

    manifest = deployment.control_state().manifests.applications.get(found.application)
    now, then = state_of_rows(before, None), state_of_rows(found.rows, None)
    candidates = [] if manifest is None else manifest.models
    weights = [weights_of(manifest, state, candidates) for state in (now, then)]
    rows = []
    for ref in dict.fromkeys([*weights[0], *now.totals, *then.totals]):
        shares = [f"{one[ref]:.4f}" if ref in one else "-" for one in weights]
        sums = (now.of(ref).count, then.of(ref).count, now.of(ref).loss, then.of(ref).loss)
        rows.append((ref, *shares, *(f"{number:.2f}" for number in sums)))
    headings = ("model", "weight now", "then", "feedbacks now", "then", "loss now", "then")
    shown = console(stderr=True)
    shown.print(table(headings, rows, right=headings[1:]))
    ends = ", ".join(f"{number}:{end}" for number, end in enumerate(found.ends))
    changed = changed_contexts(before, found.rows)
    shown.print(f"before feedback offsets {ends}; {changed} contexts change")
    if found.partings:
        shown.print(
            f"{len(found.partings)} rows of the table were not what the logs lead to: what the logs lead to is "
            "restored; see `clipper-stream replay verify`",
            markup=False,
        )


def changed_contexts(before: "list[SavedRow]", after: "list[SavedRow]") -> int:
    """Count the contexts whose totals differ."""
    now, then = ({(row.partition, row.context): row.totals for row in rows} for rows in (before, after))
    changed = {place for place in now.keys() | then.keys() if now.get(place) != then.get(place)}
    return len({context for _, context in changed if context is not None})
