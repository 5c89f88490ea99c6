"""What `watch` shows: a page that is drawn anew each second, or a line a second, or an object."""

from collections.abc import Iterator, Sequence

import msgspec
from rich.console import Group, RenderableType
from rich.text import Text

from clipper_agents.cli.applications_view import COLUMNS, application_parts, clock, stage_of
from clipper_agents.status.deployment_view import DeploymentEvent
from clipper_agents.status.model import ApplicationStatus, VersionStatus
from clipper_agents.status.watch import Snapshot

SHOWN_EVENTS = 8


def page(look: Snapshot, prefix: str, width: int = COLUMNS) -> RenderableType:
    """Return the whole page for a terminal.

    Args:
        look: What there is to see.
        prefix: Of the deployment's topics.
        width: Columns of the terminal.
    """
    return Group(*_parts(look, prefix, width))


def _parts(look: Snapshot, prefix: str, width: int) -> Iterator[RenderableType]:
    yield Text(f"{prefix} at {clock(look.at_s)}; Ctrl-C ends it")
    for name, status in look.applications.items():
        yield Text()
        yield from application_parts(name, status, changes=False, width=width)
    if look.latest:
        yield Text()
    for event in look.latest[-SHOWN_EVENTS:]:
        yield Text(event_line(event), style="dim", no_wrap=True, overflow="ellipsis")
    for reason in look.reasons:
        yield Text(f"wrong: {reason}", style="red")


def lines(look: Snapshot, told: Sequence[str]) -> Iterator[str]:
    """For a pipe: what happened, what is wrong now and was not at the look before, and a line an application.

    Args:
        look: What there is to see.
        told: What was wrong at the look before.
    """
    yield from map(event_line, look.events)
    yield from (f"{clock(look.at_s)} wrong: {reason}" for reason in look.reasons if reason not in told)
    for name, status in look.applications.items():
        yield line_of(name, status, look.at_s)


def json_line(look: Snapshot) -> str:
    """Return one JSON object, with the events since the snapshot before."""
    content = msgspec.to_builtins(look)
    del content["latest"]
    return msgspec.json.encode(content).decode()


def event_line(event: DeploymentEvent) -> str:
    """Return the time and text of an event.

    >>> event_line(DeploymentEvent(at_s=1_700_000_000.0, text="host h of svm:2 is ready"))
    '22:13:20Z event: host h of svm:2 is ready'
    """
    return f"{clock(event.at_s)} event: {event.text}"


def line_of(name: str, status: ApplicationStatus, at_s: float) -> str:
    """An application in a line: what flows, then each version but the retired ones."""
    parts = [f"{clock(at_s)} {name} {status.queries_per_s:.1f} q/s"]
    if status.latency is not None:
        parts.append(f"p50={status.latency.p50_ms:.0f}ms p99={status.latency.p99_ms:.0f}ms")
    parts += [f"default:{reason}={count}" for reason, count in status.defaults.items()]
    versions = [_version(one) for one in status.versions if one.stage != "retired"]
    return " | ".join([" ".join(parts), *versions])


def _version(version: VersionStatus) -> str:
    parts = [version.model, stage_of(version).replace(" %", "%").replace(" ", "@")]
    if version.share is not None:
        parts.append(f"share={version.share:.0%}")
    if version.weight is not None:
        parts.append(f"weight={version.weight:.2f}")
    if version.loss is not None:
        parts.append(f"loss={version.loss.mean:.3f}")
    if version.drift is not None:
        parts.append(f"drift={version.drift.loss_before:.3f}->{version.drift.loss_after:.3f}")
    return " ".join(parts)
