"""Going back along the changes of an application."""

from collections.abc import Mapping
from dataclasses import dataclass

from clipper_agents.control.changes import replaced
from clipper_agents.control.errors import RefusedChange
from clipper_agents.control.plan import Plan, Published
from clipper_topics.change import Change
from clipper_topics.manifests import ApplicationManifest
from clipper_topics.selection_rows import SavedRow


@dataclass(frozen=True, slots=True, kw_only=True)
class Undoing:
    """A rollback: what it writes and what it undoes.

    Attributes:
        plan: To be written; empty when the application is like that already.
        undone: The changes that count no more, newest first.
        rows: The selection state before the oldest of them; None when it was not kept.
    """

    plan: Plan
    undone: tuple[Change, ...]
    rows: tuple[SavedRow, ...] | None


def rollback(
    published: Published, history: Mapping[int, Change], application: str, to_revision: int | None = None
) -> Undoing:
    """Go back to the manifest before the last change, or to that of a revision.

    Args:
        published: What is there; a deleted application can come back.
        history: The application's changes by revision.
        application: Its name.
        to_revision: Whose manifest is wanted; None: the one before the last change.

    Raises:
        RefusedChange: the history does not say how it was, or what it names is not there any more.
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
    target = history[last].before if to_revision is None else _at(history, application, to_revision)
    if target is None:
        raise RefusedChange(
            f"revision {last if to_revision is None else to_revision} of application {application} "
            f"{'created' if to_revision is None else 'deleted'} it, there is nothing to go back to: "
            f"`clipper-stream application delete {application}` takes it away"
        )
    undone = _undone(history, last if to_revision is None else to_revision + 1)
    rows = undone[-1].rows if undone else None
    plan = replaced(published, current, target, "rollback")
    return Undoing(plan=plan, undone=undone, rows=None if rows is None else tuple(rows))


def _undone(history: Mapping[int, Change], first: int) -> tuple[Change, ...]:
    return tuple(history[revision] for revision in sorted(history, reverse=True) if revision >= first)


def _at(history: Mapping[int, Change], application: str, revision: int) -> ApplicationManifest | None:
    """The manifest of this revision; None when the application was deleted with it."""
    if revision in history:
        return history[revision].after
    for change in history.values():
        if change.before is not None and change.before.revision == revision:
            return change.before
    raise RefusedChange(
        f"the history of application {application} has no revision {revision}; "
        f"it has {', '.join(map(str, sorted(history)))}"
    )
