"""Errors of reading, administering and changing a deployment's topics."""

from clipper_stream.errors import ClipperError, SetupError


class KafkaUnreachable(SetupError):
    """No broker answered in time."""


class TopicMismatch(SetupError):
    """A topic is missing, or is there with other partitions or another cleanup policy than the catalogue says."""


class NoCoordinator(SetupError):
    """No broker coordinates transactions."""


class TopicRefused(SetupError):
    """The broker refused to create, grow or delete a topic."""


class TopicMadeAnew(ClipperError):
    """A topic is another one than when this process started; the next start goes by the one that is there."""


class StaleReferences(SetupError):
    """What was learned and answered refers to a topic that was deleted; the one of its name is another one."""
