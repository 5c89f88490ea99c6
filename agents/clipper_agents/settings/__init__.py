"""All that can be set, in one frozen object, read once where a process starts and passed down as plain arguments."""

from clipper_agents.settings.load import Settings, load_settings

__all__ = ["Settings", "load_settings"]
