"""Errors of changes and restores."""

from clipper_stream.errors import ClipperError, SetupError


class RefusedChange(ClipperError):
    """A rule forbids the change; the message says what to do instead."""


class StaleRevision(ClipperError):
    """The application is at another revision than the one that the change was decided on."""


class WriteContention(ClipperError):
    """Other writers interrupted every attempt of a command to write to the control topic."""


class UnusableState(SetupError):
    """The rows of a state cannot be restored."""


class NoSuchRestore(ClipperError):
    """There is no such saved state, or no such declared restore."""


class RestoreBrokenOff(ClipperError):
    """A restore is declared, and its markers may be missing in some partitions: it has to be resumed."""
