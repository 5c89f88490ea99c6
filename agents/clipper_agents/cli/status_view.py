"""A status as tables for people."""

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from clipper_agents.cli.applications_view import application_parts, instant
from clipper_agents.status.model import GroupStatus, Status


def show(console: Console, status: Status, reasons: Sequence[str]) -> None:
    """Print the whole page: brokers, topics, groups, applications, dead letters, and a line for each thing wrong."""
    console.print(Group(*_parts(status, console.width)))
    for reason in reasons:
        console.print(Text(f"wrong: {reason}", "red"), soft_wrap=True)
    if not reasons:
        console.print(Text("nothing is wrong", "green"))


def _parts(status: Status, width: int) -> Iterator[RenderableType]:
    yield Text(f"{status.prefix} at {instant(status.at_s)}")
    yield _table(
        "broker address answers", ((str(one.node_id), one.address, _yes(one.reachable)) for one in status.brokers)
    )
    yield _table("topic partitions leaderless under-replicated", _topic_rows(status))
    yield _table("group state instance host reads lag", (row for group in status.groups for row in _group_rows(group)))
    for name, application in status.applications.items():
        yield from application_parts(name, application, width=width)
    named = {version.model for each in status.applications.values() for version in each.versions}
    if others := [one.ref for one in status.models if one.ref not in named]:
        yield Text(f"models of no application: {', '.join(others)}")
    yield Text(f"dead letters within the last hour: {status.dead_letters}", "yellow" if status.dead_letters else "")


def _topic_rows(status: Status) -> Iterator[tuple[str, ...]]:
    """Yield the topics with a problem, then how many have none."""
    troubled = [one for one in status.topics if one.leaderless or one.under_replicated]
    for one in troubled:
        lists = (",".join(map(str, partitions)) for partitions in (one.leaderless, one.under_replicated))
        yield (one.name, str(one.partitions), *lists)
    fine = [one for one in status.topics if one not in troubled]
    if fine:
        yield (f"{len(fine)} without trouble", str(sum(one.partitions for one in fine)), "", "")


def _group_rows(group: GroupStatus) -> Iterator[tuple[str, ...]]:
    lag = str(sum(group.lag.values()))
    if not group.members:
        yield group.group, group.state, "none", "", "", lag
    for number, member in enumerate(group.members):
        head = ("", "") if number else (group.group, group.state)
        reads = sorted({one for topic in group.inputs for one in member.partitions.get(topic, ())})
        yield *head, member.instance, member.host, ",".join(map(str, reads)), "" if number else lag


def _table(columns: str, rows: Iterable[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns.split():
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _yes(good: bool) -> str:
    return "yes" if good else "no"
