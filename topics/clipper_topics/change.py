"""What was changed about an application, by whom and why: a record a change on the control topic, kept for ever.

An application's manifest says how things are; its changes say how they came to be so, and rollback goes back along
them.
"""

from typing import Any, Literal

import msgspec

from clipper_topics.manifests import ApplicationManifest, Count, ModelRef, Name, Text, check_plain
from clipper_topics.selection_rows import SavedRow

Command = Literal[
    "create", "update", "shadow", "canary", "step", "promote", "abort", "retire", "restore", "rollback", "delete"
]


class Change(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One change of an application."""

    application: Name
    """The application."""
    revision: Count
    """Of its manifest after the change."""
    command: Command
    """What was done."""
    model: ModelRef | None = None
    """The version that it was about."""
    at_ms: int
    """When, milliseconds since the epoch."""
    by: Text
    """Who: a user, or `rollout` for an automatic decision."""
    why: str = ""
    """The reason that was given, or the rule that fired."""
    numbers: dict[str, Any] = {}
    """What an automatic decision was made of: feedbacks, difference of losses, interval, confidence."""
    before: ApplicationManifest | None = None
    """The manifest before; absent: there was none."""
    after: ApplicationManifest | None = None
    """The manifest after; absent: it was deleted."""
    feedback_ends: list[int] = []
    """End of each partition of the feedback topic at the time; the fold up to it is the state of that moment."""
    rows: list[SavedRow] | None = None
    """The selection state at the time; absent when it was too large to keep here."""

    def __post_init__(self) -> None:
        check_plain("numbers", self.numbers)
