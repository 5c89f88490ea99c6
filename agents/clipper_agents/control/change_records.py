"""The records of a plan: manifests with their revisions and signed changes, in the order of writing."""

import getpass
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from clipper_agents.control.plan import Plan
from clipper_agents.control.selection_states import StateSnapshot
from clipper_agents.control.state import ControlState, shown_key
from clipper_topics import codec
from clipper_topics.change import Change
from clipper_topics.control_keys import application_key, change_key, model_key
from clipper_topics.manifests import ApplicationManifest

MOST_CHANGE_BYTES = 200 * 1024
"""Largest change with its rows: every process that follows changes reads all of them when it starts."""


def os_user() -> str:
    """Return the name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for the number, as in a container
        return f"uid {os.getuid()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Author of a change (a user, or the rule that decided), the reason, and what a rule decided by."""

    by: str = field(default_factory=os_user)
    why: str = ""
    numbers: Mapping[str, Any] = field(default_factory=dict)


def is_committed(signed: Plan, state: ControlState) -> bool:
    """Return whether an earlier attempt whose commit outcome was unknown did commit."""
    if signed.changes:
        return all(_is_recorded(change, state) for change in signed.changes)
    models, refused = state.manifests.models, state.manifests.unreadable
    return (
        all(models.get(each.ref) == each for each in signed.models)
        and not models.keys() & signed.withdrawn
        and not any(shown_key(key) in refused for key, _ in records_of(signed))
    )


def _is_recorded(change: Change, state: ControlState) -> bool:
    found = state.changes.get(change.application, {}).get(change.revision)
    own = ("at_ms", "by", "why", "command", "model", "after")
    return found is not None and all(getattr(found, name) == getattr(change, name) for name in own)


def sign(plan: Plan, state: ControlState, signature: Signature, snapshot: StateSnapshot, at_ms: int) -> Plan:
    """Give each change of a plan its revision, its author, and the selection state before it."""
    return replace(plan, changes=tuple(_signed(each, state, signature, snapshot, at_ms) for each in plan.changes))


def _signed(change: Change, state: ControlState, signature: Signature, snapshot: StateSnapshot, at_ms: int) -> Change:
    last = state.revision(change.application)
    after = None if change.after is None else numbered(change.after, last)
    signed = msgspec.structs.replace(
        change,
        revision=last + 1 if after is None else after.revision,
        at_ms=at_ms,
        by=signature.by,
        why=signature.why,
        numbers=dict(signature.numbers),
        after=after,
        feedback_ends=list(snapshot.feedback_ends),
        rows=snapshot.rows.get(change.application),
    )
    is_large = signed.rows and len(codec.changes.encode(signed)) > MOST_CHANGE_BYTES
    return msgspec.structs.replace(signed, rows=None) if is_large else signed


def numbered(after: ApplicationManifest, last: int) -> ApplicationManifest:
    """Return the manifest with the revision after the last one, or with its own when that is higher.

    The revision is logged with each decision, so that two ways of deciding never share one.

    >>> numbered(ApplicationManifest(name="a", models=["m:1", "m:2"]), 4).revision
    5
    """
    return msgspec.structs.replace(after, revision=max(after.revision, last + 1))


def records_of(signed: Plan) -> list[tuple[bytes, bytes | None]]:
    """Return keys and values in order: a manifest is written after those that it names, and withdrawn before them."""
    models = [(each.retired, (model_key(each.ref), codec.models.encode(each))) for each in signed.models]
    return [
        *(record for retired, record in models if not retired),
        *(
            (application_key(each.application), codec.applications.encode(each.after) if each.after else None)
            for each in signed.changes
        ),
        *(record for retired, record in models if retired),
        *((model_key(ref), None) for ref in signed.withdrawn),
        *((change_key(each.application, each.revision), codec.changes.encode(each)) for each in signed.changes),
    ]
