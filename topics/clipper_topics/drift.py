"""Detected changes of a loss: the newest detection of each version of an application, on the control topic.

Rules of this file:
- A detection is named by the record that fired it, so that it is written once, also when the logs are read again.
- Times are those of records: whoever reads the same logs comes to the same event.
- It declares nothing: routers and hosts do as before.
"""

from typing import Any

import msgspec

from clipper_topics.manifests import ModelRef, Name, Ratio, Text


class DriftEvent(msgspec.Struct, kw_only=True, omit_defaults=True, frozen=True):
    """A detected change of a version's mean loss, for better or worse."""

    application: Name
    """The application."""
    model: ModelRef
    """The version, `name:version`."""
    context: str | None = None
    """Whose losses they were, where each context has a detector of its own."""
    at_ms: int
    """Timestamp of the record that fired it, milliseconds since the epoch."""
    detector: Text
    """Its name."""
    parameters: dict[str, Any] = {}
    """Of the detector, as the manifest had them."""
    losses: int
    """Losses of the version since the detection before, or since the detector was declared."""
    after: int
    """Of them those since the estimated change."""
    loss_before: Ratio
    """Mean of those before it, at the same hours of the day."""
    loss_after: Ratio
    """Mean of those since."""
    revision: int
    """Of the application's manifest, under which the query was decided that fired it."""
    topic: str
    """Of the record that fired it: feedback, or the audit that came after it."""
    partition: int
    """Its partition."""
    offset: int
    """Its offset."""

    @property
    def worse(self) -> bool:
        return self.loss_after > self.loss_before
