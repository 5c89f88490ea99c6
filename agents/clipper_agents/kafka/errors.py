"""What can go wrong while a deployment is set up."""

from clipper_stream.errors import ClipperError, SetupError


class KafkaUnreachable(SetupError):
    """No broker answered in time."""


class TopicMismatch(SetupError):
    """A topic is missing, or is there with other partitions or another cleanup policy than the catalogue says."""


class NoSuchLetter(ClipperError):
    """No dead letter has this position."""


class NoCoordinator(SetupError):
    """The brokers keep no transactions."""


class TopicRefused(SetupError):
    """The broker refused to create, grow or delete a topic."""
