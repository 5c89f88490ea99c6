"""All that can be set, in one frozen object, read once where a process starts and passed down as plain arguments."""

from clipper_agents.settings.load import Settings, load_settings
from clipper_agents.settings.sections import (
    BrokerSection,
    GatewaySection,
    HostSection,
    KafkaSection,
    ModelsSection,
    RouterSection,
)

__all__ = [
    "BrokerSection",
    "GatewaySection",
    "HostSection",
    "KafkaSection",
    "ModelsSection",
    "RouterSection",
    "Settings",
    "load_settings",
]
