"""Rolls an application back along its changes: the manifest at once, the selection state through the feedback log."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from clipper_agents.control.change_records import Signature
from clipper_agents.control.changes import plan_edit
from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.plan import Plan
from clipper_agents.control.restore import carry_out, plan_restore
from clipper_agents.control.state import ControlState, Manifests
from clipper_agents.control.writer import change_control
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.connection import KafkaConnection
from clipper_topics.manifests import ApplicationManifest


def plan_rollback(
    published: Manifests, history: Mapping[int, Change], application: str, to_revision: int | None = None
) -> tuple[Plan, tuple[Change, ...]]:
    """Go back to the manifest before the last change, or to that of a revision; a deleted application comes back.

    Returns the plan, empty when the application is like that already, and the changes that it undoes, newest first: the
    last of them has the selection state to go back to.
    """
    if not history:
        raise RefusedChange(f"application {application!r} has no history: it was never changed by a command")
    current = published.applications.get(application)
    last = max(history)
    if to_revision is None and current is not None and current.revision != last:
        raise RefusedChange(
            f"application {application} is at revision {current.revision}, which its history does not have: "
            f"name the one to go back to with --to-revision, for example {last}"
        )
    target = history[last].before if to_revision is None else _manifest_at(history, application, to_revision)
    if target is None:
        raise RefusedChange(
            f"revision {last if to_revision is None else to_revision} of application {application} "
            f"{'created' if to_revision is None else 'deleted'} it, there is nothing to go back to: "
            f"`clipper-stream application delete {application}` takes it away"
        )
    first = last if to_revision is None else to_revision + 1
    undone = tuple(history[revision] for revision in sorted(history, reverse=True) if revision >= first)
    return plan_edit(published, current, target, "rollback"), undone


def _manifest_at(history: Mapping[int, Change], application: str, revision: int) -> ApplicationManifest | None:
    if revision in history:
        return history[revision].after
    for change in history.values():
        if change.before is not None and change.before.revision == revision:
            return change.before
    raise RefusedChange(
        f"the history of application {application} has no revision {revision}; "
        f"it has {', '.join(map(str, sorted(history)))}"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """What a rollback wrote, the changes that count no more, newest first, and what became of the selection state."""

    written: Plan
    undone: tuple[Change, ...]
    selection_state: str


async def roll_back(
    connection: KafkaConnection,
    catalogue: Catalogue,
    application: str,
    to_revision: int | None = None,
    signature: Signature | None = None,
    *,
    seen: Mapping[str, int] | None = None,
) -> RolledBack:
    """Go back to the manifest before the last change, or to that of a revision, with the selection state of then.

    Errors as of `plan_rollback`, `change_control`, which `seen` is for, `plan_restore` and `carry_out`.
    """
    signature, undone = signature or Signature(), tuple[Change, ...]()

    def decide(state: ControlState) -> Plan:
        nonlocal undone
        plan, undone = plan_rollback(state.manifests, state.history(application), application, to_revision)
        return plan

    written = await change_control(connection, catalogue, decide, signature, seen=seen)
    rows = undone[-1].rows if undone and written else None
    if rows is None:
        what = f"the change to revision {undone[-1].revision} kept none" if undone else "none was kept"
        return RolledBack(written=written, undone=undone, selection_state=f"stays as it is: {what}")
    why = signature.why or f"rollback to revision {undone[-1].revision - 1}"
    restored = await plan_restore(connection, catalogue, application, rows, replace(signature, why=why))
    await carry_out(connection, catalogue, restored)
    return RolledBack(written=written, undone=undone, selection_state=f"restored ({restored.restore_id})")
