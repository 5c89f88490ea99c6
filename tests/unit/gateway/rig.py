"""What the gateway's tests share: a clock, settings without a Kafka, and how a refusal is expected."""

from contextlib import contextmanager

import pytest

from clipper_agents.settings.sections import GatewaySection
from clipper_agents.settings.workers import GatewaySettings
from clipper_gateway.errors import Refusal
from clipper_topics.catalogue import Catalogue
from clipper_topics.connection import KafkaConnection

NO_KAFKA = KafkaConnection("127.0.0.1:9"), Catalogue()


class Clock:
    """Seconds that a test lets pass."""

    def __init__(self, now_s: float = 1_000_000.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def settings_of(folder, section=None):
    kafka, catalogue = NO_KAFKA
    return GatewaySettings(
        kafka=kafka, catalogue=catalogue, instance="gateway-0", section=section or GatewaySection(), console_dir=folder
    )


@contextmanager
def refuses(status, said=None):
    """What is done in the block is refused."""
    with pytest.raises(Refusal, match=said) as found:
        yield found
    assert found.value.status == status


async def refused(call, status, said=None):
    """How a call is refused."""
    with refuses(status, said) as found:
        await call
    return found.value
