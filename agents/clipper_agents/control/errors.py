"""What can go wrong with changes and restores."""

from clipper_stream.errors import ClipperError, SetupError


class RefusedChange(ClipperError):
    """The change makes no sense as things are; the message says what to do instead."""


class StaleRevision(ClipperError):
    """The application is not at the revision that its changer has seen."""


class WriteContention(ClipperError):
    """Others wrote to the control topic again and again before this command could."""


class UnusableState(SetupError):
    """The rows of a state cannot be restored."""


class NoSuchRestore(ClipperError):
    """There is no such saved state, or no such declared restore."""


class RestoreBrokenOff(ClipperError):
    """A restore is declared, and its markers may not be in every partition: it has to be resumed."""
