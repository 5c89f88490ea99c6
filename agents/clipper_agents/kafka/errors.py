"""Errors of reading, administering and changing a deployment's topics."""

from clipper_stream.errors import ClipperError, SetupError


class KafkaUnreachable(SetupError):
    """No broker answered in time."""


class TopicMismatch(SetupError):
    """A topic is missing, or is there with other partitions or another cleanup policy than the catalogue says."""


class NoSuchRestore(ClipperError):
    """There is no such saved state, or no such declared restore."""


class RestoreBrokenOff(ClipperError):
    """A restore is declared, and its markers may not be in every partition: it has to be resumed."""


class UnusableState(SetupError):
    """The rows of a state cannot be restored."""


class NoCoordinator(SetupError):
    """No broker coordinates transactions."""


class Outpaced(ClipperError):
    """Others wrote to the control topic again and again before this command could."""


class TopicRefused(SetupError):
    """The broker refused to create, grow or delete a topic."""
