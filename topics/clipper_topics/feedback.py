"""What an application learned later: one record on the feedback topic."""

from typing import Any

import msgspec


class Feedback(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What was true about one query. Exactly one of `label`, `loss` and `reward` is given.

    The record's key is the query's key, so that it reaches the partition of the decision. An id that names its
    partition (`<partition>-...`, as this project's client and router mint them) needs no key.
    """

    query_id: str
    """The query that this is about."""
    application: str | None = None
    """The query's application; checked against the decision when given."""
    context: str | None = None
    """The query's context."""
    label: Any = msgspec.UNSET
    """The true output; a list, one a row, for a query of several rows. The application's loss compares."""
    loss: float | msgspec.UnsetType = msgspec.UNSET
    """Loss of the answer that was given, in [0, 1]."""
    reward: float | msgspec.UnsetType = msgspec.UNSET
    """Reward of the answer that was given, in [0, 1]: a loss of `1 - reward`."""
