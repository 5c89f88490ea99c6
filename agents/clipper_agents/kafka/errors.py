"""Errors of reading, administering and changing a deployment's topics."""

from clipper_stream.errors import ClipperError, SetupError


class KafkaUnreachable(SetupError):
    """No broker answered in time."""


class TopicMismatch(SetupError):
    """A topic is missing, or is there with other partitions or another cleanup policy than the catalogue says."""


def checked_partitions(topic: str, found: int | None, configured: int | None = None) -> int:
    """Return the partitions that were found; a topic that is missing, or has others than configured, is refused."""
    if not found:
        raise TopicMismatch(
            f"topic {topic} does not exist, or this user may not see it: "
            "run `clipper-stream topics create` first, or give it the rights of its role"
        )
    if configured not in (None, found):
        raise TopicMismatch(wrong_partitions(topic, found, configured))
    return found


def wrong_partitions(topic: str, found: int, configured: int) -> str:
    """Return the words of a `TopicMismatch` about a number of partitions."""
    return (
        f"topic {topic} has {found} partitions, {configured} are configured: configure {found}, use another prefix, or "
        "delete it and run `clipper-stream topics create` (a topic's keys stay in their partitions)"
    )


class BrokerLimit(SetupError):
    """A limit that the brokers are configured with does not let a process of this system work."""


class NoCoordinator(SetupError):
    """No broker coordinates transactions."""


class TopicRefused(SetupError):
    """The broker refused to create, grow or delete a topic."""


class TopicMadeAnew(ClipperError):
    """A topic is another one than when this process started; the next start goes by the one that is there."""


class UnreadRecords(ClipperError):
    """A log has records that were not read: a broker named an earlier end, or somebody wrote meanwhile."""


class StaleReferences(SetupError):
    """What was learned and answered refers to a topic that was deleted; the one of its name is another one."""
