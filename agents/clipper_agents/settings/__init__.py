"""All that can be set, in one frozen object, read once where a process starts and passed down as plain arguments.

    clipper.toml --read--> overlay(environment, command line) --convert--> Settings --check--> used
                 cannot be read |  unknown variable     | wrong type, unknown key | names, references
                                +----------- InvalidSetting, with file, key, value and what is allowed

Precedence: command line, then environment, then file, then default (`reading`).
"""

from clipper_agents.settings.load import Settings, load_settings
from clipper_agents.settings.sections import (
    BrokerSection,
    GatewaySection,
    HostSection,
    KafkaSection,
    ModelsSection,
    RouterSection,
    StewardSection,
)
from clipper_agents.settings.workers import GatewaySettings, HostSettings, RouterSettings, StewardSettings

__all__ = [
    "BrokerSection",
    "GatewaySection",
    "GatewaySettings",
    "HostSection",
    "HostSettings",
    "KafkaSection",
    "ModelsSection",
    "RouterSection",
    "RouterSettings",
    "Settings",
    "StewardSection",
    "StewardSettings",
    "load_settings",
]
