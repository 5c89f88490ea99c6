"""Former place of `clients` and of a constant of `retry`."""

from clipper_agents.kafka.clients import administration, unreachable
from clipper_agents.kafka.retry import TIMEOUT_S

__all__ = ["TIMEOUT_S", "administration", "unreachable"]
