"""What an application asks: one record on the queries topic."""

from typing import Any

import msgspec


class Query(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One question to an application's models, of one row (`input`) or of several (`inputs`)."""

    application: str
    """Name of a registered application."""
    query_id: str | None = None
    """Identifies the query in predictions and feedback; absent: `<partition>-<offset>` of this record."""
    context: str | None = None
    """Whose weights to use (a user, a device); the record's key must then be the context."""
    input: Any = msgspec.UNSET
    """One row: numbers, nested numbers, text, or `{"base64": ...}`; the application's input spec says which."""
    inputs: list[Any] | msgspec.UnsetType = msgspec.UNSET
    """Several rows, answered together by one decision. Exactly one of `input` and `inputs` is given."""
    deadline_ms: int | None = None
    """Answer within so many milliseconds of the record's timestamp; at most the application's objective counts."""
    models: list[str] | None = None
    """Ask exactly these models (`name` or `name:version`) instead of those that the policy would choose."""
