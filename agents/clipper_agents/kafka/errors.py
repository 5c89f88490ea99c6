"""Errors of reading, administering and changing a deployment's topics."""

from clipper_stream.errors import SetupError


class KafkaUnreachable(SetupError):
    """No broker answered in time."""


class TopicMismatch(SetupError):
    """A topic is missing, or is there with other partitions or another cleanup policy than the catalogue says."""


class NoCoordinator(SetupError):
    """No broker coordinates transactions."""


class TopicRefused(SetupError):
    """The broker refused to create, grow or delete a topic."""
