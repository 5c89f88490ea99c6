"""Why a change of an application is not made."""

from clipper_stream.errors import ClipperError


class RefusedChange(ClipperError):
    """The change makes no sense as things are; the message says what to do instead."""


class StaleRevision(ClipperError):
    """The application is not at the revision that its changer has seen."""
