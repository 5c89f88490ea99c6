"""What models said that were asked for the log only: one record a query on the audits topic, beside its prediction.

The prediction does not wait for them, so an audited model, or one on trial as a shadow, delays nobody. The record has
the query's key and partition; there is one of it for each prediction with `audited: true`, also when nobody answered.
"""

import msgspec

from clipper_topics.prediction import Missing, ModelAnswer


class Audit(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Outputs of models that were asked about a query and not served."""

    query_id: str
    """The query's id."""
    application: str = ""
    """The query's application."""
    context: str | None = None
    """The query's context."""
    models: list[ModelAnswer] = []
    """The models that answered by the query's deadline, each with `served: false`."""
    missing: list[Missing] = []
    """The models that did not."""
    query_offset: int = -1
    """Offset of the query in its partition (audits have the same partition number)."""
    audited_at_ms: int = 0
    """When the last of them had answered, or the deadline came, milliseconds since the epoch."""
