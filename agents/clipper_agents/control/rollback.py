"""Undoes changes of an application: its manifest at once, and what had been learned through the feedback log."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from clipper_agents.control.change_records import Signature, Written
from clipper_agents.control.plan import Plan
from clipper_agents.control.rollback_plan import Undoing, rollback
from clipper_agents.control.state import ControlState
from clipper_agents.control.writer import change_control
from clipper_topics.catalogue import Catalogue
from clipper_topics.change import Change
from clipper_topics.connection import KafkaConnection
from clipper_topics.selection_rows import SavedRow


class Restore(Protocol):
    """Has every learner put an application's selection state in place of what it has."""

    async def __call__(
        self,
        connection: KafkaConnection,
        catalogue: Catalogue,
        application: str,
        rows: list[SavedRow],
        by: str,
        why: str,
    ) -> str:
        """The id of the restore."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack:
    """What a rollback did.

    Attributes:
        written: The manifest and its change; empty when the application was like that already.
        undone: The changes that count no more, newest first.
        restored: Id of the restored selection state; None: it stays as it is.
        why_not: Why it stays; empty when it was restored.
    """

    written: Written
    undone: tuple[Change, ...]
    restored: str | None = None
    why_not: str = ""


async def roll_back(
    connection: KafkaConnection,
    catalogue: Catalogue,
    application: str,
    to_revision: int | None = None,
    signature: Signature | None = None,
    *,
    restore: Restore | None = None,
    seen: Mapping[str, int] | None = None,
) -> RolledBack:
    """Go back to the manifest before the last change, or to that of a revision, with the selection state of then.

    Args:
        connection: How to reach the brokers.
        catalogue: Of the deployment.
        application: Its name.
        to_revision: Whose manifest is wanted; None: the one before the last change.
        signature: Of the change.
        restore: Puts the selection state back; None: it stays.
        seen: As for `change_control`, whose errors it raises.
    """
    signature = signature or Signature()
    last: list[Undoing] = []

    def decide(state: ControlState) -> Plan:
        last[:] = [rollback(state.manifests, state.history(application), application, to_revision)]
        return last[0].plan

    written = await change_control(connection, catalogue, decide, signature, seen=seen)
    (undoing,) = last
    if not written.plan:
        return RolledBack(written=written, undone=(), why_not="nothing was changed")
    if undoing.rows is None:
        why_not = (
            f"the change to revision {undoing.undone[-1].revision} kept none" if undoing.undone else "none was kept"
        )
        return RolledBack(written=written, undone=undoing.undone, why_not=why_not)
    if restore is None:
        return RolledBack(written=written, undone=undoing.undone, why_not="this version cannot restore it")
    why = signature.why or f"rollback to revision {undoing.undone[-1].revision - 1}"
    restored = await restore(connection, catalogue, application, list(undoing.rows), signature.by, why)
    return RolledBack(written=written, undone=undoing.undone, restored=restored)
