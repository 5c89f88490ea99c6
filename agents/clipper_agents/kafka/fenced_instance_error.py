"""An error of Kafka's that aiokafka has no class for: it would be called unknown, and nobody could tell what to do.

KIP-345: of two processes with one instance name the coordinator keeps the newer one, and answers the other with this.
"""

from aiokafka import errors


class FencedInstanceIdError(errors.BrokerResponseError):  # type: ignore[misc]  # aiokafka is untyped
    """The coordinator knows a newer process with our instance name; ours is owner of nothing any more."""

    errno = 82
    message = "FENCED_INSTANCE_ID"
    description = "another process runs with this instance name: give each process its own --instance"

    def __repr__(self) -> str:
        return f"FencedInstanceIdError({self.description})"  # aiokafka passes it on as text


def install() -> None:
    """Have every client of this process know the error."""
    errors.kafka_errors[FencedInstanceIdError.errno] = FencedInstanceIdError
