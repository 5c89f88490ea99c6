"""What commands that change the registry have in common: their options, and how they say what they did."""

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from clipper_agents.control.change_records import Signature, Written
    from clipper_agents.control.plan import Plan
    from clipper_agents.control.state import ControlState
    from clipper_agents.settings import Settings

Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the history.")]
By = Annotated[str | None, typer.Option("--by", metavar="NAME", help="Who does it; absent: this user.")]
Revision = Annotated[
    int | None,
    typer.Option("--revision", metavar="N", min=0, help="The revision that you saw: refused when it is another."),
]
Json = Annotated[bool, typer.Option("--json", help="JSON, for machines.")]
ApplicationOption = Annotated[
    str | None,
    typer.Option("--application", "-a", metavar="NAME", help="The application; absent: the one that names the model."),
]


def signature(by: str | None, why: str) -> "Signature":
    """Who does it, and why."""
    from clipper_agents.control.change_records import Signature

    return Signature(by=by, why=why) if by else Signature(why=why)


def change(
    settings: "Settings",
    decide: "Callable[[ControlState], Plan]",
    signed: "Signature",
    seen: dict[str, int] | None = None,
) -> "Written":
    """Decide on what the control topic says, and write it."""
    from clipper_agents.control.writer import change_control

    return asyncio.run(change_control(settings.connection(os.environ), settings.catalogue, decide, signed, seen=seen))


def state_of(settings: "Settings") -> "ControlState":
    """What the control topic says."""
    from clipper_agents.control.state import read_control

    return asyncio.run(read_control(settings.connection(os.environ), settings.catalogue))


def tell(written: "Written", *, as_json: bool = False) -> None:
    """Print what was written: a line a change and a model, or a JSON object a change."""
    if as_json:
        import msgspec

        for change_made in written.changes:
            print(msgspec.json.encode(change_made).decode())
        return
    for line in lines_of(written):
        print(line)


def lines_of(written: "Written") -> list[str]:
    """A line for each manifest that was written."""
    if not written.plan:
        return ["nothing changed"]
    lines = [f"model {each.ref}{' retired' if each.retired else ''}" for each in written.plan.models]
    for made in written.changes:
        about = f" {made.model}" if made.model else ""
        lines.append(f"application {made.application} revision {made.revision}: {made.command}{about}")
    return [*lines, *(f"model {ref} withdrawn" for ref in written.plan.withdrawn)]
